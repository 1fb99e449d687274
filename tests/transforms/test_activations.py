"""`replace_activations`: every hidden nonlinearity, and no other."""

import keras
import numpy as np
import pytest

from kerasbn.transforms import replace_activations
from tests.transforms.models import MODELS, inputs_of, with_random_weights

L = keras.layers


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_it_works_on_every_kind_of_model_and_leaves_it_as_it_is(make):
    model = with_random_weights(make())
    x = inputs_of(model)
    before, changes = model(x, training=False), []
    new = replace_activations(model, "tanh", changes=changes)
    keras.tree.map_structure(np.testing.assert_array_equal, model(x, training=False), before)
    assert replace_activations(new, "tanh", changes=(again := [])) is not new
    assert [change.where for change in again] == [change.where for change in changes]
    assert all(change.old == change.new == "tanh" for change in again)
    keras.tree.map_structure(lambda a, b: a.shape == b.shape, new(x, training=False), before)


def test_what_is_computed():
    inputs = keras.Input((4,))
    x = L.Dense(5, "relu", name="a")(inputs)
    x = L.LeakyReLU(name="b")(L.Dense(5, name="linear")(x))
    x = L.Reshape((1, 5))(x)
    x = L.TimeDistributed(L.Dense(3, "elu"), name="c")(x)
    x = L.PReLU(name="d")(x)
    attention = L.Softmax(name="attention")(x)
    outputs = L.Reshape((3,))(L.Dense(3, "sigmoid", name="out")(L.Multiply()([x, attention])))
    model = with_random_weights(keras.Model(inputs, outputs))
    changes = []
    new = replace_activations(model, "sigmoid", changes=changes)
    assert [change.where for change in changes] == ["a", "b", "c", "d"]
    assert [change.old for change in changes] == ["relu", "leakyrelu", "elu", "prelu"]

    u = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")

    def sigmoid(z):
        return 1 / (1 + np.exp(-np.asarray(z, "float64")))

    def dense(layer, z):
        return z @ layer.kernel.numpy() + layer.bias.numpy()

    z = sigmoid(dense(model.get_layer("linear"), sigmoid(dense(model.get_layer("a"), u))))
    z = sigmoid(sigmoid(dense(model.get_layer("c").layer, z)))
    weights = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    z = sigmoid(dense(model.get_layer("out"), z * weights))
    np.testing.assert_allclose(new(u), z, rtol=1e-5)


def test_the_output_stays_also_as_a_layer_of_its_own():
    layers = [keras.Input((4,)), L.Dense(3), L.ReLU(), L.Dense(1), L.Activation("sigmoid"), L.Flatten()]
    changes = []
    new = replace_activations(keras.Sequential(layers), "tanh", changes=changes)
    assert [str(change).split(": ")[1] for change in changes] == ["activation relu -> tanh"]
    assert new.layers[3].activation is keras.activations.sigmoid


def test_a_name_that_is_not_known():
    with pytest.raises(ValueError, match="nonsense"):
        replace_activations(keras.Sequential([keras.Input((4,)), L.Dense(3)]), "nonsense")
