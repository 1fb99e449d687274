"""`python -m examples.understanding.initialisation`: what a network is like before it is trained."""

import argparse
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples import command
from examples.options import add_dataset, add_out, by_dataset, command_parser, positive
from examples.understanding.depth import depth

DESCRIPTION = (
    "What Bjorck et al. (2018) say of a ResNet before it is trained, with batch normalization, without, and "
    "with it on the last layer alone: moments by depth, gradients, singular values; and whether layer "
    "Jacobians have singular values near 1 (Ioffe & Szegedy 2015, Sec. 3.3). Nothing is trained. Writes "
    "initialisation.json, initial_table.md and initial_*.png. Can be killed at any time; the same command goes "
    "on and measures nothing twice."
)
EXAMPLES = """examples:
  python -m examples.understanding.initialisation             scikit-learn's digits, ResNet-56, some minutes
  python -m examples.understanding.initialisation --full      CIFAR-10, ResNet-110; killed, it goes on where it was
  python -m examples.understanding.initialisation --seeds 5   two seeds more, if there are three
  python -m examples.understanding.initialisation --depth 20 --initializers he_normal --out runs/shallow
  python -m examples.understanding.initialisation --report RESULTS   tables and figures of what is there so far
"""


@dataclass(frozen=True)
class Preset:
    """Defaults for a data set."""

    depth: int
    batch_size: int
    width: int
    stack_batch: int


PRESETS = {
    "digits": Preset(depth=56, batch_size=128, width=16, stack_batch=48),
    "cifar10": Preset(depth=110, batch_size=32, width=24, stack_batch=64),
}
#: Names of Keras. `random_normal` has a deviation of 0.05 whatever the number of inputs.
INITIALIZERS = ("he_normal", "glorot_uniform", "lecun_normal", "random_normal", "orthogonal")
OTHERS = ("he_uniform", "glorot_normal", "lecun_uniform", "random_uniform", "truncated_normal", "variance_scaling")


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.full:
        options.dataset = "cifar10"
    if options.report:
        return command.run(lambda: _report(options.report, options.out or options.report))
    out = options.out or Path("runs/understanding") / options.dataset
    return command.run(lambda: _run(options, out), out)


def _report(source: Path, out: Path) -> None:
    command.check_exists(source)
    from examples.understanding import initial_report

    command.show(*initial_report.report(source, out))


def _run(options: argparse.Namespace, out: Path) -> None:
    from benchmarks.progress import Progress
    from examples.accelerate.data import load
    from examples.understanding.initial_measurements import plan, pool
    from examples.understanding.initial_results import Results, Settings

    preset = PRESETS[options.dataset]
    settings = Settings(
        dataset=options.dataset,
        images=128,
        matrix_size=options.matrix_size,
        counts=(1, 3, 5, 10),
        **{name: getattr(options, name) or value for name, value in vars(preset).items()},
    )
    results = Results.open(out, settings)
    images = pool(load(options.dataset, options.data_dir, options.download, "examples.understanding.initialisation"))
    planned = plan(settings, images, options.initializers, options.seeds)
    ended = {(run.network, run.seed) for run in results.runs if results.has_ended(run)}
    left = [each for each in planned if (each.network, each.seed) not in ended]
    with Progress("measuring", len(planned), len(planned) - len(left)) as progress:
        for each in left:
            progress.add(0, f"{each.network}, seed {each.seed + 1} of {options.seeds}")
            results.run(each.network, each.seed).values = each.measure()
            results.save()
            progress.add(1)
    _report(out, out)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("understanding.initialisation", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    preset = partial(by_dataset, PRESETS)
    add_dataset(parser, PRESETS, full="--dataset cifar10")
    add("--depth", type=depth, help=f"of the ResNet, 6 n + 2 (default: {preset('depth')})")
    add(
        "--initializers",
        nargs="+",
        choices=(*INITIALIZERS, *OTHERS),
        metavar="NAME",
        default=INITIALIZERS,
        help=f"{', '.join(INITIALIZERS)} (the default), {', '.join(OTHERS)}",
    )
    add("--seeds", type=positive(int), default=3, help="networks of each kind (default: %(default)s)")
    add(
        "--batch-size",
        type=positive(int),
        help=f"images that moments and gradients are of (default: {preset('batch_size')})",
    )
    add("--matrix-size", type=positive(int), default=512, help="of random matrices (default: %(default)s)")
    add("--width", type=positive(int), help=f"units of a layer of a stack (default: {preset('width')})")
    add("--stack-batch", type=positive(int), help=f"examples in a stack (default: {preset('stack_batch')})")
    add("--report", type=Path, metavar="RESULTS", help="measure nothing; tables and figures of what is in that folder")
    add_out(parser, "runs/understanding/DATASET")
    return parser


if __name__ == "__main__":
    sys.exit(main())
