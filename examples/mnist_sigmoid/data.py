"""Binary images of digits: scikit-learn's handwritten digits, or an MNIST-like set of TensorFlow Datasets."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from examples.errors import Refused


class DatasetMissing(Refused):
    """The data set is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Data:
    """Binary images, one a row, as uint8 0 and 1, and their classes from 0 to 9, as int32."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load(
    name: str, data_dir: Path | None = None, download: bool = False, command: str = "examples.mnist_sigmoid"
) -> Data:
    """Loads `"digits"`, `"mnist"` or `"fashion_mnist"`. A pixel is 1 where it is at least half as bright as can be.

    `command` is the one that downloads it, which the error names if it is missing.
    """
    return _load_digits() if name == "digits" else _load_tfds(name, data_dir, download, command)


def _load_digits() -> Data:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    # The same split for every seed of the experiment: the spread is that of training, not of the split.
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, stratify=y, random_state=0)
    return _binary(x_train, y_train, x_test, y_test, threshold=8)


def _load_tfds(name: str, data_dir: Path | None, download: bool, command: str) -> Data:
    import tensorflow_datasets as tfds

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
    return _binary(*train, *test, threshold=128)


def _binary(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, threshold: int) -> Data:
    def images(x: np.ndarray) -> np.ndarray:
        return (x.reshape(len(x), -1) >= threshold).astype("uint8")

    return Data(images(x_train), y_train.astype("int32"), images(x_test), y_test.astype("int32"))
