"""A small convolutional network on images of digits, trained on however many replicas there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from examples.mnist_sigmoid.data import Data
from kerasbn import BatchNorm
from kerasbn.distribute import JoinedLoss


@dataclass(frozen=True)
class Settings:
    """What a training depends on. Workers hand it to each other as JSON."""

    dataset: str = "digits"
    data_dir: Path | None = None
    epochs: int = 10
    batch_size: int = 64  # of all replicas together
    learning_rate: float = 0.1
    dtype: str = "float32"
    seed: int = 0


def build(settings: Settings, pixels: int) -> keras.Model:
    """The compiled model; to be called in the scope of the strategy."""
    side = int(pixels**0.5)
    keras.utils.set_random_seed(settings.seed)
    layers = [keras.Input((pixels,)), keras.layers.Reshape((side, side, 1), dtype=settings.dtype)]
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        convolution = keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False, dtype=settings.dtype)
        layers += [convolution, BatchNorm(synchronized=True, activation="relu", momentum=0.9, dtype=settings.dtype)]
    layers += [keras.layers.GlobalAveragePooling2D(dtype=settings.dtype), keras.layers.Dense(10, dtype=settings.dtype)]
    model = keras.Sequential(layers)
    model.compile(
        keras.optimizers.SGD(settings.learning_rate, momentum=0.9),
        JoinedLoss(keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=settings.dtype)),
        metrics=["accuracy"],
    )
    return model


def train(
    strategy: tf.distribute.Strategy,
    settings: Settings,
    data: Data,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Trains under `strategy`; returns the model and what `fit` has measured, a number an epoch."""
    with strategy.scope():
        model = build(settings, data.x_train.shape[1])
    # Shuffled once: a training that goes on after an interruption then sees the batches of one that was not.
    order = np.random.default_rng(settings.seed).permutation(len(data.x_train))
    history = model.fit(
        data.x_train[order].astype(settings.dtype),
        data.y_train[order],
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        validation_data=(data.x_test.astype(settings.dtype), data.y_test),
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
    )
    return model, history.history
