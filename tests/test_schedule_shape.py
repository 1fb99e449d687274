"""A schedule with an end keeps its length, a warm-up is never compressed, and what falls for ever falls faster."""

import math

import numpy as np
import pytest
import tensorflow as tf
from keras.optimizers import schedules

from kerasbn.schedule_shape import Shape, shape_of
from kerasbn.schedules import Accelerated

RATE = 0.01


def own(function, name="Own"):
    """A schedule of a user's own, of which nothing is known but its values."""
    return type(name, (schedules.LearningRateSchedule,), {"__call__": lambda self, step: function(step)})()


def linear(step):
    return RATE * tf.maximum(1 - step / 600.0, 0.0)


def linear_after_warm_up(step):
    return RATE * tf.where(step < 50.0, step / 50.0, tf.maximum((600.0 - step) / 550.0, 0.0))


def cosine(step):
    return RATE * 0.5 * (1 + tf.cos(math.pi * tf.minimum(step / 600.0, 1.0)))


def one_cycle(step):
    """Up, down, and further down, as of Smith and Topin."""
    return tf.where(
        step < 200.0, RATE * (0.1 + 0.9 * step / 200.0), RATE * tf.maximum(1 - (step - 200.0) / 400.0, 1e-3)
    )


def stepped(step):
    return tf.where(step < 300.0, RATE, tf.where(step < 500.0, RATE / 10, RATE / 100))


def exponential(step):
    return RATE * 0.5 ** (step / 100.0)


def exponential_after_warm_up(step):
    return RATE * tf.where(step < 50.0, step / 50.0, 0.9 ** ((step - 50.0) / 100.0))


def noam(step):
    """Of the Transformer."""
    return RATE * tf.minimum(tf.math.rsqrt(step + 1.0), (step + 1.0) * 100.0**-1.5)


def triangular(step):
    return RATE * tf.abs((step / 50.0) % 2.0 - 1.0)


def checked(step):
    tf.debugging.assert_less_equal(step, 600.0)
    return RATE * (1 - step / 600.0)


ENDING = {
    "cosine": (schedules.CosineDecay(RATE, 600), 0, 600),
    "cosine with alpha": (schedules.CosineDecay(RATE, 600, alpha=0.1), 0, 600),
    "cosine with warm-up": (schedules.CosineDecay(0.0, 550, warmup_target=RATE, warmup_steps=50), 50, 600),
    "cosine with a warm-up that is not used": (schedules.CosineDecay(RATE, 600, warmup_steps=50), 0, 600),
    "polynomial": (schedules.PolynomialDecay(RATE, 600), 0, 600),
    "polynomial, squared": (schedules.PolynomialDecay(RATE, 600, 0.0, power=2.0), 0, 600),
    "own, linear": (own(linear), 0, 600),
    "own, linear after a warm-up": (own(linear_after_warm_up), 50, 600),
    "own, cosine": (own(cosine), 0, 600),
    "own, one cycle": (own(one_cycle), 200, 600),
    "own, stepped": (own(stepped), 0, 500),
}
FALLING = {
    "exponential": (schedules.ExponentialDecay(RATE, 100, 0.5), 0),
    "staircase": (schedules.ExponentialDecay(RATE, 100, 0.5, staircase=True), 0),
    "inverse time": (schedules.InverseTimeDecay(RATE, 100, 0.5), 0),
    "own, exponential": (own(exponential), 0),
    "own, exponential after a warm-up": (own(exponential_after_warm_up), 50),
    "own, inverse square root after a warm-up": (own(noam), 99),
}
CYCLES = {
    "restarts": schedules.CosineDecayRestarts(RATE, 100),
    "restarts that get lower": schedules.CosineDecayRestarts(RATE, 100, t_mul=1.0, m_mul=0.5),
    "polynomial in cycles": schedules.PolynomialDecay(RATE, 100, cycle=True),
    "own, triangular": own(triangular),
    "own, evaluated where it must not be": own(checked),
}


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


@pytest.mark.parametrize("name", ENDING)
def test_a_schedule_with_an_end_keeps_its_length(name):
    given, warmup, end = ENDING[name]
    fast = Accelerated(given, 5.0)
    assert (fast.end, fast.speedup, fast.shape.warmup) == (pytest.approx(end, rel=1e-3), 1.0, warmup)
    steps = [0, warmup / 2, 100, 300, 599, 600]
    np.testing.assert_allclose(rates(fast, steps), np.multiply(5.0, rates(given, map(float, steps))), rtol=1e-6)


@pytest.mark.parametrize("name", ENDING)
def test_a_schedule_with_an_end_ends_where_the_training_does(name):
    """Where `steps` says so; its warm-up is as long as it was."""
    given, warmup, end = ENDING[name]
    fast = Accelerated(given, 1.0, steps=250)
    assert fast.end == 250
    np.testing.assert_allclose(rates(fast, [0, warmup / 2, warmup]), rates(given, [0.0, warmup / 2, float(warmup)]))
    middle = (warmup + 250) / 2, (warmup + fast.shape.end) / 2
    np.testing.assert_allclose(float(fast(middle[0])), float(given(middle[1])), rtol=1e-3)
    np.testing.assert_allclose(float(fast(250)), float(given(float(end + 1))), atol=1e-8)


