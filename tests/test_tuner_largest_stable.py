"""`kerasbn.tuner.largest_stable_learning_rate`: against rates that are known, and what it leaves behind."""

import math

import keras
import numpy as np
import pytest

import kerasbn

pytest.importorskip("keras_tuner")
pytest.importorskip("tensorboard")

from kerasbn import tuner
from kerasbn.tuner.higher_learning_rate import ARMS

X = np.random.default_rng(0).normal(size=(64, 1)).astype("float32")


def line(scale=1.0, rate=0.01):
    """One weight: its loss is a parabola with the second derivative 2 mean(x^2), stable up to 1 / mean(x^2)."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(rate), "mse", loss_weights=scale)
    return model


def deep(rate=0.01):
    hidden = [keras.layers.Dense(16, "relu", kernel_initializer="he_normal") for _ in range(3)]
    model = keras.Sequential([keras.Input((1,)), *hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


@pytest.mark.parametrize("start", [1e-3, 1e3])
def test_a_parabola_is_stable_up_to_twice_the_inverse_of_its_curvature(start):
    settings = {"arms": ["plain"], "seeds": 1, "steps": 100, "tolerance": 1.03, "batch_size": len(X)}
    found = tuner.largest_stable_learning_rate(line, (X, X), over={"scale": (1.0, 8.0)}, start=start, **settings)
    assert [each.setting for each in found] == [{"scale": 1.0}, {"scale": 8.0}]
    for each in found:
        limit = 1 / float(np.mean(X**2)) / each.setting["scale"]
        assert each.rates["plain"] == [pytest.approx(limit, rel=0.04)]


def test_limits_are_told():
    settings = {"arms": ["plain"], "seeds": 1, "steps": 20}
    (above,) = tuner.largest_stable_learning_rate(line(), (X, X), highest=0.05, **settings)
    (below,) = tuner.largest_stable_learning_rate(line(), (X, X), start=50.0, lowest=40.0, **settings)
    assert above.rates == {"plain": [math.inf]} and math.isnan(below.rates["plain"][0])


def test_a_network_that_has_died_is_not_stable():
    """A sigmoid that is saturated gives 0 or 1 for ever: its loss, twice that without training, has not exploded."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid", kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.125), "mse")
    (found,) = tuner.largest_stable_learning_rate(model, (X, 0.3 + 0.4 * (X > 0)), arms=["plain"], seeds=1, highest=1e9)
    assert 0.125 <= found.rates["plain"][0] < 1e6


@pytest.mark.parametrize("normal_loss", [None, float(np.mean(X**2))])
def test_dying_is_a_gain_over_a_bad_start_and_none_over_a_guess(normal_loss):
    """A ReLU that starts at a hundred times its input dies where a step takes it below 0, and then guesses 0."""
    x = np.abs(X)
    hundred = keras.initializers.Constant(100.0)
    relu = keras.layers.Dense(1, "relu", use_bias=False, kernel_initializer=hundred)
    model = keras.Sequential([keras.Input((1,)), relu])
    model.compile(keras.optimizers.SGD(0.2), "mse")
    settings = {"arms": ["plain"], "seeds": 1, "steps": 40, "batch_size": len(X), "normal_loss": normal_loss}
    (found,) = tuner.largest_stable_learning_rate(model, (x, x), **settings)
    alive = 0.505 / float(np.mean(x**2))  # (100 - 1) (1 - 2 rate E[x^2]) > -1
    assert found.rates["plain"] == [math.inf if normal_loss is None else pytest.approx(alive, rel=0.1)]


def test_both_arms_start_from_the_same_weights_and_all_is_put_back():
    model = deep()
    before = [*model.get_weights(), model.optimizer.iterations.numpy(), model.optimizer.learning_rate.numpy()]
    told = []
    (found,) = tuner.largest_stable_learning_rate(
        model, (X, np.sin(X)), seeds=2, steps=8, tolerance=2.0, momentum=0.5, on_trial=lambda *args: told.append(args)
    )
    after = [*model.get_weights(), model.optimizer.iterations.numpy(), model.optimizer.learning_rate.numpy()]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old)
    assert {(arm, seed) for _, arm, seed, _, _ in told} == {(arm, seed) for arm in ARMS for seed in (0, 1)}
    assert all(setting == {} and isinstance(stable, bool) for setting, _, _, _, stable in told)
    for arm in ARMS:
        for seed, rate in enumerate(found.rates[arm]):
            mine = {r: stable for _, a, s, r, stable in told if (a, s) == (arm, seed)}
            assert mine[rate] and min(r for r, stable in mine.items() if not stable) / rate <= 2


