"""Images of ten classes: scikit-learn's digits, or CIFAR-10 of TensorFlow Datasets."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from examples import datasets

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
    if name == "digits":
        (x, y), (x_test, y_test) = datasets.digits()
        x, x_test = ((images[..., None] / 16).astype("float32") for images in (x, x_test))
    else:
        (x, y), (x_test, y_test) = datasets.prepared(name, data_dir, download, command)
        # One copy, of 600 MB for CIFAR-10, and not two.
        x, x_test = (np.divide(images, np.float32(255), dtype="float32") for images in (x, x_test))
    return Images(x, y.astype("int32"), x_test, y_test.astype("int32"))
