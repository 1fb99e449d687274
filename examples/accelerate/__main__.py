"""`python -m examples.accelerate`: a small Inception of 2014, and the same after `kerasbn.accelerate`."""

import argparse
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples import command
from examples.options import add_dataset, add_out, by_dataset, command_parser, positive

DESCRIPTION = (
    "Ioffe & Szegedy 2015, Sec. 4.2.1: trains a small Inception with LRN, dropout, L2 and photometric "
    "distortions, and what kerasbn.accelerate makes of it. Prints what was changed and a table, writes "
    "results.json and figure.png. Can be interrupted at any time; the same command goes on where it stopped."
)


@dataclass(frozen=True)
class Preset:
    """Defaults for a data set."""

    steps: int
    measurements: int
    learning_rate: float = 0.03  # the baseline's best: see the README


PRESETS = {"digits": Preset(1500, 30), "cifar10": Preset(3000, 15)}


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    for name, value in vars(PRESETS[options.dataset]).items():
        setattr(options, name, getattr(options, name) or value)
    options.measurements = min(options.measurements, options.steps)
    options.steps -= options.steps % options.measurements
    options.out = options.out or Path("runs/accelerate") / options.dataset
    return command.run(lambda: _run(options), options.out)


def _run(options: argparse.Namespace) -> None:
    from examples.accelerate import report
    from examples.accelerate.data import load
    from examples.accelerate.training import NETWORKS, Results, Settings, model_and_callbacks, train
    from examples.progress import of_trainings, train_to_end

    names = ("dataset", "steps", "batch_size", "learning_rate", "factor", "measurements")
    settings = Settings(**{name: getattr(options, name) for name in names})
    results = Results.open(options.out, settings)
    images = load(options.dataset, options.data_dir, options.download)
    print(f"{model_and_callbacks('accelerated', settings, images, 0)[3]}\n", flush=True)
    planned = [(network, seed) for seed in range(options.seeds) for network in options.networks or NETWORKS]
    with of_trainings(results, planned) as progress:
        for network, seed in planned:
            title = f"{network}, seed {seed + 1} of {options.seeds}"
            train_to_end(progress, results, results.run(network, seed), title, partial(train, images))
    command.show(report.table(results), lambda: [results.path, *report.write(results, options.out)])


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("accelerate", DESCRIPTION)
    add = parser.add_argument
    preset = partial(by_dataset, PRESETS)
    add_dataset(parser, PRESETS)
    add("--steps", type=positive(int), help=f"of each training (default: {preset('steps')})")
    add("--measurements", type=positive(int), help=f"of each training (default: {preset('measurements')})")
    add("--batch-size", type=positive(int), default=32, help="images a step (default: %(default)s)")
    rate = preset("learning_rate")
    add("--learning-rate", type=positive(float), help=f"of the baseline, at the start (default: {rate})")
    add("--factor", type=positive(float), default=5.0, help="the accelerated rate is so many times it (default: 5)")
    add("--seeds", type=positive(int), default=2, help="how many times each network is trained (default: %(default)s)")
    add("--networks", nargs="+", choices=("baseline", "accelerated"), help="which are trained (default: both)")
    add_out(parser, "runs/accelerate/DATASET")
    return parser


if __name__ == "__main__":
    sys.exit(main())
