"""A folder that one process at a time writes results into."""

import errno
import fcntl
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from examples.errors import Refused


class FolderUnusable(Refused):
    """Results cannot be written into a folder; the message says why."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps all others who ask for it out of `folder`, which is made if it is missing.

    Two that went on with the same results would each write what it knows, and the last one would win. The lock is on
    the folder itself, so that no file stays behind, and ends with the process, however that ends. Where a file system
    has no locks, nothing is kept out.

    Raises:
        FolderUnusable: If another process holds it, or this one in another place; if it cannot be made.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise FolderUnusable(f"{folder} cannot be used as `--out`: {error.strerror}. Name another folder.") from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def check_writable(folder: Path) -> None:
    """Looks whether files can be made in `folder`, before anything is measured for them.

    Raises:
        OSError: If not.
    """
    if not os.access(folder, os.W_OK):
        error = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(error, os.strerror(error), str(folder))


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise FolderUnusable(
                f"Another process is writing into {folder}. Nothing was changed. Wait until it has ended, or name "
                f"another folder with `--out`.{_named(holders(descriptor))}"
            ) from None


def holders(descriptor: int) -> dict[int, str]:
    """The processes that have locked an open file or folder, and their commands, as far as the system tells."""
    file = os.fstat(descriptor)
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    found = {}
    with suppress(OSError):  # there is a list on Linux only
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "FLOCK" in words and place in words:
                number = words[words.index(place) - 1]
                with suppress(OSError):  # it may have ended meanwhile
                    command = Path(f"/proc/{number}/cmdline").read_text(errors="replace").replace("\0", " ")
                    found[int(number)] = textwrap.shorten(command, 160, placeholder=" ...")
    return found


def _named(found: dict[int, str]) -> str:
    return " It is " + ", ".join(f"process {n} ({text})" for n, text in found.items()) + "." if found else ""
