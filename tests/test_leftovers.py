"""A file of tests leaves no graphs to the next."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from tests.leftovers import forget_gradients


@pytest.fixture
def graph():
    """The graph of a training step, of which nothing in the test holds anything."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), BatchNorm()])
    model(np.ones([8, 3]), training=True)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(model(x, training=True) ** 2)
        return tape.gradient(y, model.trainable_variables)

    return weakref.ref(step.get_concrete_function(tf.TensorSpec([8, 3])).graph)


def test_tensorflow_keeps_graphs_with_custom_gradients(graph):
    gc.collect()
    assert graph() is not None, "TensorFlow gives them back now: `forget_gradients` is no longer needed."


def test_a_training_step_is_given_back(graph):
    forget_gradients()
    gc.collect()
    assert graph() is None


def test_other_gradients_stay():
    forget_gradients()
    x = tf.constant([1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(tf.custom_gradient(lambda x: (x**2, lambda dy: 3.0 * dy))(x) * tf.exp(x))
    np.testing.assert_allclose(tape.gradient(y, x), tf.exp(x) * (3 + x**2), rtol=1e-6)
