"""`python -m examples.inception`: trains the networks of Sec. 4.2.2, prints the table of Fig. 3 and draws Fig. 2."""

import argparse
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples import command
from examples.errors import Refused
from examples.options import add_dataset, add_out, by_dataset, check_every, command_parser, joined, positive

DESCRIPTION = (
    "Ioffe & Szegedy 2015, Sec. 4.2.2: a small Inception without batch normalization, with it, and accelerated "
    "by factors of 5 and 30; with ReLU and sigmoid. Prints the table of Fig. 3, writes results.json, table.md, "
    "figure2.png and figure2_time.png. Can be killed at any time; the same command goes on at the last "
    "measurement and trains nothing twice."
)
EXAMPLES = """examples:
  python -m examples.inception                          scikit-learn's digits, some minutes
  python -m examples.inception --full                   CIFAR-10, hours; killed, it goes on where it was measured last
  python -m examples.inception --full --seeds 5         two seeds more, if there are three
  python -m examples.inception --networks inception bn_x5 --seeds 2
  python -m examples.inception.report RESULTS           table and figures of what is there so far
"""


@dataclass(frozen=True)
class Preset:
    """Defaults for a data set."""

    baseline_steps: int
    steps: int
    every: int
    seeds: int
    search_steps: int
    learning_rate: float = 0.03  # the best of three in 1,500 steps of CIFAR-10: see examples/accelerate


PRESETS = {
    "digits": Preset(baseline_steps=600, steps=300, every=20, seeds=1, search_steps=300),
    "cifar10": Preset(baseline_steps=18_000, steps=6_000, every=250, seeds=3, search_steps=2_000),
}
RATES = (0.0075, 0.015, 0.03, 0.06, 0.12)
NETWORKS = ("inception", "bn_baseline", "bn_x5", "bn_x30", "bn_x5_sigmoid", "inception_sigmoid", "inception_x5")


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    settings = _settings(parser, options)
    out = options.out or Path("runs/inception") / options.dataset
    return command.run(lambda: _run(options, settings, out), out)


def _run(options: argparse.Namespace, settings: dict[str, Any], out: Path) -> None:
    from examples.accelerate.data import load
    from examples.inception import report
    from examples.inception.networks import NETWORKS
    from examples.inception.results import Results, Settings
    from examples.inception.training import train
    from examples.progress import of_trainings, train_to_end

    results = Results.open(out, Settings(dataset=options.dataset, batch_size=options.batch_size, **settings))
    images = load(options.dataset, options.data_dir, options.download, command="examples.inception")

    searched = {name: f"search, {rate:g}" for name, rate in results.search.items()}
    chosen = {name: each.label for name, each in NETWORKS.items() if name in (options.networks or NETWORKS)}

    def train_all(labels: dict[str, str], seeds: int) -> None:
        for name, seed in _each(labels, seeds):
            title = f"{labels[name]}, seed {seed + 1} of {seeds}"
            train_to_end(progress, results, results.run(name, seed), title, partial(train, images))

    planned = [*_each(searched, results.settings.search_seeds), *_each(chosen, options.seeds)]
    with of_trainings(results, planned) as progress:
        train_all(searched, results.settings.search_seeds)
        if searched:
            progress.say(f"\n{report.table(report.search_rows(results))}\n{report.remark(results)}")
        if results.learning_rate is None:
            raise Refused(
                f"Every rate of the search diverged. Received: {joined(results.settings.search_rates)}. Give lower "
                "`--search-rates`, and another `--out`."
            )
        train_all(chosen, options.seeds)
    command.show(report.as_text(results), lambda: [results.path, *report.write(results, out)])


def _each(names: Iterable[str], seeds: int) -> list[tuple[str, int]]:
    return [(name, seed) for seed in range(seeds) for name in names]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("inception", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    preset = partial(by_dataset, PRESETS)
    add_dataset(parser, PRESETS, full="--dataset cifar10 --search")
    add("--networks", nargs="+", choices=NETWORKS, metavar="NETWORK", help=f"of {', '.join(NETWORKS)} (default: all)")
    add("--seeds", type=positive(int), help=f"trainings of each network (default: {preset('seeds')})")
    add(
        "--baseline-steps",
        type=positive(int),
        help=f"of Inception and BN-Baseline, whose rate falls to a tenth in them (default: {preset('baseline_steps')})",
    )
    add("--steps", type=positive(int), help=f"of the other networks (default: {preset('steps')})")
    add("--every", type=positive(int), help=f"steps between two measurements (default: {preset('every')})")
    add("--batch-size", type=positive(int), default=32, help="images a step (default: %(default)s)")
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument("--learning-rate", type=positive(float), help="of the baseline, at the start (default: 0.03)")
    rates.add_argument("--search", action="store_true", help="take the best of --search-rates for the baseline")
    add("--search-rates", type=positive(float), nargs="+", metavar="RATE", help=f"(default: {joined(RATES)})")
    add(
        "--search-steps",
        type=positive(int),
        help=f"of each training of the search (default: {preset('search_steps')})",
    )
    add("--search-seeds", type=positive(int), help="trainings with each rate (default: 1)")
    add_out(parser, "runs/inception/DATASET")
    return parser


def _settings(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, Any]:
    """The settings that presets have defaults for; sets those of `options` that are not settings."""
    if options.full:
        options.dataset = "cifar10"
    preset = PRESETS[options.dataset]
    options.seeds = options.seeds or preset.seeds
    searching = options.search or (options.full and options.learning_rate is None)
    for name in ("search_rates", "search_steps", "search_seeds"):
        if getattr(options, name) and not searching:
            parser.error(f"argument --{name.replace('_', '-')}: is of --search, which was not asked for")
    found = {name: getattr(options, name) or getattr(preset, name) for name in ("baseline_steps", "steps", "every")}
    found["search_steps"] = (options.search_steps or preset.search_steps) if searching else 0
    check_every(parser, found["every"], found)
    return {
        **found,
        "learning_rate": None if searching else options.learning_rate or preset.learning_rate,
        "search_rates": tuple(sorted(set(options.search_rates or RATES))) if searching else (),
        "search_seeds": (options.search_seeds or 1) if searching else 0,
    }


if __name__ == "__main__":
    sys.exit(main())
