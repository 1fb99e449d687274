"""A raised learning rate with a faster decay."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from kerasbn.arguments import count, positive
from kerasbn.callbacks.around_step import AroundStep, Step
from kerasbn.callbacks.raised_step import RaisedStep, Rate
from kerasbn.divergence import Divergence, HealthyState, loss_in
from kerasbn.layers.arguments import one_of
from kerasbn.optimizers import schedule_of, stepping, steps_done
from kerasbn.schedules import Accelerated, ramp


class LearningRateAcceleration(keras.callbacks.Callback):
    """Trains with a learning rate that is raised and decays faster: Sec. 4.2.1 of Ioffe & Szegedy (2015).

        rate in the step = factor * rate of the optimizer             if it is a number
        rate in the step = factor * schedule(step * decay_speedup)    if it is a schedule that decays without end
        rate in the step = factor * schedule(step)                    if it is one that ends, restarts or cycles

    The rate is raised *during the training step and nowhere else*. In between, the optimizer has the rate that it was
    given, so the factor is there once, whatever comes before or after:

    - `LearningRateScheduler` and `ReduceLROnPlateau` read and write the rate without the factor, from any place in
      the list of callbacks; `min_lr` counts without the factor. Plateaus come as early as the training makes
      them. To run the epochs of a scheduler faster too, give it `kerasbn.schedules.accelerated_epochs(schedule)`.
    - Checkpoints hold the rate without the factor. `fit` again, or a new process with `BackupAndRestore`, goes on as if
      there had been no interruption. A training that raises leaves the optimizer with its own rate.
    - `LossScaleOptimizer`, `MultiOptimizer`, gradient accumulation, `steps_per_execution`, XLA and `tf.distribute`
      work as without it. The raised rate is part of a separate traced training step, so it takes no time between
      steps. That step is kept with the plain one, for the next `fit` and for other callbacks of this class.

    A schedule with an end, such as `CosineDecay`, is made for the length of a training run, and keeps it unless `steps`
    gives another one: `kerasbn.schedules.Accelerated` has the formulas, and how schedules are told apart. A warning
    says once if training continues after a schedule has ended at a rate of nearly 0.

    The logs of an epoch get `accelerated_learning_rate`, the rate of the next step, and `acceleration_factor`.

    Args:
        factor: Positive float, what the rate is multiplied by: 5 and 30 in the paper.
        decay_speedup: Positive float, how many steps of a schedule that decays without end pass in one step: 6 in the
            paper. A rate that is a number does not decay.
        warmup_steps: Integer, not negative: over so many batches, counted by the optimizer, the factor rises from 1
            in a straight line.
        on_divergence: `None`, or `"backoff"`: if the loss that `fit` reports, the mean since the epoch began, is not
            finite or explodes, or if weights are not finite, the last healthy state comes back (weights, slots and
            counters of the optimizer, moving statistics, seeds; not the learning rate), `factor` is divided, metrics
            begin anew and training goes on with the next batch. Two copies of the state are held in the memory of the
            host. The loss is read after every step. The logs of the step, otherwise those of the last healthy one, and
            of the epoch get `divergences`, how many there were.
        backoff: Float above 1, what `factor` is divided by.
        explosion: Positive float: a loss explodes if it exceeds the first one that this callback saw of the model, or
            the first after a restoration if that is less, by more than so many times that one's size.
        snapshot_steps: Integer, how many steps there are between two copies. The older one comes back, so a divergence
            should show in the loss within so many steps; at most twice as many are lost.
        max_backoffs: Integer, how many divergences there may be in one `fit`.
        steps: Positive number of batches, counted by the optimizer, that training has in all, or `None`. A schedule
            with an end ends there; its warm-up stays as long as it is. Others do not depend on it.

    Attributes:
        factor: The factor in force. It stays as divided from one `fit` to the next, but a new process starts anew.
        divergences: List of `(epoch, step, loss, factor)`: where the loss diverged, and the factor from there on.

    Raises:
        ValueError: If an argument is out of its range; in training with `on_divergence="backoff"`, if a step
            reports no `loss` or the model is not built; or if `steps` are not more than the warm-up of a schedule has.
        TypeError: In training, if the rate of the optimizer is a function, or a schedule that cannot be serialized.
        RuntimeError: In training, if the rate is a number and the step of the model does not call its `train_step`.
        FloatingPointError: In training, if the loss diverges after `max_backoffs`; the model then has its last
            healthy state, or before there is one, that from before the first step.

    Example:
    >>> import numpy as np
    >>> import keras
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> acceleration = LearningRateAcceleration(factor=5.0)
    >>> history = model.fit(np.ones((1, 1)), np.ones((1, 1)), callbacks=[acceleration], verbose=0)
    >>> model.get_weights()[0].item()  # 5 * 0.1 * the gradient, 2
    1.0
    >>> round(float(model.optimizer.learning_rate), 4)
    0.1

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 4.2.1, 4.2.2.
    """

    def __init__(
        self,
        factor: float = 5.0,
        decay_speedup: float = 6.0,
        *,
        warmup_steps: int = 0,
        on_divergence: str | None = None,
        backoff: float = 2.0,
        explosion: float = 10.0,
        snapshot_steps: int = 100,
        max_backoffs: int = 10,
        steps: float | None = None,
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__()
        self.factor = positive("factor", factor)
        self.decay_speedup = positive("decay_speedup", decay_speedup)
        self.warmup_steps = count("warmup_steps", warmup_steps, 0)
        self.steps = None if steps is None else positive("steps", steps)
        self.on_divergence = one_of("on_divergence", on_divergence, (None, "backoff"))
        self.backoff = positive("backoff", backoff)
        if self.backoff <= 1:
            raise ValueError(
                f"Argument `backoff` must be above 1: it divides the factor. Received: backoff={backoff!r}."
            )
        self.max_backoffs = count("max_backoffs", max_backoffs, 0)
        self.divergences: list[Divergence] = []
        self._healthy = HealthyState(positive("explosion", explosion), count("snapshot_steps", snapshot_steps, 1))
        self._healthy_logs: dict[str, Any] = {}  # of this fit
        self._around_step = AroundStep(self._run)
        self._rates: list[Rate | None] = []  # of this fit
        self._step: RaisedStep | None = None
        self._events: list[Divergence] = []  # of this fit
        self._epoch = self._batch = 0
        self._warned = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Forgets the last `fit`."""
        self._events, self._healthy_logs, self._warned = [], {}, False
        self._rates, self._step = [], None
        self._healthy.release()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch, and warns if it would be trained at a rate of nearly 0."""
        self._epoch = epoch
        self._warn_past(1.0)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Raises the rate of the step that comes now, after all that other callbacks do before it."""
        self._batch = batch
        if self.on_divergence and not self._healthy.begun:  # Not earlier: a backup may be restored until now.
            self._healthy.begin(self.model)
        self._around_step.arm(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reports."""
        self._warn_past(1.01)  # Lengths are rounded: some steps more are as planned.
        if logs is None:
            return
        optimizers = stepping(self.model.optimizer)
        for optimizer, rate in zip(optimizers, self._read_rates(), strict=True):
            name = "accelerated_learning_rate" + (f"_{optimizer.name}" if len(optimizers) > 1 else "")
            step = steps_done(optimizer)
            if rate is None:
                raised = optimizer.learning_rate * ramp(self.factor, step, self.warmup_steps)
            else:
                raised = rate.raised.with_factor(self.factor)(step)
            logs[name] = float(keras.ops.convert_to_numpy(raised))
        logs["acceleration_factor"] = self.factor
        if self.on_divergence:
            logs["divergences"] = sum(event.epoch == epoch for event in self._events)

    def on_train_end(self, logs: Any = None) -> None:
        """Puts the plain step back and frees the copies."""
        self._around_step.remove(self.model)
        self._healthy.release()

    def _read_rates(self) -> list[Rate | None]:
        """What the rates of the optimizers are and become in the step, read once a `fit`."""
        if not self._rates:
            for schedule in map(schedule_of, stepping(self.model.optimizer)):
                given = schedule.schedule if isinstance(schedule, Accelerated) else schedule
                raised = given and Accelerated(given, 1.0, self.decay_speedup, self.warmup_steps, self.steps)
                self._rates.append(raised and Rate(schedule, raised))
        return self._rates

    def _warn_past(self, lengths: float) -> None:
        """Warns, once a `fit`, if so many lengths of a schedule that ends at nearly 0 have passed."""
        for optimizer, rate in zip(stepping(self.model.optimizer), self._read_rates(), strict=True):
            if self._warned or rate is None or rate.raised.end is None or not rate.raised.shape.stands_still:
                continue
            end, now = math.ceil(rate.raised.end), int(steps_done(optimizer).numpy())
            if now >= end * lengths:
                self._warned = True
                name = type(rate.raised.schedule).__name__
                warnings.warn(
                    f"The learning rate is nearly 0 from step {end} on, where {name} ends, and training continues: "
                    f"step {now} comes next, in epoch {self._epoch}. Give the schedule as many steps as training has, "
                    "or pass `steps`, the number of steps that training has, to LearningRateAcceleration.",
                    stacklevel=2,
                )

    def _run(self, plain: Step, iterator: Iterator) -> dict[str, Any]:
        if self._step is None or self._step.plain is not plain:
            self._step = RaisedStep.beside(plain, self.model, self._read_rates(), self.warmup_steps)
        logs = self._step(iterator, self.factor)
        return self._checked(logs) if self.on_divergence else logs

    def _checked(self, logs: dict[str, Any]) -> dict[str, Any]:
        """`logs`, or those of the last healthy step if this one diverged and was taken back."""
        loss = loss_in(logs)
        if not self._healthy.diverged(loss):
            self._healthy_logs = logs
            return logs
        self._healthy.restore()
        if len(self._events) >= self.max_backoffs:
            state = (
                "The model has the state from before the first step of this fit: no later one is known to be healthy. "
                "If the loss is not finite from the start, look for NaN in the data and in the weights. Otherwise"
                if self._healthy.untrained
                else "The model has its last healthy state. To continue,"
            )
            raise FloatingPointError(
                f"The loss diverged in epoch {self._epoch} at step {self._batch}, with acceleration factor "
                f"{self.factor:g}: {loss:g}. It had diverged {len(self._events)} times before, and "
                f"max_backoffs={self.max_backoffs}. {state} begin with a smaller `factor` or learning rate."
            )
        self.factor /= self.backoff
        self._events.append(Divergence(self._epoch, self._batch, loss, self.factor))
        self.divergences.append(self._events[-1])
        return {**(self._healthy_logs or logs), "divergences": 1}