@pytest.mark.parametrize("name", FALLING)
def test_a_decay_without_end_is_faster_after_its_warm_up(name):
    given, warmup = FALLING[name]
    fast = Accelerated(given, 5.0, 6.0, steps=77)  # nothing that `steps` could compress
    assert fast.end is None and fast.speedup == 6.0 and fast.shape.warmup == pytest.approx(warmup, abs=1)
    w = fast.shape.warmup
    pairs = [(0, 0), (w / 2, w / 2), (w, w), (w + 10, w + 60), (w + 100, w + 600)]
    for step, of in pairs:
        np.testing.assert_allclose(float(fast(step)), 5 * float(given(float(of))), rtol=1e-5)


@pytest.mark.parametrize("name", CYCLES)
def test_cycles_stay_as_they_are(name):
    fast = Accelerated(CYCLES[name], 2.0, 6.0, steps=77)
    assert fast.speedup == 1.0 and fast.end is None
    steps = [0, 30, 99, 130, 250]
    np.testing.assert_allclose(rates(fast, steps), np.multiply(2.0, rates(CYCLES[name], map(float, steps))), rtol=1e-6)


def test_the_last_value_of_a_piecewise_constant_schedule_is_trained_with():
    """The schedule does not say for how long; as long as the value before it, as in most recipes."""
    given = schedules.PiecewiseConstantDecay([300, 450], [0.1, 0.01, 0.001])
    kept, fast = Accelerated(given, 5.0), Accelerated(given, 5.0, steps=100)
    assert (kept.speedup, kept.end, fast.speedup, fast.end) == (1.0, 450, 6.0, 75)
    np.testing.assert_allclose(rates(kept, [100, 301, 451]), [0.5, 0.05, 0.005])
    np.testing.assert_allclose(rates(fast, [50, 51, 75, 76, 99]), [0.5, 0.05, 0.05, 0.005, 0.005])
    rising = schedules.PiecewiseConstantDecay([60, 360], [0.01, 0.1, 0.001])
    np.testing.assert_allclose(rates(Accelerated(rising, 1.0, steps=160), [60, 61, 110, 111]), [0.01, 0.1, 0.1, 0.001])


def test_what_stands_still():
    """Nearly 0 where it got there slowly; a last value of its own is one to train with."""
    still = [
        schedules.CosineDecay(RATE, 600),
        schedules.PolynomialDecay(RATE, 600),
        schedules.PiecewiseConstantDecay([10, 20], [0.1, 0.01, 0.0]),
        own(linear),
        own(one_cycle),
    ]
    assert all(shape_of(schedule).stands_still for schedule in still)
    trains = [
        schedules.CosineDecay(RATE, 600, alpha=0.1),
        schedules.PolynomialDecay(0.0, 600, RATE),
        schedules.PiecewiseConstantDecay([30, 60, 80], [0.1, 0.01, 1e-3, 1e-4]),
        own(stepped),
        own(lambda step: RATE + 0.0 * step),
    ]
    assert not any(shape_of(schedule).stands_still for schedule in trains)


def test_a_training_must_be_longer_than_the_warm_up():
    given = schedules.CosineDecay(0.0, 550, warmup_target=RATE, warmup_steps=50)
    with pytest.raises(ValueError, match=r"`steps` must be more.*warm.*steps=50 and a CosineDecay.*50 steps"):
        Accelerated(given, steps=50)
    with pytest.raises(ValueError, match=r"`steps` must be a finite number above 0. Received: steps=0"):
        Accelerated(given, steps=0)


def test_a_length_is_saved():
    given = Accelerated(schedules.CosineDecay(RATE, 600), 2.0, steps=100)
    again = schedules.deserialize(schedules.serialize(given))
    assert again.get_config() == given.get_config() and again.end == 100
    old = given.get_config()
    del old["steps"]  # as files of earlier versions
    assert Accelerated.from_config(old).end == 600


def test_shapes_say_what_they_are():
    assert [str(shape) for shape in (Shape(falls=True), Shape(end=600.0, length=600.0), Shape())] == [
        "decays without end",
        "ends at step 600",
        "restarts or cycles",
    ]


def test_a_schedule_that_cannot_be_traced_is_left_as_it_is():
    """It works in eager training only."""
    assert shape_of(own(lambda step: RATE if step < 5 else 0.0)) == Shape()


def test_a_schedule_that_raises_leaves_nothing_behind(strategy):
    """`tf.map_fn` sets a device of the current variable scope, and forgets to put it back if its function raises."""

    def raising(step):
        raise RuntimeError("not here")

    with strategy.scope():  # the first one makes the variable scope that `tf.map_fn` finds
        tf.Variable(1.0)
    assert shape_of(own(raising)) == Shape()
    with strategy.scope():
        assert tf.Variable(1.0).numpy() == 1
