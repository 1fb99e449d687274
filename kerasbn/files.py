"""Files that are whole at any time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, with its suffix; the file takes the place of `path` when all is written.

    A process that is killed leaves `path` as it was, and one that raises leaves nothing else either.

    Example:
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with whole(folder / "a.csv") as part:
    ...     _ = part.write_text("step")
    >>> [path.name for path in folder.iterdir()]
    ['a.csv']
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
