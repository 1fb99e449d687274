"""Training for some steps at given learning rates, and undoing it."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import keras
import numpy as np

from kerasbn.arguments import has_variables, positive, without_call
from kerasbn.arrays import arrays, batches_or
from kerasbn.divergence import loss_in
from kerasbn.optimizers import schedule_of, stepping
from kerasbn.snapshot import RandomState, Snapshot, training_state


class Sweep(keras.callbacks.Callback):
    """Sets the rate before each call of the training step, notes the loss, and knows how to undo it all."""

    def __init__(self, rates: np.ndarray, explosion: float) -> None:
        """One rate after the other. A loss that exceeds the first by more than `explosion` times its size ends it."""
        super().__init__()
        self._rates, self._explosion = rates, explosion
        self.losses: list[float] = []
        self.diverged = self.ran_out = False
        self._undo = ExitStack()

    def run(self, model: keras.Model, data: Callable[[], Any]) -> None:
        """Trains `model` until all rates are tried or the loss diverges, and undoes it."""
        random_state, history = RandomState(), getattr(model, "history", None)
        with self._undo:
            self._undo.callback(random_state.restore)
            if not has_variables(model) and not without_call(model):
                model.evaluate(_first(data()), steps=1, verbose=0)
            self._undo.callback(setattr, model, "history", history)
            # An epoch has a step at least, and the sweep ends the training. There is one step more than rates, whose
            # loss shows what the last rate has done.
            epochs = (len(self._rates) + 1) * _executions(model)
            self._data = data()
            batches = self._data.batches() if isinstance(self._data, Once) else self._data
            model.fit(batches, epochs=epochs, callbacks=[self], shuffle=False, verbose=0)
            self.ran_out = not self.diverged and len(self.losses) <= len(self._rates)

    def on_train_begin(self, logs: Any = None) -> None:
        """Remembers the state and makes the rate one that can be set."""
        model, optimizers = self.model, stepping(self.model.optimizer)
        state = [*training_state(model), *model.metrics_variables]
        numbers = [o.learning_rate for o in optimizers if isinstance(o.learning_rate, keras.Variable)]
        self._undo.callback(Snapshot([*state, *numbers], model.distribute_strategy).restore)
        self._executions, self._calls = _executions(model), 0
        schedules = [(o, schedule_of(o)) for o in optimizers]
        self._set = [partial(setattr, o, "learning_rate") for o, schedule in schedules if schedule is None]
        if any(schedule for _, schedule in schedules):
            with model.distribute_strategy.scope():
                held = keras.Variable(0.0, trainable=False, aggregation="only_first_replica")
            self._undo.callback(setattr, model, "train_function", model.train_function)
            for optimizer, schedule in schedules:
                if schedule is not None:
                    self._undo.callback(setattr, optimizer, "learning_rate", schedule)
                    optimizer.learning_rate = _Held(held)
            model.make_train_function(force=True)
            self._set.append(held.assign)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Sets the next rate, if the last one has been in force long enough."""
        if self._calls % self._executions == 0:
            self.model.reset_metrics()
            for set_rate in self._set:
                set_rate(float(self._rates[min(len(self.losses), len(self._rates) - 1)]))
        self._calls += 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notes the loss, and ends the sweep if it is the last one."""
        if isinstance(self._data, Once) and self._data.ended_before(self._calls * self.model.steps_per_execution):
            self.model.stop_training = True
            return
        loss = loss_in(logs)
        first = self.losses[0] if self.losses else loss
        self.diverged = not loss - first <= self._explosion * abs(first)  # So written, NaN has diverged.
        if not self.diverged and self._calls % self._executions == 0:
            self.losses.append(loss)
        self.model.stop_training = self.diverged or len(self.losses) > len(self._rates)


class Once:
    """An iterator whose batches can be read once.

    Keras reads two batches before training to know their shapes, and when a generator has ended it begins again with
    these two. So the last batch is repeated without end here, and it is known how many there were.
    """

    def __init__(self, data: Iterator) -> None:
        """Nothing is read yet."""
        self._data, self._read, self._ended = data, 0, False

    def first(self) -> Iterator:
        """The first batch, which stays the first."""
        batch = next(self._data)
        self._data = itertools.chain([batch], self._data)
        yield batch

    def batches(self) -> Iterator:
        """All, and then the last again and again."""
        last = None
        for last in self._data:
            self._read += 1
            yield last
        self._ended = True
        while self._read:
            yield last

    def ended_before(self, number: int) -> bool:
        """Whether `number` batches, as many as training has taken, are more than there were."""
        return self._ended and self._read < number


def _first(data: Any) -> Any:
    return data.first() if isinstance(data, Once) else data


class _Held(keras.optimizers.schedules.LearningRateSchedule):
    """The value of a variable, in place of a schedule, which cannot be set."""

    def __init__(self, rate: keras.Variable) -> None:
        self.rate = rate

    def __call__(self, step: Any) -> Any:
        return keras.ops.convert_to_tensor(self.rate)

    def get_config(self) -> dict[str, Any]:
        return {"rate": float(self.rate)}


def rate_range(lowest: Any, highest: Any) -> tuple[float, float]:
    """The lowest and the highest rate that are tried, as floats."""
    lowest, highest = positive("lowest", lowest), positive("highest", highest)
    if highest <= lowest:
        raise ValueError(f"Argument `highest` must be above `lowest`. Received: highest={highest}, lowest={lowest}.")
    return lowest, highest


def feed(data: Any, batch_size: int, seed: int, again: bool) -> Callable[[], Any]:
    """What gives the data of a sweep: batches of a tuple of arrays, or `data` as they are.

    Args:
        data: Arrays or what gives batches.
        batch_size: Of batches of arrays.
        seed: Chooses these.
        again: Whether there are several sweeps, which must have the same batches.

    Raises:
        ValueError: If the arrays are not such that batches can be made of them.
        TypeError: If `data` are neither arrays nor anything that gives batches, or gives them once.
    """
    if not isinstance(data, tuple):
        batches_or("a tuple of arrays (x, y)", data)
        if again and isinstance(data, Iterator):
            raise TypeError(
                "Argument `data` must give its batches again for every training. Received: a "
                f"{type(data).__name__}, which gives them once. Give arrays, a tf.data.Dataset or a PyDataset."
            )
        once = Once(data) if isinstance(data, Iterator) else data
        return lambda: once
    checked = arrays("data", data)
    return lambda: batches(checked, batch_size, seed)


def batches(data: tuple, batch_size: int, seed: int) -> Iterator[tuple]:
    """Batches without end and all of one size, drawn at random from arrays, which are not copied."""
    order = np.random.default_rng(seed).permutation(len(keras.tree.flatten(data)[0]))
    for first in itertools.count(0, batch_size):
        rows = order[np.arange(first, first + batch_size) % len(order)]
        yield keras.tree.map_structure(lambda array, rows=rows: array[rows], data)


def _executions(model: keras.Model) -> int:
    """How many calls of the training step it takes until a rate has had an effect."""
    batches = max(part.gradient_accumulation_steps or 1 for part in stepping(model.optimizer))
    return math.ceil(batches / model.steps_per_execution)
