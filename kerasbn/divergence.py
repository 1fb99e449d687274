"""Seeing that a training diverges, and going back to where it was healthy."""

import math
from collections import deque
from typing import Any, NamedTuple

import keras

from kerasbn.snapshot import Snapshot, training_state


class Divergence(NamedTuple):
    """One event: where the loss diverged, and the factor that training went on with."""

    epoch: int
    step: int
    loss: float
    factor: float


class HealthyState:
    """Snapshots of a healthy training, two at most.

    The older one is restored: what ruins a network begins some steps before the loss shows it, and the younger one may
    have been taken in between.
    """

    def __init__(self, explosion: float, snapshot_steps: int) -> None:
        """A loss that exceeds the normal one, the first, by more than `explosion` times its size has exploded."""
        self._explosion, self._snapshot_steps = explosion, snapshot_steps
        self._model: Any = None
        self._normal_loss, self._beginning = math.inf, True
        self._snapshots: deque[Snapshot] = deque(maxlen=2)
        self._first: Snapshot | None = None

    @property
    def begun(self) -> bool:
        """Whether there is a state to go back to."""
        return bool(self._snapshots)

    @property
    def untrained(self) -> bool:
        """Whether the state to go back to is the one from before the first step: no other is known to be healthy."""
        return bool(self._snapshots) and self._snapshots[0] is self._first

    def begin(self, model: keras.Model) -> None:
        """The state of `model` is healthy now."""
        if model is not self._model:
            self._model, self._normal_loss, self._beginning = model, math.inf, True
        self._variables = training_state(model)
        self._first = first = self._snapshot()
        self._snapshots.append(first)
        self._non_finite = first.non_finite()  # Some weights hold infinities on purpose, as in masks.
        self._steps = 0

    def diverged(self, loss: float) -> bool:
        """Whether the training step that reported `loss` is one to go back from; takes a snapshot if one is due."""
        if not math.isfinite(loss):
            return True
        if self._beginning and loss:  # A loss of exactly 0, as of masked batches, is no measure.
            self._beginning = False
            self._normal_loss = min(self._normal_loss, loss)
        if loss - self._normal_loss > self._explosion * abs(self._normal_loss):
            return True
        self._steps += self._model.steps_per_execution
        if self._steps < self._snapshot_steps:
            return False
        self._steps = 0
        snapshot = self._snapshot()
        if snapshot.non_finite() > self._non_finite:
            return True
        self._snapshots.append(snapshot)
        return False

    def restore(self) -> None:
        """Gives the model the values of the older snapshot; metrics begin anew."""
        oldest = self._snapshots[0]
        self._snapshots.clear()
        self._snapshots.append(oldest)
        oldest.restore()
        self._model.reset_metrics()
        # The first loss of all may be the mean over an execution of several steps in which it exploded.
        self._steps, self._beginning = 0, True

    def release(self) -> None:
        """Frees the snapshots."""
        self._snapshots.clear()
        self._first = None

    def _snapshot(self) -> Snapshot:
        return Snapshot(self._variables, self._model.distribute_strategy)


def loss_in(logs: dict[str, Any]) -> float:
    """The loss that a training step reports.

    Raises:
        ValueError: If it reports none.
    """
    if "loss" not in logs:
        raise ValueError(
            "The training step must report its loss as 'loss', to see whether it diverges. "
            f"Received: logs with {sorted(logs)}. Return it from `train_step`."
        )
    return float(logs["loss"])
