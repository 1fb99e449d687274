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
    before = {weight.name: case.vector(weight) for weight in layer.weights if weight.name != "moving_count"}
    after, gamma, beta = dict(before), before.get("gamma", 1.0), before.get("beta", 0.0)
    activation, slope = reference.ACTIVATIONS[case.settings.get("activation")]
    mask = None if case.mask is None else case.mask[..., None]
    size = layer.virtual_batch_size or len(case.x)
    ys, dxs, dgamma, dbeta = [], [], 0, 0
    for number, group in enumerate(slice(start, start + size) for start in range(0, len(case.x), size)):
        x, group_mask = case.x[group].astype("float64"), None if mask is None else mask[group]
        n = reference.algorithm_1(x, gamma, beta, layer.epsilon, case.axes, group_mask)
        r, d = 1.0, 0.0
        if layer.renorm:
            statistics = before["renorm_mean"], before["renorm_stddev"]
            r, d = reference.renorm_correction(n.mu, n.sigma2, *statistics, layer.epsilon, **layer.renorm_clipping)
        z = gamma * (n.x_hat * r + d) + beta
        dz = case.dy[group] * slope(z)
        dx, group_dgamma, group_dbeta = reference.backward(x, gamma * r, dz, layer.epsilon, case.axes, group_mask)
        ys.append(activation(z))
        dxs.append(dx)
        dgamma, dbeta = dgamma + r * group_dgamma + d * group_dbeta, dbeta + group_dbeta

        def move(name, value, momentum):
            after[name] = momentum * after[name] + (1 - momentum) * value

        variance = reference.algorithm_2_variance(n.sigma2, n.m) if layer.unbiased else n.sigma2
        momentum = number / (number + 1) if layer.momentum is None else layer.momentum
        move("moving_mean", n.mu, momentum)
        if layer.renorm:
            move("moving_stddev", np.sqrt(variance + layer.epsilon), momentum)
            after["moving_variance"] = np.maximum(after["moving_stddev"] ** 2 - layer.epsilon, 0)
            move("renorm_mean", n.mu, layer.renorm_momentum)
            move("renorm_stddev", np.sqrt(n.sigma2 + layer.epsilon), layer.renorm_momentum)
        else:
            move("moving_variance", variance, momentum)
    return np.concatenate(ys), {"x": np.concatenate(dxs), "gamma": dgamma, "beta": dbeta}, after


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
    activation, _ = reference.ACTIVATIONS[case.settings.get("activation")]
    z = reference.inference(
        case.x, w.get("gamma", 1.0), w.get("beta", 0.0), w["moving_mean"], w["moving_variance"], layer.epsilon
    )
    for training in (False, None):
        np.testing.assert_allclose(
            layer(case.x, training=training, mask=case.mask), activation(z), **TOLERANCE[case.dtype]
        )
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
