"""`python -m examples.mnist_sigmoid`: trains both networks, prints the table and draws Figure 1."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

# TensorFlow's notes on the machine are of no use to a reader of the table.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples.folder import alone

#: The data sets, with the steps that each is trained for.
STEPS = {"digits": 10_000, "mnist": 50_000, "fashion_mnist": 50_000}
MEASUREMENTS = 200


def positive(kind):
    """A number above 0, for argparse."""

    def parse(text: str):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
        return value

    return parse


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.mnist_sigmoid",
        description=(
            "Ioffe & Szegedy 2015, Sec. 4.1: a network of three layers of 100 sigmoids on binary images of digits, "
            "trained with and without batch normalization. Prints a table, writes results.json and figure1.png. Can be "
            "interrupted at any time; the same command goes on where it stopped."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--dataset",
        choices=STEPS,
        default="digits",
        help="digits comes with scikit-learn, the others need --download once",
    )
    parser.add_argument(
        "--data-dir", type=Path, help="folder of TensorFlow Datasets (default: theirs)", default=argparse.SUPPRESS
    )
    parser.add_argument("--download", action="store_true", help="download and prepare the data set if it is missing")
    parser.add_argument(
        "--steps",
        type=positive(int),
        help=f"training steps (default: {', '.join(f'{n:,} for {name}' for name, n in STEPS.items())})",
        default=argparse.SUPPRESS,
    )
    parser.add_argument("--batch-size", type=positive(int), default=60, help="examples a step")
    parser.add_argument("--learning-rate", type=positive(float), default=0.1, help="of SGD, for both networks")
    parser.add_argument("--seeds", type=positive(int), default=3, help="how many times each network is trained")
    parser.add_argument("--jit-compile", choices=("auto", "true", "false"), default="auto", help="of Model.compile")
    parser.add_argument(
        "--out", type=Path, help="where results go (default: runs/mnist_sigmoid/DATASET)", default=argparse.SUPPRESS
    )
    options = parser.parse_args(arguments)
    # SUPPRESS keeps a meaningless "default: None" out of --help.
    options.data_dir = getattr(options, "data_dir", None)
    options.steps = getattr(options, "steps", STEPS[options.dataset])
    options.out = getattr(options, "out", Path("runs/mnist_sigmoid") / options.dataset)
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    return alone(options.out, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    try:
        from examples.mnist_sigmoid import report
        from examples.mnist_sigmoid.data import DatasetMissing, load
        from examples.mnist_sigmoid.network import NETWORKS
        from examples.mnist_sigmoid.results import Results, Settings
        from examples.mnist_sigmoid.training import train
        from examples.progress import with_bar
        from examples.results import SettingsDiffer
    except ModuleNotFoundError as error:
        print(f'This example needs {error.name}, which is not installed: pip install -e ".[examples]"', file=sys.stderr)
        return 2

    measurements = max(n for n in range(1, min(MEASUREMENTS, options.steps) + 1) if options.steps % n == 0)
    settings = Settings(
        dataset=options.dataset,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        jit_compile=options.jit_compile,
        measurements=measurements,
    )
    try:
        results = Results.open(options.out, settings)
        data = load(options.dataset, options.data_dir, options.download)
    except (SettingsDiffer, DatasetMissing) as error:
        print(error, file=sys.stderr)
        return 2

    interrupted = False
    try:
        for seed in range(options.seeds):
            for network, label in NETWORKS.items():
                title = f"{label}, seed {seed + 1} of {options.seeds}"
                with_bar(results, results.run(network, seed), title, partial(train, data))
    except KeyboardInterrupt:
        interrupted = True

    drawn = report.figure(results)
    if drawn:
        print(f"\n{report.table(results)}\n\nFigure: {drawn}")
    print(f"Results: {results.path}")
    if interrupted:
        print("Interrupted. What was measured is kept; the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
