"""What a learning-rate schedule does over time: whether it warms up, ends, or falls for ever."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers import schedules

#: No training has as many steps; an int32 holds it.
FAR = 2.0**30
#: Up to here float32 holds every step, and the middle between two: beyond, what cycles may seem to stand still.
EXACT = 2.0**23
#: At most so large a part of the highest rate is nearly 0.
NEARLY_ZERO = 0.02


class Shape(NamedTuple):
    """The parts of a schedule.

    Attributes:
        warmup: In so many steps from the first the rate rises to its highest value.
        end: The step from which on the rate does not change; `None` if it always does.
        length: How many steps a training has for which the schedule was made; `None` if the schedule does not say.
        falls: Whether, after the warm-up, the rate falls for ever.
        stands_still: Whether the rate is nearly 0 from `end` on, so that training goes on in vain.
    """

    warmup: float = 0.0
    end: float | None = None
    length: float | None = None
    falls: bool = False
    stands_still: bool = False

    def __str__(self) -> str:
        """How long it is."""
        if self.falls:
            return "decays without end"
        return "restarts or cycles" if self.end is None else f"ends at step {self.end:g}"


def shape_of(schedule: schedules.LearningRateSchedule) -> Shape:
    """The shape of `schedule`: of Keras's by their arguments, of others by their values.

    Where a schedule cannot be evaluated at steps that it was not made for, it is one of which nothing is known.
    """
    kind = type(schedule)
    if kind in (schedules.ExponentialDecay, schedules.InverseTimeDecay):
        return Shape(falls=True)
    if kind is schedules.CosineDecayRestarts or (kind is schedules.PolynomialDecay and schedule.cycle):
        return Shape()
    if kind is schedules.CosineDecay:
        warmup = 0.0 if schedule.warmup_target is None else float(schedule.warmup_steps)
        return _ending(schedule, warmup, warmup + schedule.decay_steps)
    if kind is schedules.PolynomialDecay:
        rises = schedule.end_learning_rate > schedule.initial_learning_rate
        return _ending(schedule, float(schedule.decay_steps) if rises else 0.0, float(schedule.decay_steps))
    if kind is schedules.PiecewiseConstantDecay:
        begins = [0.0, *map(float, schedule.boundaries)]
        # How long the last value is for is not said; with the usual boundaries as long as the one before it.
        last = begins[-1] - begins[-2] if len(begins) > 1 else 0.0
        return _ending(schedule, begins[int(np.argmax(schedule.values))], begins[-1], begins[-1] + last)
    try:
        return _by_values(schedule)
    except Exception:  # Whatever a schedule of the user's own raises where it does not belong.
        return Shape()


def _ending(schedule: Any, warmup: float, end: float, length: float | None = None) -> Shape:
    """The shape of a schedule that ends at `end`."""
    at = [warmup + part * (end - warmup) for part in (0.0, 0.9, 0.999)]
    first, peak, before, close, last = _rates(schedule, [0.0, *at, end + 1])
    # A last value that is reached at one step is one to train with, as the last of a PiecewiseConstantDecay.
    jumps = abs(close - last) > 0.5 * abs(before - last)
    highest = max(first, peak)
    nearly_zero = abs(last) <= (0.0 if jumps else NEARLY_ZERO * highest)
    return Shape(warmup, end, end if length is None else length, stands_still=bool(nearly_zero and highest > 0))


def _by_values(schedule: Any) -> Shape:
    """The shape of any schedule, from its rates at some steps, which lie closer the earlier they are."""
    steps = np.unique(np.concatenate([np.arange(128.0), np.geomspace(128, FAR, 400).round()]))
    rates = _rates(schedule, steps)
    if not np.isfinite(rates).all():
        return Shape()
    warmup = 0.0
    if rates[0] < rates.max():
        peak = int(rates.argmax())
        between = _between(steps[max(peak - 1, 0)], steps[min(peak + 1, len(steps) - 1)])
        warmup = float(between[_rates(schedule, between).argmax()])
    after = rates[steps >= warmup]
    never_rises = bool((np.diff(after) <= 1e-5 * after[:-1]).all())
    last = int(np.flatnonzero(np.append(True, rates[:-1] != rates[-1]))[-1])  # where it changes for the last time
    if last < len(steps) - 1 and (never_rises or steps[last] < EXACT):
        between = _between(steps[max(last - 1, 0)], steps[last])
        end = float(between[np.argmax(_rates(schedule, between) == rates[-1])])
        (before,) = _rates(schedule, [warmup + 0.9 * (end - warmup)])
        # What falls for ever gets too small for its floating-point type in the end: it is tiny long before.
        if abs(before - rates[-1]) > 1e-12 * rates.max() or end <= warmup:
            return _ending(schedule, warmup, end)
    return Shape(warmup, falls=never_rises)


def _between(first: float, last: float) -> np.ndarray:
    """Steps from `first` to `last`: all, or 2,000 of them."""
    return np.unique(np.linspace(first, last, int(min(last - first, 2000)) + 1).round())


def _rates(schedule: Any, steps: Any) -> np.ndarray:
    """The rates at `steps`; traced once, as each call outside of a graph takes milliseconds."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], "float32")])
    def rate(step: Any) -> Any:
        return tf.cast(keras.ops.convert_to_tensor(schedule(step)), "float64")

    with tf.init_scope():
        # Traced outside of `tf.map_fn`, which breaks the process's variable scope if its function raises.
        traced = rate.get_concrete_function()
        rates = tf.function(lambda steps: tf.map_fn(traced, steps, fn_output_signature="float64"), autograph=False)
        return rates(tf.constant(np.asarray(steps), "float32")).numpy()
