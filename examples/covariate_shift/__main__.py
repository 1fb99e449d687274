"""`python -m examples.covariate_shift`: trains three networks, and says whether less shift goes with more speed."""

import argparse
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples import command
from examples.errors import Refused
from examples.options import add_dataset, add_out, by_dataset, check_every, command_parser, joined, positive

DESCRIPTION = (
    "Ioffe & Szegedy 2015, Sec. 2, and Santurkar et al. 2018, Sec. 2: how far the distributions in a network "
    "move while it trains, without batch normalization, with it, and with noise behind it that moves them "
    "more. Prints tables, writes results.json, table.md and figures. Can be killed at any time; the same "
    "command goes on at the last measurement and trains nothing twice."
)
EXAMPLES = """examples:
  python -m examples.covariate_shift                        scikit-learn's digits, some minutes
  python -m examples.covariate_shift --activation relu      the same with ReLUs
  python -m examples.covariate_shift --full --download      MNIST; killed, it goes on where it was measured last
  python -m examples.covariate_shift --rates 1 --seeds 10   no search: one rate for all
  python -m examples.covariate_shift.report RESULTS         table and figures of what is there so far
"""
RATES = {"sigmoid": (0.3, 1.0, 3.0, 10.0), "relu": (0.03, 0.1, 0.3, 1.0)}


@dataclass(frozen=True)
class Preset:
    """Defaults for a data set."""

    steps: int
    every: int
    probe: int
    seeds: int = 5
    search_seeds: int = 1


PRESETS = {"digits": Preset(steps=1_000, every=50, probe=300), "mnist": Preset(steps=3_000, every=150, probe=500)}


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    _complete(parser, options)
    return command.run(lambda: _run(options), options.out)


def _run(options: argparse.Namespace) -> None:
    from benchmarks.progress import Progress
    from examples.accelerate.data import Images
    from examples.covariate_shift import report
    from examples.covariate_shift.comparisons import NETWORKS
    from examples.covariate_shift.results import Results, Settings
    from examples.covariate_shift.training import train
    from examples.mnist_sigmoid.data import load
    from examples.progress import share, train_to_end

    names = ("dataset", "activation", "steps", "every", "batch_size", "rates", "search_seeds", "probe")
    results = Results.open(options.out, Settings(**{name: getattr(options, name) for name in names}))
    data = load(options.dataset, options.data_dir, options.download, command="examples.covariate_shift")
    images = Images(data.x_train.astype("float32"), data.y_train, data.x_test.astype("float32"), data.y_test)

    # How many trainings come after the search is known after it: they count as one for each network and seed.
    total = len(results.search()) + len(NETWORKS) * options.seeds
    with Progress("training", total, done=sum(share(results, *each) for each in results.search())) as progress:
        for name, seed in results.search():
            train_to_end(progress, results, results.run(name, seed), name, partial(train, images), weight=1.0)
        if results.rate("plain") is None:
            raise Refused(
                f"Every rate of the search diverged without BN. Received: {joined(options.rates)}. Give lower "
                "`--rates`, and another `--out`."
            )
        planned = [(name, seed) for seed in range(options.seeds) for name in results.trainings()]
        weight = len(NETWORKS) * options.seeds / len(planned)
        progress.add(weight * sum(share(results, *each) for each in planned))
        for name, seed in planned:
            title = f"{name}, seed {seed + 1} of {options.seeds}"
            train_to_end(progress, results, results.run(name, seed), title, partial(train, images), weight)
    command.show(report.as_text(results), lambda: [results.path, *report.write(results, options.out)])


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("covariate_shift", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    preset = partial(by_dataset, PRESETS)
    add_dataset(parser, PRESETS, full="--dataset mnist")
    add("--activation", choices=RATES, default="sigmoid", help="of the hidden layers (default: %(default)s)")
    add("--seeds", type=positive(int), help=f"trainings of each network (default: {preset('seeds')})")
    add("--steps", type=positive(int), help=f"of each training (default: {preset('steps')})")
    add("--every", type=positive(int), help=f"steps between two measurements (default: {preset('every')})")
    add("--probe", type=positive(int), help=f"examples that are measured (default: {preset('probe')})")
    add("--batch-size", type=positive(int), default=60, help="images a step (default: %(default)s)")
    rates = "; ".join(f"{joined(each)} for {name}" for name, each in RATES.items())
    add(
        "--rates",
        type=positive(float),
        nargs="+",
        metavar="RATE",
        help=f"learning rates that each network is tried at (default: {rates}); if it is one, nothing is searched",
    )
    add("--search-seeds", type=positive(int), help=f"trainings with each rate (default: {preset('search_seeds')})")
    add_out(parser, "runs/covariate_shift/DATASET_ACTIVATION")
    return parser


def _complete(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Gives options that were left out the value of the preset."""
    if options.full:
        options.dataset = "mnist"
    preset = PRESETS[options.dataset]
    for name in ("seeds", "steps", "every", "probe", "search_seeds"):
        setattr(options, name, getattr(options, name) or getattr(preset, name))
    options.rates = tuple(sorted(set(options.rates or RATES[options.activation])))
    options.out = options.out or Path("runs/covariate_shift") / f"{options.dataset}_{options.activation}"
    check_every(parser, options.every, {"steps": options.steps})


if __name__ == "__main__":
    sys.exit(main())
