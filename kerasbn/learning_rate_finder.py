"""A learning rate for a model and its data, found by trying."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import keras
import numpy as np

from kerasbn.arguments import count, positive
from kerasbn.divergence import loss_in
from kerasbn.layers.arguments import number
from kerasbn.learning_rate_curve import LearningRateCurve, smooth
from kerasbn.optimizers import schedule_of, stepping
from kerasbn.snapshot import RandomState, Snapshot, training_state


def find_learning_rate(
    model: keras.Model,
    data: Any,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    rates: int = 100,
    smoothing: float = 0.2,
    explosion: float = 3.0,
    batch_size: int = 32,
    seed: int = 0,
    compare: Sequence[keras.Model] = (),
) -> LearningRateCurve:
    """Trains for some batches at rates that rise from batch to batch, and leaves everything as it was.

        rate(i) = lowest * (highest / lowest) ** (i / (rates - 1))

    This is the range test of Smith (2017). The model trains as `fit` trains it, with its optimizer, its metrics,
    `jit_compile`, `steps_per_execution`, under its `tf.distribute` strategy. Then, also after an error or an interrupt,
    weights, moving statistics, seeds, slots and counters of the optimizer, its learning rate, metrics and the random
    state of Python, NumPy and Keras are what they were, to the bit: training goes on as if there had been no test.
    Not undone: what `data` has given out, the state of TensorFlow's own random operations, and that a model and an
    optimizer that were not built are built. A schedule that was the learning rate is replaced by an equal one.

    Args:
        model: Compiled model. Its optimizer may be a `LossScaleOptimizer` and have a number or a schedule as its rate.
        data: A tuple of arrays ``(x, y)`` or ``(x, y, sample_weight)``, from which batches are drawn at random; or what
            `fit` takes as `x` and gives batches: `tf.data.Dataset`, `PyDataset`, generator. Repeated as needed, but
            for a generator.
        lowest: Positive float, the first rate.
        highest: Float above `lowest`, the last rate.
        rates: Integer, not below 3, how many rates are tried. Each is held for one call of the training step:
            `steps_per_execution` batches, more if gradients accumulate over more.
        smoothing: Float, not negative: the standard deviation of the weights that smooth the loss, in powers of ten
            of the rate.
        explosion: Positive float: the sweep ends if the loss exceeds the first one by more than so many times its size,
            or is not finite.
        batch_size: Integer, samples in a batch, for arrays.
        seed: Integer, chooses the batches, for arrays.
        compare: Other compiled models to try on the same batches. `plot` draws all curves: models with and without
            batch normalization show the higher rates that it stands (Bjorck et al. 2018, Sec. 3).

    Returns:
        `LearningRateCurve` with arrays `rates`, `losses` and `smoothed`, rates `steepest`, `valley` and
        `largest_stable`, `diverged`, `compared`, and `plot()`.

    Raises:
        ValueError: If an argument is out of its range, or if fewer than 3 rates could be tried.
        TypeError: If the learning rate is a function, or a schedule that cannot be serialized.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(256, 5))
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile(keras.optimizers.SGD(0.01), "mse")
    >>> curve = find_learning_rate(model, (x[:, :4], x.sum(1)), lowest=1e-4, highest=100.0)
    >>> 0.01 < curve.steepest < curve.largest_stable < 1.0 < curve.diverged
    True
    >>> bool(model.get_weights()[0].any()), round(float(model.optimizer.learning_rate), 4)
    (False, 0.01)

    Reference:
        L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2017, https://arxiv.org/abs/1506.01186:
        Sec. 3.3.
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 3.
    """
    lowest, highest = positive("lowest", lowest), positive("highest", highest)
    if highest <= lowest:
        raise ValueError(f"Argument `highest` must be above `lowest`. Received: highest={highest}, lowest={lowest}.")
    tried = np.geomspace(lowest, highest, count("rates", rates, 3))
    width = number("smoothing", smoothing, 0) / math.log10(tried[1] / tried[0])
    explosion, batch_size = positive("explosion", explosion), count("batch_size", batch_size, 1)
    for each in (model, *compare):
        if not each.compiled:
            raise ValueError(
                f"Argument `model` must be compiled. Received: {each.name!r}, which is not: call `compile`."
            )

    def curve(model: keras.Model, compared: tuple[LearningRateCurve, ...] = ()) -> LearningRateCurve:
        sweep = _Sweep(tried, explosion)
        sweep.run(model, (lambda: _batches(data, batch_size, seed)) if isinstance(data, tuple) else lambda: data)
        losses = np.array(sweep.losses[1:])  # The first is that of the model as it was, each other that after a step.
        diverged = float(tried[len(losses)]) if sweep.diverged else None
        return LearningRateCurve(model.name, tried[: len(losses)], losses, smooth(losses, width), diverged, compared)

    return curve(model, tuple(curve(other) for other in compare))


class _Sweep(keras.callbacks.Callback):
    """Sets the rate before each call of the training step, notes the loss, and knows how to undo it all."""

    def __init__(self, rates: np.ndarray, explosion: float) -> None:
        super().__init__()
        self._rates, self._explosion = rates, explosion
        self.losses: list[float] = []
        self.diverged = False
        self._undo = ExitStack()

    def run(self, model: keras.Model, data: Callable[[], Any]) -> None:
        """Trains `model` until all rates are tried or the loss diverges, and undoes it."""
        random_state, history = RandomState(), getattr(model, "history", None)
        with self._undo:
            self._undo.callback(random_state.restore)
            if not model.built:
                model.evaluate(data(), steps=1, verbose=0)
            self._undo.callback(setattr, model, "history", history)
            # An epoch has a step at least, and the sweep ends the training. There is one step more than rates, whose
            # loss shows what the last rate has done.
            epochs = (len(self._rates) + 1) * _executions(model)
            model.fit(data(), epochs=epochs, callbacks=[self], shuffle=False, verbose=0)

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
        loss = loss_in(logs)
        first = self.losses[0] if self.losses else loss
        self.diverged = not loss - first <= self._explosion * abs(first)  # So written, NaN has diverged.
        if not self.diverged and self._calls % self._executions == 0:
            self.losses.append(loss)
        self.model.stop_training = self.diverged or len(self.losses) > len(self._rates)


class _Held(keras.optimizers.schedules.LearningRateSchedule):
    """The value of a variable, in place of a schedule, which cannot be set."""

    def __init__(self, rate: keras.Variable) -> None:
        self.rate = rate

    def __call__(self, step: Any) -> Any:
        return keras.ops.convert_to_tensor(self.rate)

    def get_config(self) -> dict[str, Any]:
        return {"rate": float(self.rate)}


def _batches(data: tuple, batch_size: int, seed: int) -> Iterator[tuple]:
    """Batches without end and all of one size, drawn at random from arrays, which are not copied."""
    order = np.random.default_rng(seed).permutation(len(keras.tree.flatten(data)[0]))
    for first in itertools.count(0, batch_size):
        rows = order[np.arange(first, first + batch_size) % len(order)]
        yield keras.tree.map_structure(lambda array, rows=rows: np.asarray(array)[rows], data)


def _executions(model: keras.Model) -> int:
    """How many calls of the training step it takes until a rate has had an effect."""
    batches = max(part.gradient_accumulation_steps or 1 for part in stepping(model.optimizer))
    return math.ceil(batches / model.steps_per_execution)
