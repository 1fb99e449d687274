"""Every case against the float64 oracle: output, gradients, moving statistics, inference."""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm
from tests.cases import CASES, CORE, train
from tests.crossing import crossed
from tests.expected import inference, training_step

TOLERANCE = {"float32": {"rtol": 2e-5, "atol": 2e-5}, "float64": {"rtol": 1e-11, "atol": 1e-11}}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


@pytest.mark.parametrize(("case", "jit_compile"), [*crossed(CASES, [False]), *crossed(CASES, [True], core=CORE[::2])])
def test_training(case, jit_compile):
    layer = case.layer(jit_compile=jit_compile)
    step = training_step(case, layer)
    y, *gradients = train(layer, case.x, step.dy, case.mask)
    np.testing.assert_allclose(y, step.values["y"], **TOLERANCE[case.dtype])
    names = ["dx", *(["dgamma"] if layer.scale else []), *(["dbeta"] if layer.center else [])]
    assert len(gradients) == len(names)
    for name, gradient in zip(names, gradients, strict=True):
        wanted = step.values[name]
        scale = max(1.0, np.abs(wanted).max())
        gradient = gradient if name == "dx" else case.vector(gradient)
        np.testing.assert_allclose(gradient / scale, wanted / scale, err_msg=name, **TOLERANCE[case.dtype])
    for weight in layer.weights:
        wanted = step.values[weight.name]
        np.testing.assert_allclose(case.vector(weight), wanted, err_msg=weight.name, **TOLERANCE[case.dtype])


def test_inference(case):
    layer = case.layer()
    before = layer.get_weights()
    wanted, _ = inference(case, layer)
    for training in (False, None):
        np.testing.assert_allclose(layer(case.x, training=training, mask=case.mask), wanted, **TOLERANCE[case.dtype])
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_cumulative_average_is_the_plain_mean_over_batches():
    layer = BatchNorm(momentum=None)
    batches = np.random.default_rng(0).normal(size=(5, 7, 3)).astype("float32")
    for batch in batches:
        layer(batch, training=True)
    np.testing.assert_allclose(layer.moving_mean, batches.mean((0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, batches.var(1).mean(0), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_count, [5, 5, 5])


def test_cumulative_average_counts_each_channel():
    """A channel that a mask leaves out of a batch has had one batch less."""
    layer = BatchNorm(axis=1, momentum=None)
    x = np.random.default_rng(0).normal(size=(2, 2, 4)).astype("float32")
    layer(x, training=True, mask=np.array([[True, False]] * 2))
    layer(x + 1, training=True)
    np.testing.assert_array_equal(layer.moving_count, [2, 1])
    wanted = x.mean((0, 2)) + np.array([0.5, 1])
    np.testing.assert_allclose(layer.moving_mean, wanted, rtol=1e-5)


def test_momentum_0_forgets():
    """What the statistics were before is gone, to the last digit, however large it was."""
    layer = BatchNorm(momentum=0.0, moving_variance_initializer=keras.initializers.Constant(1e12))
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32") * 1e-5
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_variance, x.astype("float64").var(0), rtol=1e-5)
