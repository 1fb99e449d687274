"""Binary images of digits: scikit-learn's handwritten digits, or an MNIST-like set of TensorFlow Datasets."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from examples import datasets


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
    if name == "digits":
        half, (train, test) = 8, datasets.digits()
    else:
        half, (train, test) = 128, datasets.prepared(name, data_dir, download, command)

    def binary(x: np.ndarray) -> np.ndarray:
        return (x.reshape(len(x), -1) >= half).astype("uint8")

    return Data(binary(train[0]), train[1].astype("int32"), binary(test[0]), test[1].astype("int32"))
