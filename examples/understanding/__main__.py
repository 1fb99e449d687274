"""`python -m examples.understanding`: what Bjorck et al. measured in training, and where it holds."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples import command
from examples.options import add_dataset, add_out, by_dataset, check_every, command_parser, joined, positive
from examples.understanding.depth import depth
from examples.understanding.initial_labels import NETWORK_LABELS

PARTS = ("rates", "depth", "step_size", "divergence")
DESCRIPTION = (
    "Bjorck et al. 2018: a ResNet with batch normalization, without, and with it on the last layer alone. "
    "rates: accuracy at several learning rates. depth: the largest stable rate. step_size: the loss after one "
    "step along the gradient. divergence: moments by layer in a step that diverges. Prints tables, writes a "
    "JSON file for each, table.md and figures. Can be killed at any time; the same command goes on and trains "
    "nothing twice."
)
EXAMPLES = """examples:
  python -m examples.understanding                                scikit-learn's digits, some minutes
  python -m examples.understanding --full                         CIFAR-10, about half an hour on two cores
  python -m examples.understanding --only step_size divergence    two of the four parts
  python -m examples.understanding --full --only rates --resnet 56 --steps 64000 --every 2000 --batch-size 128 \\
      --test-images 10000 --out runs/understanding/long           nearer to the paper: days
  python -m examples.understanding.report RESULTS                 tables and figures of what is there so far
"""


@dataclass(frozen=True)
class Preset:
    """Defaults for a data set."""

    steps: int
    every: int
    test_images: int
    search_steps: int
    trained_steps: int
    seeds: int = 3
    batches: int = 3
    depths: tuple[int, ...] = (8, 14, 20)
    resnet: int = 14


PRESETS = {
    "digits": Preset(240, 30, 450, search_steps=60, trained_steps=100),
    "cifar10": Preset(600, 100, 1000, search_steps=80, trained_steps=200),
}
RATES = (0.1, 0.003, 0.0001)


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = _with_defaults(parser, parser.parse_args(arguments))
    return command.run(lambda: _run(options), options.out)


def _run(options: argparse.Namespace) -> None:
    from benchmarks.progress import Progress
    from examples.accelerate.data import load
    from examples.progress import share
    from examples.understanding import report

    results = _results(options, tuple(options.normalized or NETWORK_LABELS))
    images = load(options.dataset, options.data_dir, options.download, command="examples.understanding")
    images = replace(images, x_test=images.x_test[: options.test_images], y_test=images.y_test[: options.test_images])
    planned = [
        (part, name, seed) for part in options.only for seed in range(options.seeds) for name in results[part].networks
    ]
    with Progress("measuring", len(planned), sum(share(results[part], *of) for part, *of in planned)) as progress:
        for part, name, seed in planned:
            title = f"{part}, {name}, seed {seed + 1} of {options.seeds}"
            _measure(progress, part, images, results[part], name, seed, title)
    command.show(report.as_text(options.out), lambda: report.write(options.out))


def _measure(progress: Any, part: str, images: Any, results: Any, name: str, seed: int, title: str) -> None:
    """One network of one part, unless it is there."""
    from examples.progress import train_to_end
    from examples.understanding import looking, training

    look: dict[str, Callable[..., Any]] = {
        "depth": looking.search,
        "step_size": looking.losses,
        "divergence": looking.moments,
    }
    if part == "rates":
        train_to_end(progress, results, results.run(name, seed), title, partial(training.train, images), weight=1.0)
    elif not results.has(name, seed):
        progress.add(0, title)
        results.add(look[part](images, results, name, seed))
        progress.add(1)


def _results(options: argparse.Namespace, normalized: tuple[str, ...]) -> dict[str, Any]:
    """What is there of the parts that are asked for."""
    from examples.understanding import results as of

    common = {"dataset": options.dataset, "batch_size": options.batch_size}
    settings = {
        "rates": lambda: of.RatesSettings(
            **common,
            depth=options.resnet,
            steps=options.steps,
            every=options.every,
            normalized=normalized,
            learning_rates=tuple(sorted(set(options.learning_rates), reverse=True)),
            test_images=options.test_images,
        ),
        "depth": lambda: of.DepthSettings(
            **common, depths=tuple(sorted(set(options.depths))), steps=options.search_steps
        ),
        "step_size": lambda: of.StepSizeSettings(
            **common, depth=options.resnet, trained_steps=options.trained_steps, batches=options.batches
        ),
        "divergence": lambda: of.DivergenceSettings(
            **common, depth=options.resnet, trained_steps=options.trained_steps
        ),
    }
    classes = {"rates": of.Rates, "depth": of.Depth, "step_size": of.StepSize, "divergence": of.Divergence}
    return {part: classes[part].open(options.out, settings[part]()) for part in options.only}


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("understanding", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    preset = partial(by_dataset, PRESETS)
    add_dataset(parser, PRESETS, full="--dataset cifar10")
    add("--only", nargs="+", choices=PARTS, default=PARTS, help="which parts (default: all)")
    add("--seeds", type=positive(int), help=f"how many times all is done (default: {preset('seeds')})")
    add("--batch-size", type=positive(int), default=32, help="images a step (default: %(default)s)")
    add("--resnet", type=depth, metavar="DEPTH", help=f"of all parts but depth (default: {preset('resnet')})")
    rates = parser.add_argument_group("rates")
    add = rates.add_argument
    add("--steps", type=positive(int), help=f"of each training (default: {preset('steps')})")
    add("--every", type=positive(int), help=f"steps between two measurements (default: {preset('every')})")
    add("--test-images", type=positive(int), help=f"accuracy is of so many (default: {preset('test_images')})")
    add(
        "--learning-rates",
        type=positive(float),
        nargs="+",
        metavar="RATE",
        default=RATES,
        help=f"(default: the paper's, {joined(RATES)})",
    )
    add("--normalized", nargs="+", choices=NETWORK_LABELS, help="where batch normalization is (default: each)")
    add = parser.add_argument_group("depth").add_argument
    add("--depths", type=depth, nargs="+", metavar="DEPTH", help=f"(default: {preset('depths')})")
    add("--search-steps", type=positive(int), help=f"of each training (default: {preset('search_steps')})")
    add = parser.add_argument_group("step_size and divergence").add_argument
    add("--trained-steps", type=positive(int), help=f"before a look (default: {preset('trained_steps')})")
    add("--batches", type=positive(int), help=f"mini-batches for a look at losses (default: {preset('batches')})")
    add_out(parser, "runs/understanding/DATASET")
    return parser


def _with_defaults(parser: argparse.ArgumentParser, options: argparse.Namespace) -> argparse.Namespace:
    """The options, with those that were not given from the preset of the data set."""
    if options.full:
        options.dataset = "cifar10"
    for name, value in vars(PRESETS[options.dataset]).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    check_every(parser, options.every, {"steps": options.steps})
    options.out = options.out or Path("runs/understanding") / options.dataset
    return options


if __name__ == "__main__":
    sys.exit(main())
