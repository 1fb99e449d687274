"""TensorFlow's debuggers of NaN and infinity: they see the operations of the layer, and leave nothing behind."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from kerasbn.kernels.tiered import wait_until_compiled


@contextlib.contextmanager
def check_numerics(folder):
    tf.debugging.enable_check_numerics()
    try:
        yield
    finally:
        tf.debugging.disable_check_numerics()


@contextlib.contextmanager
def dump_debug_info(folder):
    tf.debugging.experimental.enable_dump_debug_info(str(folder), tensor_debug_mode="FULL_HEALTH")
    try:
        yield
    finally:
        tf.debugging.experimental.disable_dump_debug_info()


DEBUGGERS = [check_numerics, dump_debug_info]


def fit(value=0.0, **settings):
    """Trains a new model; one of the inputs has this value."""
    x = np.random.default_rng(0).normal(size=(16, 6, 4)).astype("float32")
    x[0, 0, 0] = value
    layers = [BatchNorm(name="first", **settings), keras.layers.ReLU(), BatchNorm(name="second", **settings)]
    model = keras.Sequential([keras.Input((6, 4)), *layers])
    model.compile("sgd", "mse")
    losses = model.fit(x, np.zeros_like(x), batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]
    return losses, model


@pytest.mark.parametrize("jit_compile", ["auto", True, False])
@pytest.mark.parametrize("debugger", DEBUGGERS)
def test_fit_under_a_debugger(debugger, jit_compile, small_and_soon, tmp_path):
    """Its operations get into no kernel, neither into one that is compiled at once nor into one in the background."""
    with warnings.catch_warnings(record=True, action="always", category=RuntimeWarning) as said, debugger(tmp_path):
        debugged, _ = fit(jit_compile=jit_compile)
        wait_until_compiled()
    assert not said
    np.testing.assert_allclose(debugged, fit(jit_compile=jit_compile)[0], rtol=1e-5)


@pytest.mark.parametrize("traced_before", [True, False])
def test_check_numerics_names_the_layer(traced_before):
    """Also where a layer like it has been traced, without checks or in another place of the code."""
    if traced_before:
        fit()
    with check_numerics(None):
        _, model = fit()
        model.get_layer("second").gamma.assign([1.0, np.inf, 1.0, 1.0])
        x = np.ones((4, 6, 4), "float32")
        with pytest.raises(tf.errors.InvalidArgumentError, match="second"):
            model.fit(x, x, verbose=0)


def test_nothing_is_left_behind():
    """What was traced under a debugger would raise at each NaN of the process from then on."""
    with check_numerics(None):
        fit()
    losses, _ = fit(value=np.nan)
    assert np.isnan(losses).all()
