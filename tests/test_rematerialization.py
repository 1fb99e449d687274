"""Rematerialization: the forward pass runs twice, and with it the moving statistics move twice."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from tests.cases import in_mode

X = np.random.default_rng(0).normal(2, 3, size=(16, 5)).astype("float32")


def step(layer, call, mode):
    layer.build(X.shape)

    def forward(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(x)
            loss = tf.reduce_sum(tf.sin(y))
        return y, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

    return in_mode(mode, forward)(tf.constant(X))


@pytest.mark.parametrize("mode", ["eager", "graph", "inlined"])
@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("rematerialize", [keras.remat, tf.recompute_grad])
def test_results_stay_and_the_root_of_the_momentum_makes_up_for_it(rematerialize, jit_compile, mode):
    """As the documentation says."""
    plain = BatchNorm(momentum=0.9, jit_compile=jit_compile)
    twice = BatchNorm(momentum=0.9**0.5, jit_compile=jit_compile)
    wanted = step(plain, lambda x: plain(x, training=True), mode)
    found = step(twice, rematerialize(lambda x: twice(x, training=True)), mode)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(twice.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_plain_average_counts_each_batch_twice_and_stays():
    layer = BatchNorm(momentum=None)
    layer.build(X.shape)
    for x in (X, 2 * X):
        with tf.GradientTape() as tape:
            tape.watch(x := tf.constant(x))
            loss = tf.reduce_sum(keras.remat(lambda x: layer(x, training=True))(x))
        tape.gradient(loss, x)
    assert np.all(layer.moving_count == 4)
    np.testing.assert_allclose(layer.moving_mean, 1.5 * X.mean(0), rtol=1e-5)
