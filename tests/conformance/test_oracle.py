"""Every case against the float64 oracle: output, gradients, moving statistics, inference."""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm
from tests import reference
from tests.cases import CASES, train

TOLERANCE = {"float32": {"rtol": 2e-5, "atol": 2e-5}, "float64": {"rtol": 1e-11, "atol": 1e-11}}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


def expected(case, layer):
    """The oracle's y, (dx, dgamma, dbeta) and weights after the step, given the weights before it."""
    w = {weight.name: case.vector(weight) for weight in layer.weights if weight.name != "moving_count"}
    gamma, beta = w.get("gamma", 1.0), w.get("beta", 0.0)
    mask = None if case.mask is None else case.mask[..., None]
    n = reference.algorithm_1(case.x, gamma, beta, layer.epsilon, case.axes, mask)
    r, d = 1.0, 0.0
    if layer.renorm:
        r, d = reference.renorm_correction(
            n.mu, n.sigma2, w["renorm_mean"], w["renorm_stddev"], layer.epsilon, **layer.renorm_clipping
        )
    y = gamma * (n.x_hat * r + d) + beta
    dy = case.dy.astype("float64")
    dx, dgamma, dbeta = reference.backward(case.x, gamma * r, dy, layer.epsilon, case.axes, mask)
    dgamma = r * dgamma + d * dbeta

    def move(name, value, momentum):
        momentum = 0.0 if momentum is None else momentum  # the first batch is the whole average
        w[name] = momentum * w[name] + (1 - momentum) * value

    variance = reference.algorithm_2_variance(n.sigma2, n.m) if layer.unbiased else n.sigma2
    move("moving_mean", n.mu, layer.momentum)
    if layer.renorm:
        move("moving_stddev", np.sqrt(variance + layer.epsilon), layer.momentum)
        w["moving_variance"] = np.maximum(w["moving_stddev"] ** 2 - layer.epsilon, 0)
        move("renorm_mean", n.mu, layer.renorm_momentum)
        move("renorm_stddev", np.sqrt(n.sigma2 + layer.epsilon), layer.renorm_momentum)
    else:
        move("moving_variance", variance, layer.momentum)
    return y, {"x": dx, "gamma": dgamma, "beta": dbeta}, w


@pytest.mark.parametrize("jit_compile", [False, True])
def test_training(case, jit_compile):
    layer = case.layer(jit_compile=jit_compile)
    y, gradients, weights = expected(case, layer)
    found_y, *found = train(layer, case.x, case.dy, case.mask)
    tolerance = TOLERANCE[case.dtype]
    np.testing.assert_allclose(found_y, y, **tolerance)
    names = ["x", *(["gamma"] if layer.scale else []), *(["beta"] if layer.center else [])]
    assert len(found) == len(names)
    for name, gradient in zip(names, found, strict=True):
        wanted = gradients[name]
        scale = max(1.0, np.abs(wanted).max())
        gradient = gradient if name == "x" else case.vector(gradient)
        np.testing.assert_allclose(gradient / scale, wanted / scale, err_msg=name, **tolerance)
    for weight in layer.weights:
        if weight.name != "moving_count":
            np.testing.assert_allclose(case.vector(weight), weights[weight.name], err_msg=weight.name, **tolerance)


def test_inference(case):
    layer = case.layer()
    before = layer.get_weights()
    w = {weight.name: case.vector(weight) for weight in layer.weights if weight.name != "moving_count"}
    y = reference.inference(
        case.x, w.get("gamma", 1.0), w.get("beta", 0.0), w["moving_mean"], w["moving_variance"], layer.epsilon
    )
    for training in (False, None):
        np.testing.assert_allclose(layer(case.x, training=training, mask=case.mask), y, **TOLERANCE[case.dtype])
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
