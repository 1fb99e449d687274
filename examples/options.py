"""The options that commands have in common."""

import argparse
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def command_parser(name: str, description: str, examples: str | None = None) -> argparse.ArgumentParser:
    """That of `python -m examples.NAME`; help ends with `examples`, lines as they are."""
    return argparse.ArgumentParser(
        prog=f"python -m examples.{name}",
        description=textwrap.fill(description, 100),
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A number above 0 for argparse, of the type `kind`."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
        return value

    return parse


def add_dataset(parser: argparse.ArgumentParser, datasets: Iterable[str], full: str | None = None) -> None:
    """Adds `--dataset`, digits if it is not given, what finds its files, and `--full`, which stands for `full`."""
    add = parser.add_argument
    add("--dataset", choices=list(datasets), default="digits", help="digits comes with scikit-learn (default: digits)")
    if full:
        add("--full", action="store_true", help=f"the same as {full}")
    add("--data-dir", type=Path, help="folder of TensorFlow Datasets (default: theirs)")
    add("--download", action="store_true", help="download and prepare the data set if it is missing")


def add_out(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--out`; `default` is what help says of it."""
    parser.add_argument("--out", type=Path, help=f"where results go (default: {default})")


def by_dataset(presets: Mapping[str, Any], name: str) -> str:
    """For the help of an option, its defaults: as in "600 for digits, 18,000 for cifar10", or "3" for all of them."""
    found = {dataset: _shown(getattr(preset, name)) for dataset, preset in presets.items()}
    same = len(set(found.values())) == 1
    return next(iter(found.values())) if same else ", ".join(f"{value} for {name}" for name, value in found.items())


def check_every(parser: argparse.ArgumentParser, every: int, steps: Mapping[str, int]) -> None:
    """Ends the command if `every`, steps between two measurements, does not divide the steps of each training."""
    uneven = [f"{name} {number}" for name, number in steps.items() if number % every]
    if uneven:
        parser.error(
            f"argument --every: must divide the steps of each training. Received: {every}, and {', '.join(uneven)}"
        )


def joined(numbers: Iterable[float]) -> str:
    """As they are given on a command line."""
    return " ".join(f"{number:g}" for number in numbers)


def _shown(value: Any) -> str:
    return joined(value) if isinstance(value, tuple) else f"{value:,}" if isinstance(value, int) else f"{value:g}"
