"""`remove_local_response_normalization`: what is recognized, and that the rest is as before."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import LocalResponseNormalization
from kerasbn.transforms import remove_local_response_normalization
from tests.transforms.models import all_layers, inputs_of, with_random_weights

L = keras.layers


class LRN2D(keras.layers.Layer):
    """As people wrote it for Keras 1."""

    def call(self, x):
        return tf.nn.local_response_normalization(x)


def lrn_of_our_own(x, radius=2):
    return tf.nn.local_response_normalization(x, depth_radius=radius, bias=2.0)


def radius_from_a_closure(radius):
    return lambda x: tf.nn.lrn(x, radius)


KINDS = {
    "layer": lambda: LocalResponseNormalization(2, name="norm"),
    "channels first": lambda: LocalResponseNormalization(axis=1, name="norm"),
    "layer of another class": lambda: LRN2D(name="norm"),
    "function of TensorFlow": lambda: L.Lambda(tf.nn.local_response_normalization, name="norm"),
    "with arguments": lambda: L.Lambda(tf.nn.lrn, arguments={"depth_radius": 2, "bias": 2.0}, name="norm"),
    "function": lambda: L.Lambda(lrn_of_our_own, name="norm"),
    "lambda": lambda: L.Lambda(lambda x: tf.nn.local_response_normalization(x, 5, 2.0, 1e-4, 0.75), name="norm"),
    "closure": lambda: L.Lambda(radius_from_a_closure(3), name="norm"),
    "raw operation": lambda: L.Lambda(lambda x: tf.raw_ops.LRN(input=x, depth_radius=3), name="norm"),
}


@pytest.mark.parametrize("as_sequential", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind, as_sequential):
    conv, pool, dense = L.Conv2D(4, 3, activation="relu", name="conv"), L.GlobalMaxPooling2D(name="pool"), L.Dense(2)
    layers = [conv, KINDS[kind](), pool, dense]
    if as_sequential:
        model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    else:
        inputs = x = keras.Input((8, 8, 3))
        for layer in layers:
            x = layer(x)
        model = keras.Model(inputs, x)
    with_random_weights(model)
    changes = []
    new = remove_local_response_normalization(model, changes=changes)
    assert [layer.name for layer in new.layers] == [layer.name for layer in model.layers if layer.name != "norm"]
    assert [str(change) for change in changes] == [
        f"norm: local response normalization {type(layers[1]).__name__} -> None"
    ]
    x = inputs_of(model)
    np.testing.assert_allclose(new(x), dense(pool(conv(x))), rtol=1e-6)


def inception():
    """Two branches, a normalization of the input of both, one of a nested model, two in a row before the end."""
    stem_inputs = keras.Input((8, 8, 4))
    stem = keras.Model(stem_inputs, LocalResponseNormalization(name="at_the_end")(2.0 * stem_inputs), name="stem")
    inputs = keras.Input((8, 8, 4), name="images")
    x = LocalResponseNormalization(name="first")(stem(inputs))
    x = L.Concatenate(name="both")([L.Conv2D(2, 1, name="a")(x), L.Conv2D(2, 1, name="b")(x)])
    outputs = LocalResponseNormalization(name="last")(LRN2D(name="last_but_one")(x))
    return keras.Model(inputs, {"features": outputs, "stem": x})


def test_branches_nested_models_and_outputs():
    model = with_random_weights(inception())
    changes = []
    new = remove_local_response_normalization(model, changes=changes)
    assert {change.where for change in changes} == {"stem/at_the_end", "first", "last_but_one", "last"}
    assert not any("esponse" in type(layer).__name__ for layer in all_layers(new).values())
    x = inputs_of(model)
    a, b = (model.get_layer(name)(2 * x) for name in "ab")
    result = new(x)
    np.testing.assert_allclose(result["features"], tf.concat([a, b], -1), rtol=1e-6)
    np.testing.assert_array_equal(result["features"], result["stem"])


def test_the_layer_that_is_shared():
    norm = LocalResponseNormalization(name="norm")
    inputs = [keras.Input((4,), name="left"), keras.Input((4,), name="right")]
    model = keras.Model(inputs, L.Subtract()([norm(x) for x in inputs]))
    x = inputs_of(model)
    np.testing.assert_array_equal(remove_local_response_normalization(model)(x), x[0] - x[1])


def test_at_each_time_step():
    model = keras.Sequential([keras.Input((3, 8, 8, 4)), L.TimeDistributed(KINDS["lambda"]()), L.Flatten()])
    assert len(remove_local_response_normalization(model).layers) == 1


def test_other_lambdas_stay():
    layers = [L.Lambda(tf.nn.relu), L.Lambda(lambda x: 2 * x), L.LayerNormalization(), L.UnitNormalization()]
    model = with_random_weights(keras.Sequential([keras.Input((8, 8, 3)), *layers]))
    new = remove_local_response_normalization(model)
    x = inputs_of(model) - 0.5
    np.testing.assert_array_equal(new(x), model(x))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_lambda_that_does_more_is_refused_by_name(dtype):
    layer = L.Lambda(lambda x: tf.nn.lrn(tf.nn.relu(x)), name="relu_and_norm", dtype=dtype)
    with pytest.raises(ValueError, match="'relu_and_norm'") as caught:
        remove_local_response_normalization(keras.Sequential([layer]))
    assert "computes Relu" in str(caught.value) and "Split it" in str(caught.value)


class Python(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = LocalResponseNormalization(name="norm")

    def call(self, x):
        return self.norm(x)


def test_layers_in_python_code_are_refused_by_name():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Python(name="inner")(inputs))
    with pytest.raises(ValueError, match="'norm' of class LocalResponseNormalization is in 'inner'") as caught:
        remove_local_response_normalization(model)
    assert "class Python" in str(caught.value) and "functional API" in str(caught.value)
