"""Training a classifier of images that is measured as it goes, exact to resume; a divergence ends it."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from examples.accelerate.data import Images
from examples.checkpoint import Checkpoint
from examples.results import Results, Run
from kerasbn.callbacks import StopOnDivergence

#: From images and a seed to other images.
Augment = Callable[[Any, Any], Any]

CLASSES = 10
TEST_BATCH = 500


@dataclass
class Measured(Run):
    """One training: test accuracy and loss after so many steps, and the step at which it diverged, if it did."""

    loss: list[float | None] = field(default_factory=list)  # null where it is not finite
    seconds: list[float] = field(default_factory=list)  # of training, without measuring
    diverged_at: int | None = None

    @property
    def diverged(self) -> bool:
        return self.diverged_at is not None


def train(
    results: Results,
    run: Measured,
    model: keras.Model,
    order: tf.data.Dataset,
    images: Images,
    *,
    every: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    explosion: float = 10.0,
    augment: Augment | None = None,
    on_measurement: Callable[[Measured], None],
) -> None:
    """Trains `run` to its end, from where it stands, and saves `results` after each measurement.

    Args:
        results: What `run` is one of.
        run: The run.
        model: Its network, compiled, at its start. That and `order` must be the same whenever it is resumed.
        order: Numbers of the training images, one epoch of them, shuffled with a seed.
        images: The images.
        every: How many steps there are between two measurements.
        callbacks: Those of the network.
        explosion: How many times the loss of guessing a loss may exceed it; then the training has diverged.
        augment: Function from the images of a batch and a seed, two integers that are others for each batch, to the
            images that are trained on.
        on_measurement: Function that is told of each measurement.
    """
    checkpoint = Checkpoint(results, run)
    if run.steps and not checkpoint.restore(model):
        run.forget()
    done = len(run.steps)
    # The loss of guessing, and not the first that is seen, which is another one where a training is resumed.
    divergence = StopOnDivergence(explosion, normal_loss=math.log(CLASSES))
    model.fit(
        batches(images, order, results.settings.batch_size, first=done * every, augment=augment, seed=run.seed),
        initial_epoch=done,
        epochs=results.planned(run.network) // every,
        steps_per_epoch=every,
        callbacks=[*callbacks, divergence, _Recorder(run, images, every, divergence, checkpoint, on_measurement)],
        shuffle=False,  # the order is
        verbose=0,
    )


def batches(
    images: Images,
    order: tf.data.Dataset,
    batch_size: int,
    first: int = 0,
    augment: Augment | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Batches of `order`, again and again, from number `first` on: the same ones wherever training starts."""
    x, y = tf.constant(images.x_train), tf.constant(images.y_train)

    def read(number: Any, rows: Any) -> tuple[Any, Any]:
        chosen = tf.gather(x, rows)
        return chosen if augment is None else augment(chosen, tf.stack([seed, number])), tf.gather(y, rows)

    return order.repeat().batch(batch_size).enumerate().skip(first).map(read).prefetch(4)


class _Recorder(keras.callbacks.Callback):
    """Measures at the end of each epoch, which here is the stretch between two measurements, and writes it down."""

    def __init__(
        self,
        run: Measured,
        images: Images,
        every: int,
        divergence: StopOnDivergence,
        checkpoint: Checkpoint,
        on_measurement: Callable[[Measured], None],
    ) -> None:
        super().__init__()
        self._run, self._images, self._every = run, images, every
        self._divergence, self._checkpoint, self._on_measurement = divergence, checkpoint, on_measurement
        self._resumed = bool(run.steps)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._resumed:  # The first step is traced anew, and that time has been counted before.
            self._resumed = False
            self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds, run = time.perf_counter() - self._start, self._run
        if self._divergence.diverged:
            run.diverged_at = self._divergence.steps
        else:
            loss, accuracy = self.model.evaluate(
                self._images.x_test, self._images.y_test, batch_size=TEST_BATCH, verbose=0
            )
            run.seconds.append(round((run.seconds[-1] if run.seconds else 0.0) + seconds, 2))
            run.steps.append((epoch + 1) * self._every)
            run.accuracy.append(round(float(accuracy), 5))
            run.loss.append(round(float(loss), 5) if math.isfinite(loss) else None)
        self._checkpoint.save(self.model)
        self._on_measurement(run)
