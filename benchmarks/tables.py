"""Writes the tables of all results in a folder into its tables.md."""

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import report
from benchmarks.ending import ADVICE, ended

FOLDER = Path("docs/performance")


class NotResults(Exception):
    """A file is not what a benchmark wrote; the message names it."""


def results(folder: Path) -> dict[str, dict]:
    """What the benchmarks wrote into `folder`, by the names of the files.

    Raises:
        NotResults: If one of them holds something else.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        with understood(path):
            found[path.stem] = json.loads(path.read_text())
            if not found[path.stem]["benchmark"].isidentifier():
                raise ValueError(f"there is no benchmark {found[path.stem]['benchmark']!r}")
    return found


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """What is done with the content of a file. Whatever that raises means that the file is something else."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        ImportError,
        LookupError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise NotResults(
            f"{path} is not what a benchmark wrote ({type(error).__name__}: {error}). Remove it, or run the benchmark "
            "again."
        ) from error


def section(name: str, content: dict) -> str:
    """One result with the settings and the machine that it is of."""
    benchmark = importlib.import_module(f"benchmarks.{content['benchmark']}")
    settings = {key: value for key, value in content.items() if isinstance(value, str | int)} | content["machine"]
    described = ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)
    return "\n\n".join([f"## {name}", benchmark.__doc__.strip(), described, report.markdown(benchmark.rows(content))])


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tables",
        description=__doc__,
        epilog="Example: python -m benchmarks.tables docs/performance",
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=FOLDER, help="with the JSON files (default: %(default)s)"
    )
    folder = parser.parse_args(arguments).folder
    sections = []
    try:
        for name, content in results(folder).items():
            with understood(folder / f"{name}.json"):
                sections.append(section(name, content))
    except NotResults as error:
        parser.error(str(error))
    if not sections:
        parser.error(f"there is no JSON file in {folder}; python -m benchmarks writes some")
    heading = "# Results\n\nWritten by `python -m benchmarks.tables`."
    report.write_whole(folder / "tables.md", ("\n\n".join([heading, *sections]) + "\n").encode())
    print(f"Written: {folder / 'tables.md'}")


if __name__ == "__main__":
    sys.exit(ended(main, ADVICE))
