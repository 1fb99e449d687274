"""Learning rates that decay faster: Sec. 4.2.1 of Ioffe & Szegedy (2015)."""

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import keras

from kerasbn.arguments import positive
from kerasbn.layers.arguments import number
from kerasbn.schedule_shape import shape_of

__all__ = ["Accelerated", "accelerated_epochs"]


@keras.saving.register_keras_serializable("kerasbn")
class Accelerated(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule with a raised rate and, where it has no end, a compressed time axis.

        rate(step) = ramp(step) * schedule(time(step))
        ramp(step) = 1 + (factor - 1) * min(step / warmup_steps, 1)
        time(step) = min(step, warmup) + speedup * max(step - warmup, 0)

    With normalization a network tolerates a larger rate and "trains faster", so the rate should also fall faster: the
    paper raises it 5 or 30 times and lets it decay 6 times as fast. Its decay is exponential and has no end. A schedule
    that has one is made for the length of a training run: 6 times as fast, it would be at its end, often a rate of 0,
    after a sixth of it. So `speedup` is

    - `decay_speedup` where the rate decays without end, as `ExponentialDecay` and `InverseTimeDecay`;
    - 1 where it ends, as `CosineDecay`, `PolynomialDecay` and `PiecewiseConstantDecay`, or with `steps`
      ``(length - warmup) / (steps - warmup)``, so that it ends there;
    - 1 where it restarts or cycles, as `CosineDecayRestarts`.

    `warmup` is the number of steps in which the rate of `schedule` itself rises to its highest value, 0 if it does not:
    they are never compressed. `length` is the step from which on its rate does not change. `PiecewiseConstantDecay`
    does not say how long its last value is for; that value is taken to last as long as the one before it.
    A schedule of your own is evaluated at some hundred steps to see which of the three it is.

    Args:
        schedule: `keras.optimizers.schedules.LearningRateSchedule`, the rate of the network without normalization.
        factor: Positive float, what the rate is multiplied by.
        decay_speedup: Positive float, how many steps of a `schedule` without end pass in one step.
        warmup_steps: Number, not negative, of steps over which the factor rises from 1 (Goyal et al. 2017, Sec. 2.2);
            0 for the whole factor from the first step on.
        steps: Positive number of steps that the training run has, to which a `schedule` with an end is compressed, or
            `None`: it keeps its length.

    Attributes:
        speedup: Float: how many steps of `schedule` pass in one step after its warm-up.
        end: Float: the step from which on the rate does not change, `None` if it always does.

    Returns:
        Called with a step, a scalar integer tensor, variable or number: the rate there, a scalar tensor.

    Raises:
        ValueError: If a number is out of its range, or `steps` are not more than the warm-up of `schedule` has.
        TypeError: If `schedule` is not a `LearningRateSchedule`.

    Example:
    >>> halving = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=12, decay_rate=0.5)
    >>> schedule = Accelerated(halving, factor=5.0, decay_speedup=6.0)
    >>> [round(float(schedule(step)), 4) for step in (0, 2, 4)]
    [0.5, 0.25, 0.125]
    >>> cosine = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=600)
    >>> Accelerated(cosine).end, Accelerated(cosine, steps=100).end
    (600.0, 100.0)

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 4.2.1.
        P. Goyal et al., Accurate, Large Minibatch SGD, 2017, https://arxiv.org/abs/1706.02677: Sec. 2.2.
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        factor: float = 5.0,
        decay_speedup: float = 6.0,
        warmup_steps: float = 0,
        steps: float | None = None,
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            raise TypeError(
                "Argument `schedule` must be a keras.optimizers.schedules.LearningRateSchedule. "
                f"Received: schedule={schedule!r}. A number has no decay: multiply it."
            )
        self.schedule = schedule
        self.factor: Any = positive("factor", factor)
        self.decay_speedup = positive("decay_speedup", decay_speedup)
        self.warmup_steps = number("warmup_steps", warmup_steps, 0)
        self.steps = None if steps is None else positive("steps", steps)
        self.shape = shape_of(schedule)
        self.speedup = self._speedup()
        end, warmup = self.shape.end, self.shape.warmup
        self.end = None if end is None else warmup + (end - warmup) / self.speedup

    def __call__(self, step: Any) -> Any:
        """The rate at `step`."""
        # Keras's schedules compute in float32 too; a user's may not take an integer tensor.
        time, warmup = keras.ops.cast(step, "float32"), self.shape.warmup
        if warmup:
            time = keras.ops.minimum(time, warmup) + self.speedup * keras.ops.maximum(time - warmup, 0.0)
        else:
            time = time * self.speedup
        return keras.ops.multiply(self.schedule(time), ramp(self.factor, step, self.warmup_steps))

    def with_factor(self, factor: Any) -> "Accelerated":
        """A copy with another factor, which may be a variable."""
        other = copy.copy(self)
        other.factor = factor
        return other

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "schedule": keras.optimizers.schedules.serialize(self.schedule),
            "factor": self.factor,
            "decay_speedup": self.decay_speedup,
            "warmup_steps": self.warmup_steps,
            "steps": self.steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Accelerated":
        """The schedule with these arguments."""
        schedule = keras.optimizers.schedules.deserialize(config["schedule"], custom_objects)
        return cls(**{**config, "schedule": schedule})

    def _speedup(self) -> float:
        shape, steps = self.shape, self.steps
        if shape.falls:
            return self.decay_speedup
        if steps is None or shape.length is None or shape.length <= shape.warmup:
            return 1.0
        if steps <= shape.warmup:
            raise ValueError(
                "Argument `steps` must be more than the schedule takes to warm up, which is not compressed. "
                f"Received: steps={steps:g} and a {type(self.schedule).__name__} whose rate rises for "
                f"{shape.warmup:g} steps. Train for longer, or shorten the warm-up of the schedule."
            )
        return (shape.length - shape.warmup) / (steps - shape.warmup)


