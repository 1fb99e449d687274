"""Large means and outliers: float32 results against float64 on the same float32 inputs, in every mode."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from tests import reference
from tests.cases import MODES, WAYS, in_mode, train
from tests.crossing import crossed

EPSILON = 1e-3

#: Input shape, axis, whether masked. A hundred thousand rows is what a 56 x 56 map and a batch of 32 give.
LAYOUTS = {
    "rows": ((100_352, 4), -1, False),
    "image": ((32, 14, 14, 8), -1, False),
    "channels first": ((32, 8, 14, 14), 1, False),
    "middle": ((64, 9, 8, 30), 2, False),
    "per activation": ((2_000, 3, 4), (1, 2), False),
    "masked": ((64, 50, 8), -1, True),
    "masked, channels first": ((64, 8, 50), 1, True),
    "few rows": ((20, 4), -1, False),
}


def relative(found, wanted):
    """Error in units of the value, or of one where the value is smaller: an output of 300 has no digit at 2e-5."""
    return (np.abs(found - wanted) / np.maximum(1, np.abs(wanted))).max()


#: Those of a graph and of one program that the layer is left out of are ways of their own.
ALL_WAYS = (*WAYS, ("graph", False), ("inlined", False))

#: Mean and where an outlier of 1e4 is. The middle is where compiled kernels take their first guess at the mean from.
DATA = [(0.0, None), (0.0, "first"), (1e4, None), (1e6, "first"), (1e6, "middle")]


@pytest.mark.parametrize(("layout_and_data", "way"), crossed(itertools.product(LAYOUTS, DATA), ALL_WAYS))
def test_any_mean(layout_and_data, way):
    check_any_mean(*layout_and_data, way)


def check_any_mean(layout, data, way):
    (mean, outlier), (mode, jit_compile) = data, way
    shape, axis, masked = LAYOUTS[layout]
    random = np.random.default_rng(0)
    x = (random.normal(size=shape) + mean).astype("float32")
    dy = random.normal(size=shape).astype("float32")
    mask = random.random(shape[:-1]) < 0.7 if masked else None
    if outlier:
        sample = 0 if outlier == "first" else shape[0] // 2
        x[sample] += 1e4
        if masked:
            mask[sample] = True
    layer = BatchNorm(axis=axis, momentum=0.0, epsilon=EPSILON, jit_compile=jit_compile)
    layer.build(shape)
    static = (None, *shape[1:])
    step = in_mode(mode, lambda x, dy: train(layer, x, dy, mask), (static, "float32"), (static, "float32"))
    y, dx, dgamma, _ = step(tf.constant(x), tf.constant(dy))

    kept = {a % len(shape) for a in np.atleast_1d(axis)}
    axes = tuple(a for a in range(len(shape)) if a not in kept)
    wide = None if mask is None else mask[..., None]
    n = reference.algorithm_1(x, 1.0, 0.0, EPSILON, axes, wide)
    wanted_dx, wanted_dgamma, _ = reference.backward(
        x.astype("float64"), 1.0, dy.astype("float64"), EPSILON, axes, wide
    )
    assert relative(y, n.y) < 2e-5
    assert relative(dx / np.abs(wanted_dx).max(), wanted_dx / np.abs(wanted_dx).max()) < 2e-5
    assert (
        relative(
            dgamma.numpy().ravel() / np.abs(wanted_dgamma).max(), wanted_dgamma.ravel() / np.abs(wanted_dgamma).max()
        )
        < 2e-5
    )
    variance = layer.moving_variance.numpy().ravel()
    np.testing.assert_allclose(variance, n.sigma2.ravel(), rtol=1e-4)


@pytest.mark.parametrize("mode", ["eager", "inlined"])
def test_sixteen_million_rows(mode):
    """An accumulator that had a term of each slice rounded the last terms like numbers 65,000 times as large."""
    x = np.random.default_rng(0).standard_exponential((2**24, 1), "float32")
    layer = BatchNorm(momentum=0.0, jit_compile=True)
    layer.build(x.shape)
    in_mode(mode, lambda x: layer(x, training=True))(tf.constant(x))
    np.testing.assert_allclose(layer.moving_variance, x.var(0, dtype="float64"), rtol=1e-6)


@pytest.mark.parametrize("mean", [0.0, 1e4, 1e6])
def test_inference_at_any_mean(mean):
    x = (np.random.default_rng(0).normal(size=(500, 4)) + mean).astype("float32")
    layer = BatchNorm()
    layer.build(x.shape)
    layer.moving_mean.assign(x.mean(0))
    layer.moving_variance.assign(np.full(4, 0.9))
    wanted = reference.inference(
        x,
        1.0,
        0.0,
        layer.moving_mean.numpy().astype("float64"),
        layer.moving_variance.numpy().astype("float64"),
        EPSILON,
    )
    for mode in MODES:
        assert relative(in_mode(mode, lambda x: layer(x))(tf.constant(x)), wanted) < 2e-5


@pytest.mark.parametrize("constant", [0.0, 3.3, -1e6, 1e-20])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_constant_input_gives_beta(way, constant):
    mode, jit_compile = way
    layer = BatchNorm(jit_compile=jit_compile, beta_initializer=lambda shape, dtype=None: tf.range(4.0))
    layer.build((None, 4))
    y, dx, *_ = in_mode(mode, lambda x: train(layer, x, tf.ones_like(x)))(tf.fill([77, 4], constant))
    np.testing.assert_allclose(y, np.tile(np.arange(4.0), (77, 1)), atol=2e-6)
    assert np.isfinite(dx).all()
