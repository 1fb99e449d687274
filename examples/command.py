"""How the commands of the experiments end, and what those that only report have in common."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from benchmarks.ending import ended
from examples.errors import Refused
from examples.folder import held
from examples.results import ResultsMissing

UNWRITTEN = "Make room, or name another folder with `--out`."
GOES_ON = " What was measured is kept; the same command goes on from there."


def run(work: Callable[[], int | None], out: Path | None = None, goes_on: bool = True) -> int:
    """The exit code of a command: 0, 2 with a sentence if it cannot do what it is asked, 130 if it is interrupted.

    What cannot be written, as on a full disk, is one of the things that it cannot do.

    Args:
        work: What it does. It may give another exit code, if it failed otherwise and has said so.
        out: The folder that it writes into, which nobody else writes into meanwhile.
        goes_on: Whether the same command goes on where it was interrupted, rather than from the start.
    """
    try:
        with nullcontext() if out is None else held(out):
            return ended(work, UNWRITTEN + GOES_ON * goes_on)
    except ModuleNotFoundError as error:
        print(f'This example needs {error.name}, which is not installed: pip install -e ".[examples]"', file=sys.stderr)
        return 2
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Interrupted.{GOES_ON * goes_on}", file=sys.stderr)
        return 130


def report(
    arguments: list[str] | None,
    name: str,
    writes: str,
    *,
    published: str = "digits",
) -> int:
    """The exit code of `python -m examples.NAME.report RESULTS`, which prints tables and draws figures.

    That module has a function `make` of the results and of the folder for what is made of them, beside them if it is
    `None`; it returns what is printed, and a function that writes the files and returns their paths. The module is
    imported once the options are read and there is something to report on: help and mistakes do not wait for
    TensorFlow and Matplotlib.

    Args:
        arguments: Of the command line.
        name: Of the experiment.
        writes: What the command does, for its help.
        published: A folder of results in the repository, for the example in its help.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m examples.{name}.report",
        description=writes,
        epilog=f"Example: python -m examples.{name}.report examples/{name}/results/{published} --out report",
    )
    parser.add_argument("results", type=Path, help="folder of the results, or their results.json")
    parser.add_argument("--out", type=Path, help="where files go (default: beside the results)")
    options = parser.parse_args(arguments)

    def make() -> None:
        check_exists(options.results)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow, which comes next, reads it
        module = importlib.import_module(f"examples.{name}.report")
        show(*module.make(options.results, options.out))

    return run(make, goes_on=False)


def check_exists(results: Path) -> None:
    """Looks whether there can be results, before anything is imported to read them with.

    Raises:
        ResultsMissing: If there is no such file or folder.
    """
    if not results.exists():
        raise ResultsMissing(
            f"There are no results in {results}: it does not exist. Name the folder that a training wrote to."
        )


def show(text: str, write: Callable[[], list[Path]]) -> None:
    """Prints what an experiment found, also where `write` then fails, and the paths that `write` returns."""
    print(f"\n{text}\n")
    print(f"Written: {', '.join(map(str, write()))}")
