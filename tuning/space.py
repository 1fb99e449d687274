"""What is searched: a network for each data set, its batches, and the values of each hyperparameter."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from examples.accelerate.data import load
from tuning.settings import DATASETS

#: What `--vary` adds to arm and learning rate, as arguments of `HigherLearningRate`.
VARIED = {
    "warmup": {"warmup_steps": (0, 100)},
    "decay": {"decay_speedups": (1.0, 6.0)},
    "dropout": {"dropout": (1.0, 0.1, 0.0)},
    "weight_decay": {"weight_decay_factors": (1.0, 1 / 5)},
    "initialization": {"initialization_scales": (0.1, 1.0, 10.0)},
    "activation": {"activations": ("as_is", "sigmoid")},
    "momentum": {"momenta": (0.0, 0.9)},
}
BATCH_SIZE, BATCH_SIZES = 32, [16, 32, 128]
DROPOUT = 0.25
L2 = 1e-4


@dataclass(frozen=True)
class Data:
    """Images from 0 to 1 and their classes: to train on, and held out of the training set to measure on.

    The test set is not touched: it is for those who report an accuracy, and a search over trials would use it up.
    """

    x: np.ndarray
    y: np.ndarray
    x_held_out: np.ndarray
    y_held_out: np.ndarray


def data(name: str, data_dir: Path | None = None, download: bool = False) -> Data:
    """The training part of one of `DATASETS`, split the same way every time."""
    from sklearn.model_selection import train_test_split

    images = load(name, data_dir, download, command="tuning.study")
    held_out = DATASETS[name][2]
    x, x_held_out, y, y_held_out = train_test_split(
        images.x_train, images.y_train, test_size=held_out, stratify=images.y_train, random_state=0
    )
    return Data(x, y, x_held_out, y_held_out)


def network(name: str, shape: tuple[int, ...], learning_rate: float, decay_steps: int) -> keras.Model:
    """The compiled network that is searched about: convolutions, or dense layers for digits, and no normalization.

    Args:
        name: One of `DATASETS`.
        shape: Of an image: height, width, channels.
        learning_rate: Of SGD with momentum 0.9, at the start.
        decay_steps: Number of steps in which the rate falls to a tenth, exponentially.
    """
    width = DATASETS[name][3]
    settings: dict[str, Any] = {
        "activation": "relu",
        "kernel_initializer": "he_normal",
        "kernel_regularizer": keras.regularizers.L2(L2),
    }
    inputs = keras.Input(shape)
    x = keras.layers.Rescaling(4.0, offset=-2.0)(inputs)
    if name == "digits":
        x = keras.layers.Flatten()(x)
        for _ in range(6):
            x = keras.layers.Dense(width, **settings)(x)
    else:
        for filters in (width, 2 * width, 4 * width):
            if filters > width:
                x = keras.layers.MaxPooling2D()(x)
            for _ in range(2):
                x = keras.layers.Conv2D(filters, 3, padding="same", **settings)(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(DROPOUT)(x)
    outputs = keras.layers.Dense(10, kernel_regularizer=keras.regularizers.L2(L2))(x)
    model = keras.Model(inputs, outputs, name=name)
    rate = keras.optimizers.schedules.ExponentialDecay(learning_rate, decay_steps, 0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
    return model
