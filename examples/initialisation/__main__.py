"""`python -m examples.initialisation`: trains the grid of scales and rates, prints a table and draws heat maps."""

import argparse
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples import command
from examples.options import add_dataset, add_out, by_dataset, command_parser, joined, positive

DESCRIPTION = (
    "Ioffe & Szegedy 2015, abstract and Sec. 3.3: a small convolutional network without and with batch "
    "normalization, trained from initial weights of many scales at many learning rates. Prints a table, writes "
    "results.json, table.md and heatmaps.png. Can be killed at any time; the same command goes on and trains "
    "nothing twice."
)
EXAMPLES = """examples:
  python -m examples.initialisation                        scikit-learn's digits, some minutes
  python -m examples.initialisation --full --download      CIFAR-10; killed, it goes on at the cell that it was at
  python -m examples.initialisation --full --seeds 3       a seed more, if there are two
  python -m examples.initialisation --scales 0.1 1 10 --rates 0.01 0.1 --out runs/coarse
  python -m examples.initialisation.report RESULTS         table and heat maps of what is there so far
"""


@dataclass(frozen=True)
class Preset:
    """Defaults for a data set."""

    steps: int
    seeds: int


PRESETS = {
    "digits": Preset(steps=200, seeds=3),
    "mnist": Preset(steps=300, seeds=2),
    "cifar10": Preset(steps=300, seeds=2),
}
SCALES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    settings = _settings(options)
    out = options.out or Path("runs/initialisation") / options.dataset
    return command.run(lambda: _run(options, settings, out), out)


def _run(options: argparse.Namespace, settings: dict[str, Any], out: Path) -> None:
    from benchmarks.progress import Progress
    from examples.accelerate.data import load
    from examples.initialisation import report
    from examples.initialisation.network import NETWORKS
    from examples.initialisation.results import Results, Settings
    from examples.initialisation.training import Trainer

    results = Results.open(out, Settings(**settings))
    images = load(options.dataset, options.data_dir, options.download, command="examples.initialisation")
    planned = {
        name: [(cell, seed) for seed in range(options.seeds) for cell in results.cells(name)] for name in NETWORKS
    }
    left = {name: [(c, s) for c, s in cells if (c.name, s) not in results.ended()] for name, cells in planned.items()}
    total, todo = (sum(map(len, each.values())) for each in (planned, left))
    with Progress("training", total, total - todo) as progress:
        for network, cells in left.items():
            trainer = Trainer(network, images, results) if cells else None
            for cell, seed in cells:
                of = f"seed {seed + 1} of {options.seeds}, scale {cell.scale:g}, rate {cell.rate:g}"
                progress.add(0, f"{NETWORKS[network]}, {of}")
                trainer.train(cell, results.run(cell.name, seed), lambda run: None)
                progress.add(1)
    command.show(report.as_text(results), lambda: [results.path, *report.write(results, out)])


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("initialisation", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    preset = partial(by_dataset, PRESETS)
    add_dataset(parser, PRESETS, full="--dataset cifar10")
    add("--seeds", type=positive(int), help=f"trainings of each cell (default: {preset('seeds')})")
    add("--steps", type=positive(int), help=f"of each training (default: {preset('steps')})")
    add("--batch-size", type=positive(int), default=32, help="images a step (default: %(default)s)")
    add(
        "--scales",
        type=positive(float),
        nargs="+",
        default=SCALES,
        metavar="SCALE",
        help=f"of the initial weights, in units of He's (default: {joined(SCALES)})",
    )
    add(
        "--rates",
        type=positive(float),
        nargs="+",
        default=RATES,
        metavar="RATE",
        help=f"learning rates (default: {joined(RATES)})",
    )
    add(
        "--scaled",
        choices=("all", "convolutions"),
        default="all",
        help="whose weights: all kernels, or not that of the outputs, which nothing normalizes (default: %(default)s)",
    )
    add_out(parser, "runs/initialisation/DATASET")
    return parser


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings; sets those of `options` that presets have defaults for."""
    if options.full:
        options.dataset = "cifar10"
    preset = PRESETS[options.dataset]
    options.seeds = options.seeds or preset.seeds
    return {
        "dataset": options.dataset,
        "scales": tuple(sorted(set(options.scales))),
        "rates": tuple(sorted(set(options.rates))),
        "steps": options.steps or preset.steps,
        "batch_size": options.batch_size,
        "scaled": options.scaled,
    }


if __name__ == "__main__":
    sys.exit(main())
