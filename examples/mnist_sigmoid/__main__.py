"""`python -m examples.mnist_sigmoid`: trains both networks, prints the table and draws Figure 1."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

# TensorFlow's notes on the machine are of no use to a reader of the table.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples import command
from examples.options import add_dataset, add_out, command_parser, positive

DESCRIPTION = (
    "Ioffe & Szegedy 2015, Sec. 4.1: a network of three layers of 100 sigmoids on binary images of digits, "
    "trained with and without batch normalization. Prints a table, writes results.json and figure1.png. Can be "
    "interrupted at any time; the same command goes on where it stopped."
)

#: The data sets, with the steps that each is trained for.
STEPS = {"digits": 10_000, "mnist": 50_000, "fashion_mnist": 50_000}
MEASUREMENTS = 200


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    options.steps = options.steps or STEPS[options.dataset]
    options.out = options.out or Path("runs/mnist_sigmoid") / options.dataset
    return command.run(lambda: _run(options), options.out)


def _run(options: argparse.Namespace) -> None:
    from examples.mnist_sigmoid import report
    from examples.mnist_sigmoid.data import load
    from examples.mnist_sigmoid.network import NETWORKS
    from examples.mnist_sigmoid.results import Results, Settings
    from examples.mnist_sigmoid.training import train
    from examples.progress import of_trainings, train_to_end

    measurements = max(n for n in range(1, min(MEASUREMENTS, options.steps) + 1) if options.steps % n == 0)
    settings = Settings(
        dataset=options.dataset,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        jit_compile=options.jit_compile,
        measurements=measurements,
    )
    results = Results.open(options.out, settings)
    data = load(options.dataset, options.data_dir, options.download)
    planned = [(network, seed) for seed in range(options.seeds) for network in NETWORKS]
    try:
        with of_trainings(results, planned) as progress:
            for network, seed in planned:
                title = f"{NETWORKS[network]}, seed {seed + 1} of {options.seeds}"
                train_to_end(progress, results, results.run(network, seed), title, partial(train, data))
    finally:  # an interrupt shows what has ended, too
        if any(map(results.complete, NETWORKS)):
            command.show(report.table(results), lambda: [results.path, *report.write(results, options.out)])


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("mnist_sigmoid", DESCRIPTION)
    add = parser.add_argument
    add_dataset(parser, STEPS)
    steps = ", ".join(f"{number:,} for {name}" for name, number in STEPS.items())
    add("--steps", type=positive(int), help=f"training steps (default: {steps})")
    add("--batch-size", type=positive(int), default=60, help="examples a step (default: %(default)s)")
    add("--learning-rate", type=positive(float), default=0.1, help="of SGD, for both networks (default: %(default)s)")
    add("--seeds", type=positive(int), default=3, help="how many times each network is trained (default: %(default)s)")
    add("--jit-compile", choices=("auto", "true", "false"), default="auto", help="of Model.compile (default: auto)")
    add_out(parser, "runs/mnist_sigmoid/DATASET")
    return parser


if __name__ == "__main__":
    sys.exit(main())
