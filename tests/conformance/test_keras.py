"""Every case that Keras has, against Keras's layer: output, gradients of first and second order, weights, config."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from tests.cases import KERAS_CASES, Case

pytestmark = pytest.mark.parametrize("case", KERAS_CASES, ids=str)


def both(case: Case, **settings):
    return case.layer(keras.layers.BatchNormalization, **settings), case.layer(BatchNorm, **settings)


def test_training_and_second_order(case):
    """In float64, where rounding hides nothing. The second order is a gradient penalty, as in WGAN-GP."""

    def run(layer):
        x = tf.constant(case.x, "float64")
        weights = [w.value for w in layer.trainable_weights]
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = layer(x, training=True, mask=case.mask)
                loss = tf.reduce_sum(tf.sin(y) * case.dy)
            gradients = inner.gradient(loss, [x, *weights])
            penalty = tf.reduce_sum(gradients[0] ** 2) + sum(tf.reduce_sum(tf.sin(g)) for g in gradients[1:])
        return [y, *gradients, *outer.gradient(penalty, [x, *weights], unconnected_gradients="zero")]

    theirs, ours = (run(layer) for layer in both(case, dtype="float64"))
    # Keras divides by count + 1e-7 under a mask, and starts renorm's squares from rounded roots.
    tolerance = 1e-6 if case.masked else 1e-9
    for a, b in zip(theirs, ours, strict=True):
        scale = np.abs(a).max() + 1
        np.testing.assert_allclose(b / scale, a / scale, atol=tolerance, rtol=tolerance)


def test_weights_after_training(case):
    keras_layer, layer = both(case)
    for _ in range(3):
        keras_layer(case.x, training=True, mask=case.mask)
        layer(case.x, training=True, mask=case.mask)
    assert [w.name for w in layer.weights] == [w.name for w in keras_layer.weights]
    assert [w.shape for w in layer.weights] == [w.shape for w in keras_layer.weights]
    assert [w.dtype for w in layer.weights] == [w.dtype for w in keras_layer.weights]
    assert [w.trainable for w in layer.weights] == [w.trainable for w in keras_layer.weights]
    for a, b in zip(keras_layer.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


def test_inference(case):
    keras_layer, layer = both(case)
    a, b = keras_layer(case.x, mask=case.mask), layer(case.x, mask=case.mask)
    assert a.dtype == b.dtype
    np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


def test_config(case):
    keras_layer, layer = both(case)
    ours, theirs = layer.get_config(), keras_layer.get_config()
    ours.pop("name"), theirs.pop("name")
    assert ours == theirs
    assert isinstance(keras.layers.BatchNormalization.from_config(layer.get_config()), keras.layers.BatchNormalization)
    assert BatchNorm.from_config(keras_layer.get_config()).get_config() == keras_layer.get_config()
