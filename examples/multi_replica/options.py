"""The options of training, the same for replicas and for workers."""

import argparse
from pathlib import Path

from examples.mnist_sigmoid.__main__ import STEPS
from examples.options import positive


def add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", choices=STEPS, default="digits", help="digits comes with scikit-learn")
    parser.add_argument(
        "--data-dir", type=Path, help="folder of TensorFlow Datasets (default: theirs)", default=argparse.SUPPRESS
    )
    parser.add_argument("--epochs", type=positive(int), default=10, help="passes over the training images")
    parser.add_argument("--batch-size", type=positive(int), default=64, help="images a step, over all replicas")
    parser.add_argument("--learning-rate", type=positive(float), default=0.1, help="of SGD with momentum 0.9")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="float64 shows that replicas compute the same: in float32 what is rounded otherwise grows in training",
    )


def training_options(options: argparse.Namespace) -> dict:
    """The arguments of `Settings`."""
    names = ("dataset", "epochs", "batch_size", "learning_rate", "dtype")
    return {name: getattr(options, name) for name in names} | {"data_dir": getattr(options, "data_dir", None)}
