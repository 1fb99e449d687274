"""`python -m examples.ensemble`: trains the six networks of Sec. 4.2.3 and BN-x30, and measures their mean."""

import argparse
import os
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples import command
from examples.options import add_dataset, add_out, by_dataset, check_every, command_parser, positive

DESCRIPTION = (
    "Ioffe & Szegedy 2015, Sec. 4.2.3: six networks on BN-x30, which differ in initial weights, dropout and in "
    "what is normalized together, and the mean of their probabilities. Prints tables, writes results.json, "
    "table.md and figure.png. Can be killed at any time; the same command goes on at the last measurement and "
    "trains nothing twice."
)
EXAMPLES = """examples:
  python -m examples.ensemble                          scikit-learn's digits, some minutes
  python -m examples.ensemble --full --download        CIFAR-10; killed, it goes on where it was measured last
  python -m examples.ensemble --full --ensembles 3     two ensembles more, if there is one
  python -m examples.ensemble --factor 5 --out runs/x5
  python -m examples.ensemble.report RESULTS           tables and figure of what is there so far
"""


@dataclass(frozen=True)
class Preset:
    """Defaults for a data set."""

    steps: int
    every: int
    learning_rate: float = 0.03  # see examples/inception
    factor: float = 30.0  # the paper's, where the network trains with it: see the README


PRESETS = {"digits": Preset(steps=300, every=50), "cifar10": Preset(steps=2_000, every=250, factor=10.0)}


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    settings = _settings(parser, options)
    out = options.out or Path("runs/ensemble") / options.dataset
    return command.run(lambda: _run(options, settings, out), out)


def _run(options: argparse.Namespace, settings: dict[str, Any], out: Path) -> None:
    from examples.accelerate.data import load
    from examples.ensemble import report
    from examples.ensemble.members import MEMBERS, REFERENCE
    from examples.ensemble.results import Results, Settings
    from examples.ensemble.training import evaluate, train
    from examples.progress import of_trainings, train_to_end

    results = Results.open(out, Settings(**settings))
    images = load(options.dataset, options.data_dir, options.download, command="examples.ensemble")
    names = (REFERENCE, *MEMBERS)
    for run in results.runs:
        if results.lost(run) and run.seed < options.ensembles:
            run.forget()
    with of_trainings(results, [(name, seed) for seed in range(options.ensembles) for name in names]) as progress:
        for seed in range(options.ensembles):
            for name in names:
                title = f"{results.networks[name].label}, ensemble {seed + 1} of {options.ensembles}"
                train_to_end(progress, results, results.run(name, seed), title, partial(train, images))
            evaluate(images, results, seed)
    command.show(report.as_text(results), lambda: [results.path, *report.write(results, out)])


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("ensemble", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    preset = partial(by_dataset, PRESETS)
    add_dataset(parser, PRESETS, full="--dataset cifar10")
    add("--ensembles", type=positive(int), default=1, help="how many, each with other seeds (default: %(default)s)")
    add("--steps", type=positive(int), help=f"of each network (default: {preset('steps')})")
    add("--every", type=positive(int), help=f"steps between two measurements (default: {preset('every')})")
    add("--batch-size", type=positive(int), default=32, help="images a step (default: %(default)s)")
    add("--learning-rate", type=positive(float), help=f"of Inception (default: {preset('learning_rate')})")
    add("--factor", type=positive(float), help=f"what the rate is multiplied by (default: {preset('factor')})")
    add(
        "--larger", type=positive(float), default=2.0, help="larger initial weights are so many times He's (default: 2)"
    )
    add("--top-k", type=int, choices=range(2, 10), default=3, help="of the second error (default: %(default)s)")
    add_out(parser, "runs/ensemble/DATASET")
    return parser


def _settings(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, Any]:
    """The settings; sets the data set of `options`."""
    if options.full:
        options.dataset = "cifar10"
    found = {name: getattr(options, name) or value for name, value in asdict(PRESETS[options.dataset]).items()}
    check_every(parser, found["every"], {"steps": found["steps"]})
    return found | {name: getattr(options, name) for name in ("dataset", "batch_size", "larger", "top_k")}


if __name__ == "__main__":
    sys.exit(main())