def test_the_ratio_and_its_interval():
    rates = {"plain": [0.1, 0.2, 0.1], "normalized": [1.0, 1.0, 2.0]}
    ratio = tuner.StableRates({}, rates).ratio()
    logs = np.log([10, 5, 20])
    half = 4.302653 * np.std(logs, ddof=1) / math.sqrt(3)  # Student's t, 2 degrees of freedom, from a table
    assert ratio.mean == pytest.approx(10) and math.log(ratio.high / ratio.mean) == pytest.approx(half, rel=1e-6)
    assert ratio.low * ratio.high == pytest.approx(100)

    one = tuner.StableRates({"depth": 3}, {"plain": [0.1], "normalized": [1.0]})
    assert one.ratio() == (pytest.approx(10), 0, math.inf)
    assert str(tuner.LargestStable([one])).splitlines() == [
        "depth  plain           normalized    normalized / plain",
        "-----  --------------  ------------  ------------------",
        "3      0.1 (0 to inf)  1 (0 to inf)  10 (0 to inf)",
    ]
    unknown = tuner.StableRates({}, {"plain": [0.1], "normalized": [math.inf]}).ratio()
    assert all(math.isnan(value) for value in unknown)
    with pytest.raises(ValueError, match="both arms"):
        tuner.StableRates({}, {"plain": [0.1]}).ratio()


def test_a_schedule_is_not_followed_and_stays():
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)
    (found,) = tuner.largest_stable_learning_rate(
        model := line(rate=rate), (X, X), arms=["plain"], seeds=1, steps=40, batch_size=len(X)
    )
    assert found.rates["plain"] == [pytest.approx(1 / float(np.mean(X**2)), rel=0.15)]
    assert kerasbn.optimizers.schedule_of(model.optimizer).get_config() == rate.get_config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"over": {"depth": [1]}}, "`over` needs a function.*def build.depth."),
        ({"over": {"depth": ()}, "build": line}, r"`over\['depth'\]` must be a sequence.*=\(\)"),
        ({"over": {"depth": "12"}, "build": line}, r"`over\['depth'\]` must be a sequence.*='12'"),
        ({"arms": ()}, r"`arms` must be a sequence.*=\(\)"),
        ({"lowest": 1.0, "highest": 0.1}, r"`highest` must be above `lowest`. Received: highest=0.1, lowest=1.0"),
        ({"lowest": 1.0, "highest": 1.0}, r"`highest` must be above `lowest`. Received: highest=1.0, lowest=1.0"),
        ({"arms": ["batched"]}, "`arms` must be one of.*'batched'"),
        ({"seeds": 0}, "`seeds`.*0"),
        ({"steps": 3}, "`steps`.*3"),
        ({"tolerance": 1.0}, "`tolerance` must be a factor above 1.*1.0"),
        ({"start": -1}, "`start`.*-1"),
        ({"lowest": 0}, "`lowest`.*0"),
        ({"highest": math.inf}, "`highest`.*inf"),
        ({"keep": 2}, "`keep`.*2"),
        ({"normal_loss": 0}, "`normal_loss`.*0"),
        ({"explosion": 0}, "`explosion`.*0"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tuner.largest_stable_learning_rate(**{"build": line(), "data": (X, X)} | arguments)


@pytest.mark.parametrize("data", [(each for each in [(X, X)]), iter([(X, X)])], ids=["generator", "iterator"])
def test_data_that_come_once_are_refused(data):
    """Every training needs them again: all after the first had nothing, or other batches."""
    with pytest.raises(
        TypeError, match=r"`data` must give its batches again for every training.*Received: a .*Dataset"
    ):
        tuner.largest_stable_learning_rate(line(), data)


def test_a_model_must_be_compiled():
    with pytest.raises(ValueError, match=r"`build` must give a compiled model.*'mine'"):
        tuner.largest_stable_learning_rate(keras.Sequential([keras.Input((1,))], name="mine"), (X, X))
