"""How far a worker is."""

from typing import Any

import keras

from benchmarks.progress import Progress


class ShowEpochs(keras.callbacks.Callback):
    """Shows each epoch, from the one on that a training is resumed at.

    Args:
        epochs: How many there are.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs, self._progress = epochs, None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._progress is None:
            self._progress = Progress("training", self._epochs, done=epoch).__enter__()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        numbers = ", ".join(f"{name}={value:.4f}" for name, value in (logs or {}).items())
        self._progress.add(1, f"epoch {epoch + 1} of {self._epochs}, {numbers}")

    def on_train_end(self, logs: Any = None) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
