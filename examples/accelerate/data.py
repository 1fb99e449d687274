"""Images of ten classes: scikit-learn's digits, or CIFAR-10 of TensorFlow Datasets."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from examples.mnist_sigmoid.data import DatasetMissing

#: Of how many examples the next one is drawn where they are not shuffled thoroughly.
BUFFER = 2048


@dataclass(frozen=True)
class Images:
    """Images from 0 to 1, ``[n, height, width, channels]`` in float32, and their classes from 0 to 9, int32."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load(
    name: str, data_dir: Path | None = None, download: bool = False, command: str = "examples.accelerate"
) -> Images:
    """Loads `"digits"`, or a data set of images in ten classes that TensorFlow Datasets knows by `name`.

    `command` is the one that downloads it, which the error names if it is missing.
    """
    return _load_digits() if name == "digits" else _load_tfds(name, data_dir, download, command)


def _load_digits() -> Images:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    # The same split for every seed: the spread is that of training, not of the split.
    x_train, x_test, y_train, y_test = train_test_split(
        x, y.astype("int32"), test_size=0.25, stratify=y, random_state=0
    )
    return Images(x_train, y_train, x_test, y_test)


def _load_tfds(name: str, data_dir: Path | None, download: bool, command: str) -> Images:
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
    (x, y), (x_test, y_test) = (
        tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, as_supervised=True)) for split in ("train", "test")
    )
    # One copy, of 600 MB for CIFAR-10, and not two.
    x, x_test = (np.divide(images, np.float32(255), dtype="float32") for images in (x, x_test))
    return Images(x, y.astype("int32"), x_test, y_test.astype("int32"))
