"""`scale_initialization`: kernels, and nothing else."""

import keras
import numpy as np
import pytest

from kerasbn import batch_normalize
from kerasbn.transforms import scale_initialization
from tests.transforms.models import MODELS, with_random_weights


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_kernels_are_scaled_and_nothing_else(make):
    model = with_random_weights(make())
    before = model.get_weights()
    changes = []
    new = scale_initialization(model, 3.0, changes=changes)
    scaled = 0
    for old, was, variable in zip(model.weights, before, new.weights, strict=True):
        kernel = old.trainable and old.name.endswith("kernel")
        scaled += kernel
        np.testing.assert_array_equal(old, was)
        np.testing.assert_allclose(variable, 3 * was if kernel else was, rtol=1e-6 if kernel else 0)
    assert len(changes) == scaled
    assert all(change.new == pytest.approx(3 * change.old) for change in changes)


def test_behind_it_a_normalization_makes_it_nothing():
    layers = [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(8, "tanh"), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    u = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")

    def hidden(scale):
        new = batch_normalize(scale_initialization(model, scale), epsilon=0.0)
        return keras.Model(new.inputs[0], new.layers[-2].output)(u, training=True)

    np.testing.assert_allclose(hidden(8.0), hidden(1.0), rtol=1e-4, atol=1e-6)
    assert not np.allclose(scale_initialization(model, 8.0)(u), model(u))


@pytest.mark.parametrize(
    "layers", ["a", ["a"], lambda layer: isinstance(layer, keras.layers.Conv1D)], ids=["name", "names", "function"]
)
def test_only_the_layers_that_are_meant(layers):
    inner = keras.Sequential([keras.Input((5, 4)), keras.layers.Conv1D(3, 2, name="a")], name="inner")
    model = keras.Sequential([keras.Input((5, 4)), inner, keras.layers.Dense(2, name="b")])
    new = scale_initialization(model, 2.0, layers)
    scaled = [variable.path for variable in new.weights if variable.path.endswith("a/kernel")]
    assert len(scaled) == 1
    for old, variable in zip(model.weights, new.weights, strict=True):
        np.testing.assert_array_equal(variable, (2.0 if variable.path in scaled else 1.0) * old.numpy())
    within = scale_initialization(model, 2.0, "inner")  # a layer stands for all in it
    np.testing.assert_array_equal(within.get_weights()[0], new.get_weights()[0])


def test_layers_must_be_there():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    with pytest.raises(ValueError, match=r"there is no 'c'. Layers are \['a'\]"):
        scale_initialization(model, 2.0, ["a", "c"])


@pytest.mark.parametrize("factor", [0, -1, np.inf, "x"])
def test_the_factor_is_checked(factor):
    with pytest.raises(ValueError, match="`factor` must be a finite number above 0"):
        scale_initialization(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), factor)


def test_a_model_must_be_built():
    with pytest.raises(ValueError, match="must be built"):
        scale_initialization(keras.Sequential([keras.layers.Dense(3)]), 2.0)
