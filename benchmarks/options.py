"""The options that the benchmarks share."""

import argparse
import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: The networks of `benchmarks.networks`, and how their steps are run.
NETWORKS = ("MLP", "Inception", "ResNet-20", "MobileNetV2")
MODES = ("graph", "xla")


def at_least_one(text: str) -> int:
    """A positive integer, for argparse."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return value


def parser(name: str, documentation: str, *, quick: str, repeats: str, example: str) -> argparse.ArgumentParser:
    """A parser with `--quick`, `--repeats` and `--out`; the first paragraph of `documentation` describes it."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=documentation.split("\n\n")[0],
        epilog=f"Example: python -m benchmarks.{name} {example}",
    )
    parser.add_argument("--quick", action="store_true", help=f"for a look: {quick}")
    parser.add_argument("--repeats", type=at_least_one, metavar="N", help=f"rounds (default: {repeats})")
    add_out(parser, name)
    return parser


def add_out(parser: argparse.ArgumentParser, name: str) -> None:
    """Adds `--out`, a file that can be written."""
    parser.add_argument(
        "--out",
        type=writable,
        default=f"runs/benchmarks/{name}.json",
        metavar="FILE",
        help="where the JSON goes (default: %(default)s)",
    )


def writable(text: str) -> Path:
    """A path for argparse that something can be written to, as far as that is known before: measuring takes long."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file. Received a folder: {text}")
    special = path.exists() and not path.is_file()  # such as /dev/stdout
    there = path if special else next(each for each in path.absolute().parents if each.exists())
    if not (special or there.is_dir()) or not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {there} is read-only, or no folder")
    return path


def add_choice(parser: argparse.ArgumentParser, name: str, choices: Iterable[str]) -> None:
    """An option that takes one or more of `choices`; `None` where it is not given."""
    choices = tuple(choices)
    parser.add_argument(
        f"--{name}",
        nargs="+",
        choices=choices,
        metavar="NAME",
        help=f"of {', '.join(choices)} (default: all, but for what --quick leaves out)",
    )


def run(name: str, *arguments: Any) -> Any:
    """What `run` of `benchmarks.NAME` returns for these arguments.

    The module is imported only now, all of it: help and wrong options do not wait for TensorFlow.
    """
    return importlib.import_module(f"benchmarks.{name}").run(*arguments)
