"""A training step in which the learning rates are raised."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerasbn.optimizers import set_schedule, stepping, steps_done
from kerasbn.schedules import Accelerated, ramp


class Rate(NamedTuple):
    """A learning rate that is a schedule: the one that the optimizer has, and what it is in the step."""

    given: keras.optimizers.schedules.LearningRateSchedule
    raised: Accelerated


class RaisedStep:
    """A training step beside the plain one of the model, traced with raised rates.

    What raises them is traced, too, so it takes no time between steps: a rate that is a number is multiplied by
    operations in the step, and a schedule is exchanged only for the call. The factor is a variable, and may change from
    step to step.
    """

    def __init__(self, model: keras.Model, rates: Sequence[Rate | None], warmup_steps: float) -> None:
        """`rates` has an element for each optimizer that steps: `None` if its rate is a number."""
        self.plain = model.train_function
        pairs = list(zip(stepping(model.optimizer), rates, strict=True))
        with model.distribute_strategy.scope():
            self._factor, self._factor_now = _variable(1.0), 1.0
            self._numbers = [_RaisedNumber(each, self._factor, warmup_steps) for each, rate in pairs if rate is None]
        self._schedules = [
            (optimizer, rate.given, rate.raised.with_factor(self._factor)) for optimizer, rate in pairs if rate
        ]
        self._name, self._raises = model.name, not self._numbers
        self._step = self._traced_for(model)

    @classmethod
    def beside(cls, plain: Any, model: keras.Model, rates: Sequence[Rate | None], warmup_steps: float) -> "RaisedStep":
        """The raised step beside `plain`, which keeps it: another callback, or the next `fit`, need not trace it."""
        serialize = keras.optimizers.schedules.serialize
        kind = [warmup_steps, *(rate and [serialize(schedule) for schedule in rate] for rate in rates)]
        kept, of = getattr(plain, "_kerasbn_raised", (None, None))
        if kept is None or of != kind:
            kept = cls(model, rates, warmup_steps)
            plain._kerasbn_raised = kept, kind
        return kept

    def __call__(self, iterator: Iterator, factor: float) -> dict[str, Any]:
        """The step with rates `factor` times as high. Afterwards, also if it raises, they are as they were."""
        if factor != self._factor_now:
            self._factor.assign(factor)
            self._factor_now = factor
        for optimizer, _, raised in self._schedules:
            set_schedule(optimizer, raised)
        try:
            logs = self._step(iterator)
        except BaseException:
            for number in self._numbers:
                number.put_back()
            raise
        finally:
            for optimizer, given, _ in self._schedules:
                set_schedule(optimizer, given)
        if not self._raises:
            raise RuntimeError(
                "The training step must call `train_step` of the model, in which the learning rate is raised. "
                f"Received: {self._name!r}, whose `make_train_function` makes a step that does not. Override "
                "`train_step` in its place, or multiply the rate of the optimizer yourself."
            )
        return logs

    def _traced_for(self, model: keras.Model) -> Any:
        """What `make_train_function` makes of a `train_step` with raised numbers; the model keeps its own of both."""
        train_step, own = model.train_step, vars(model).get("train_step")

        def raised_train_step(*data: Any) -> Any:
            self._raises = True
            for number in self._numbers:
                number.raise_it()
            logs = train_step(*data)
            for number in self._numbers:
                number.lower_it()
            return logs

        model.train_step = raised_train_step
        try:
            model.make_train_function(force=True)
            return model.train_function
        finally:
            model.train_function = self.plain
            if own is None:
                del model.train_step
            else:
                model.train_step = own


class _RaisedNumber:
    """The rate of an optimizer that is a number, raised by operations within a training step.

    A step that fails runs some of its operations only. So `held` tells at any time whether the rate is raised: it is
    the given rate then, else NaN. Each assignment takes its value from the variable that was assigned before it, which
    puts them in order, on every replica.
    """

    def __init__(self, optimizer: Any, factor: Any, warmup_steps: float) -> None:
        self._rate, self._steps_done = optimizer.learning_rate, steps_done(optimizer)
        self._factor, self._warmup_steps = factor, warmup_steps
        self._held = _variable(math.nan)

    def raise_it(self) -> None:
        self._held.assign(self._rate)
        self._rate.assign(self._held * ramp(self._factor, self._steps_done, self._warmup_steps))

    def lower_it(self) -> None:
        self._rate.assign(self._held)
        self._held.assign(self._rate * math.nan)

    def put_back(self) -> None:
        """Outside of the step, after one that failed."""
        copies = tf.distribute.get_strategy().experimental_local_results(self._held.value)
        held = [value for value in (copy.numpy() for copy in copies) if not np.isnan(value)]
        if held:
            self._rate.assign(held[0])
            self._held.assign(math.nan)


def _variable(value: float) -> keras.Variable:
    return keras.Variable(value, trainable=False, dtype="float32", aggregation="only_first_replica")