def ramp(factor: Any, step: Any, warmup_steps: float) -> Any:
    """`factor`, approached from 1 in a straight line over the first `warmup_steps` steps."""
    if not warmup_steps:
        return factor
    return 1 + (factor - 1) * keras.ops.minimum(keras.ops.cast(step, "float32") / warmup_steps, 1.0)


def accelerated_epochs(schedule: Callable[..., float], decay_speedup: float = 6.0) -> Callable[[int, float], float]:
    """A schedule over epochs, for `keras.callbacks.LearningRateScheduler`, that runs faster.

    In epoch `e` the rate is what `schedule` gives in epoch ``floor(e * decay_speedup)``. Where `schedule` takes the
    last rate, as in ``lambda epoch, rate: 0.9 * rate``, it is called for each of the epochs in between.

    This is for a `schedule` without end. One that ends, such as a cosine over 30 epochs, would be at its end after 5:
    pass it to `LearningRateScheduler` as it is, or with ``decay_speedup=30 / epochs`` if training has fewer `epochs`.

    Args:
        schedule: Function of an epoch, counted from 0, or of an epoch and the last rate.
        decay_speedup: Positive float, how many epochs of `schedule` pass in one epoch.

    Returns:
        Function of an epoch and the last rate.

    Raises:
        ValueError: If `decay_speedup` is not positive.

    Example:
    >>> faster = accelerated_epochs(lambda epoch, rate: rate / 2 if epoch else rate, decay_speedup=2.0)
    >>> [faster(0, 1.0), faster(1, 1.0), faster(2, 0.25)]
    [1.0, 0.25, 0.0625]

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 4.2.1.
    """
    speedup = positive("decay_speedup", decay_speedup)
    takes_rate = _takes_two(schedule)

    def faster(epoch: int, rate: float) -> float:
        last = math.floor(epoch * speedup)
        if not takes_rate:
            return schedule(last)
        first = math.floor((epoch - 1) * speedup) + 1 if epoch else 0
        for passed in range(first, last + 1):
            rate = schedule(passed, rate)
        return rate

    return faster


def _takes_two(schedule: Callable[..., float]) -> bool:
    try:
        inspect.signature(schedule).bind(0, 0.0)
    except TypeError:
        return False
    return True
