"""`python -m tuning.report RESULTS`: tables and pictures of a study, without training anything."""

import argparse
import importlib
import os
import sys
from pathlib import Path

from examples import command
from examples.options import positive
from tuning.partial import find
from tuning.results import ResultsMissing, Study


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tuning.report",
        description="Prints the trials of a study and writes pictures, trials.csv and a page that needs no network.",
        epilog="Example: python -m tuning.report tuning/results/cifar10 --out report",
    )
    parser.add_argument("results", type=Path, help="folder of a study, or its results.json")
    parser.add_argument("--out", type=Path, help="where files go (default: `report` beside results.json)")
    parser.add_argument(
        "--target", type=positive(float), help="accuracy to count steps to (default: the best of the plain networks)"
    )
    parser.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="write the trials for TensorBoard's HParams, too"
    )
    options = parser.parse_args(arguments)
    return command.run(lambda: _run(options), goes_on=False)


def _run(options: argparse.Namespace) -> None:
    study, missing = find(options.results)
    if not study.trials:
        raise ResultsMissing(f"The study in {options.results} has no trial that ended yet.")
    beside = options.results if options.results.is_dir() else options.results.parent
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow, which comes next, reads it
    module = importlib.import_module("tuning.report")
    module.make(study, missing, options.out or beside / "report", options.target, options.tensorboard)


if __name__ == "__main__":  # above the imports of what draws, which take seconds
    sys.exit(main())

import csv
import io

from benchmarks.report import write_whole
from kerasbn.table import table as columns
from tuning import figures, summary
from tuning.page import page

TITLE = "Batch normalization and the learning rate: {dataset}"
PICTURES = {
    "rates": ("Learning rates", "Accuracy and steps to the target against the learning rate, for both arms"),
    "curves": ("The best trial of each arm", "Accuracy against training steps for the best trial of each arm"),
    "parallel": ("All trials", "Parallel coordinates: each trial from its hyperparameters to its accuracy"),
}


def write(study: Study, folder: Path, target: float | None = None) -> Path:
    """Writes pictures, CSV and the page, each whole or not at all.

    Args:
        study: The study; with one trial at least.
        folder: Where they go.
        target: Accuracy that steps are counted to; `None` for the best of the plain networks.

    Returns:
        The path of the page.
    """
    target = summary.target(study) if target is None else target
    drawn = {
        "rates": figures.rates(study, target),
        "curves": figures.curves(study),
        "parallel": figures.parallel(study),
    }
    for name, png in drawn.items():
        write_whole(folder / f"{name}.png", png)
    rows = summary.rows(study, target)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / "trials.csv", text.getvalue().encode())
    content = page(
        TITLE.format(**study.settings),
        summary.conclusion(study),
        [(*PICTURES[name], png) for name, png in drawn.items()],
        summary.table(study, target),
        study.settings | study.machine,
    )
    write_whole(folder / "report.html", content.encode())
    return folder / "report.html"


def table(study: Study, target: float | None = None) -> str:
    """The trials as a table for the terminal."""
    return columns(summary.table(study, summary.target(study) if target is None else target))


def make(study: Study, missing: list[str], folder: Path, target: float | None, tensorboard: Path | None) -> None:
    """Prints what is in the report, and what is missing of the study; then writes the report."""
    print("\n\n".join([table(study, target), summary.conclusion(study), *missing]))
    print(f"\nReport: {write(study, folder, target)}")
    if tensorboard:
        from tuning import hparams

        hparams.write(study, tensorboard)
        print(f"For TensorBoard: tensorboard --logdir {tensorboard}")
