"""Masks: where they come from, what they exclude, and that nothing leaks from under them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from tests.cases import CASES, WAYS, in_mode, train
from tests.crossing import crossed

MASKED = [case for case in CASES if case.masked]


@pytest.mark.parametrize(("case", "bad", "way"), crossed(MASKED, [np.nan, np.inf, -np.inf], WAYS))
def test_nothing_leaks(case, bad, way):
    """What is not finite under the mask changes no other output, no gradient of another value, no weight."""
    clean, spoiled = case.x.copy(), case.x.copy()
    clean[~case.mask], spoiled[~case.mask] = 0, bad
    dy = np.where(case.mask[..., None], case.dy, 0)  # what a masked loss sends back
    mode, jit_compile = way
    layers = case.layer(jit_compile=jit_compile), case.layer(jit_compile=jit_compile)
    results = []
    for layer, x in zip(layers, (clean, spoiled), strict=True):
        results.append(in_mode(mode, lambda x, layer=layer: train(layer, x, dy, case.mask))(tf.constant(x)))
    (y, *_), (spoiled_y, spoiled_dx, *_) = results
    assert np.isfinite(spoiled_y).all() and np.isfinite(spoiled_dx).all()
    np.testing.assert_array_equal(y[case.mask], spoiled_y[case.mask])
    for a, b in zip(results[0][1:], results[1][1:], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)
    for a, b in zip(*(layer.get_weights() for layer in layers), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_no_gradient_reaches_what_was_replaced(jit_compile):
    case = MASKED[0]
    x = case.x.copy()
    x[~case.mask] = np.nan
    _, dx, *_ = train(case.layer(jit_compile=jit_compile), x, case.dy, case.mask)
    assert (dx[~case.mask].numpy() == 0).all() and (dx[case.mask].numpy() != 0).any()


@pytest.mark.parametrize("case", MASKED, ids=str)
def test_inference_does_not_leak(case):
    x = case.x.copy()
    x[~case.mask] = np.nan
    layer = case.layer()
    y = layer(x, mask=case.mask)
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(y[case.mask], layer(case.x, mask=case.mask)[case.mask])


WHOLE_BATCH = [case for case in MASKED if case.kept == (2,) and "virtual_batch_size" not in case.settings]


@pytest.mark.parametrize("case", WHOLE_BATCH, ids=str)
def test_mask_is_selection(case):
    """Masking positions out is as leaving them out, for the statistics and for what is normalized."""
    masked, selected = case.layer(), case.layer()
    y = masked(case.x, training=True, mask=case.mask)
    rows = case.x[case.mask][np.newaxis]
    np.testing.assert_allclose(y[case.mask], selected(rows, training=True)[0], rtol=1e-5, atol=1e-5)
    for a, b in zip(masked.get_weights(), selected.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("case", "way"), crossed(MASKED, WAYS))
def test_fully_masked(case, way):
    """Nothing to count: no statistic moves, and everything stays finite."""
    mode, jit_compile = way
    layer = case.layer(jit_compile=jit_compile)
    before = layer.get_weights()
    y, *gradients = in_mode(mode, lambda x: train(layer, x, case.dy, np.zeros_like(case.mask)))(tf.constant(case.x))
    assert np.isfinite(y).all() and all(np.isfinite(g).all() for g in gradients)
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_channel():
    x = np.random.default_rng(0).normal(size=(4, 3, 1)).astype("float32")
    mask = np.random.default_rng(1).random((4, 3)) < 0.5
    layer = BatchNorm(momentum=0.0)
    layer(x, training=True, mask=mask)
    np.testing.assert_allclose(layer.moving_mean, [x[mask].mean()], rtol=1e-5)


def test_mask_from_masking_layer():
    x = np.random.default_rng(0).normal(size=(6, 5, 3)).astype("float32")
    x[1, 3:] = 0
    x[4, 1:] = 0
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.Masking(), BatchNorm(momentum=0.0)])
    model(x, training=True)
    counted = x[(x != 0).any(-1)]
    np.testing.assert_allclose(model.layers[-1].moving_mean, counted.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.layers[-1].moving_variance, counted.var(0), rtol=1e-5)


def test_mask_is_passed_on():
    inputs = keras.Input((None,), dtype="int32")
    x = BatchNorm()(keras.layers.Embedding(10, 4, mask_zero=True)(inputs))
    model = keras.Model(inputs, keras.layers.LSTM(3)(x))
    ids = np.array([[3, 2, 0, 0], [5, 0, 0, 0]])
    np.testing.assert_allclose(model(ids), model(ids[:, :2]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "float32", "int32"])
def test_mask_of_any_dtype_and_broadcastable(dtype):
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
    mask = np.array([[True], [False], [True], [True]])
    layers = BatchNorm(momentum=0.0), BatchNorm(momentum=0.0)
    layers[0](x, training=True, mask=mask.astype(dtype))
    layers[1](x, training=True, mask=np.tile(mask, (1, 6)))
    for a, b in zip(*(layer.get_weights() for layer in layers), strict=True):
        np.testing.assert_array_equal(a, b)
