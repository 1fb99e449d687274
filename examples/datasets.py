"""Where images come from: scikit-learn's digits, and TensorFlow Datasets."""

import sys
from pathlib import Path

import numpy as np

from examples.errors import Refused

#: Images ``[n, height, width(, channels)]`` and their classes.
Part = tuple[np.ndarray, np.ndarray]


class DatasetMissing(Refused):
    """The data set is not on this machine; the message says how to get it."""


def digits() -> tuple[Part, Part]:
    """Scikit-learn's digits, ``[n, 8, 8]`` from 0 to 16: three quarters to train on, and the others."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    # The same split for every seed of an experiment: the spread is that of training, not of the split.
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, stratify=y, random_state=0)
    return (x_train.reshape(-1, 8, 8), y_train), (x_test.reshape(-1, 8, 8), y_test)


def prepared(name: str, data_dir: Path | None, download: bool, command: str) -> tuple[Part, Part]:
    """A data set of TensorFlow Datasets, as it is stored: its parts `train` and `test`.

    Args:
        name: Its name.
        data_dir: The folder that it is in, or `None` for that of TensorFlow Datasets.
        download: Whether it is downloaded if it is missing.
        command: The command that downloads it, for the error.

    Raises:
        DatasetMissing: If it is not there.
    """
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():  # its bars, too, would be thousands of lines of a log
        tfds.disable_progress_bar()
    builder = tfds.builder(name, data_dir=data_dir)
    if download:
        builder.download_and_prepare()
    elif not builder.data_path.exists():
        place = f" --data-dir {data_dir}" if data_dir else ""
        raise DatasetMissing(
            f"Data set {name!r} is not in {builder.data_path.parent}. Get it with "
            f"`python -m {command} --dataset {name}{place} --download`, "
            "or name the folder that has it with `--data-dir`."
        )
    train, test = (
        tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, as_supervised=True)) for split in ("train", "test")
    )
    return train, test
