"""Ending a training that diverges within a few steps."""

import math
from typing import Any

import keras
import numpy as np

from kerasbn.arguments import positive
from kerasbn.divergence import loss_in


class StopOnDivergence(keras.callbacks.Callback):
    """Ends a training once it diverges, and tells at which step.

    A training has diverged if, after a step,

        loss - normal loss > explosion * |normal loss|,    or the loss is not finite,

    or if anything in the logs of an epoch is not finite, such as the loss in validation. The loss is the one that `fit`
    reports, the mean since the epoch began. With `steps_per_execution` it is read once an execution, so a divergence
    is seen at the end of the execution in which it happens.

    The logs of an epoch, and so the `History`, get `steps`, how many there were, those before `initial_epoch` counted
    with, and `diverged`, 0.0 or 1.0. The training ends as by early stopping: the epoch is closed, with its validation.

    Args:
        explosion: Positive float: how many times its own size the loss may exceed the normal one.
        normal_loss: Positive float, the loss of a model that is not trained, as ``log(classes)`` for a cross-entropy;
            `None` for the first that is reported. With `steps_per_execution` that is a mean over several steps, in
            which it may have exploded already: then a number sees more.

    Attributes:
        steps: How many steps were made.
        diverged: Whether the training diverged, which was seen after so many steps.

    Raises:
        ValueError: If an argument is out of its range; in training, if a step reports no `loss`.

    Example:
    >>> import numpy as np
    >>> import keras
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile(keras.optimizers.SGD(1e9), "mse")
    >>> x = y = np.ones((64, 1))
    >>> history = model.fit(x, y, 1, epochs=9, callbacks=[StopOnDivergence()], verbose=0).history
    >>> history["steps"], history["diverged"]
    ([2], [1.0])

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 4.2.2, where
        "the learning rate was increased by a factor of 5, which caused the original Inception to reach machine
        infinity".
    """

    def __init__(self, explosion: float = 10.0, normal_loss: float | None = None) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__()
        self.explosion = positive("explosion", explosion)
        self.normal_loss = None if normal_loss is None else positive("normal_loss", normal_loss)
        self.steps, self.diverged = 0, False
        self._steps_before_epoch = 0
        self._normal: float | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Forgets the last training."""
        self.steps, self.diverged = 0, False
        self._normal = self.normal_loss

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Counts the steps before the first epoch, if it is known how many an epoch has."""
        if not self.steps:
            self.steps = epoch * (self.params.get("steps") or 0)
        self._steps_before_epoch = self.steps

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the loss."""
        self.steps = self._steps_before_epoch + batch + 1
        loss = loss_in(logs or {})
        if self._normal is None and loss:  # A loss of exactly 0, as of masked batches, is no measure.
            self._normal = loss
        normal = self._normal or 0.0
        if not math.isfinite(loss) or (normal and loss - normal > self.explosion * abs(normal)):
            self._stop()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at all that is reported, and reports: the last step of an epoch shows in the validation only."""
        if logs is None:
            return
        if not all(np.all(np.isfinite(value)) for value in logs.values()):  # some metrics are arrays
            self._stop()
        logs["steps"], logs["diverged"] = self.steps, float(self.diverged)

    def _stop(self) -> None:
        self.diverged = self.model.stop_training = True
