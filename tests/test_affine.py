"""The layer against its formula, in all shapes and precisions, and in files."""

import keras
import numpy as np
import pytest

from kerasbn import Affine


def with_weights(shape, **settings):
    layer = Affine(**settings)
    layer.build(shape)
    random = np.random.default_rng(0)
    layer.set_weights([random.normal(size=weight.shape) for weight in layer.weights])
    return layer


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
    ("axis", "weights"), [(-1, (1, 1, 1, 5)), (1, (1, 3, 1, 1)), ((3, 1), (1, 3, 1, 5)), ([0], (2, 1, 1, 1))]
)
def test_formula(axis, weights, center):
    layer = with_weights((2, 3, 4, 5), axis=axis, center=center, dtype="float64")
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    scale, offset, mean = [*(w.numpy().reshape(weights) for w in layer.weights), 0][:3]
    y = layer(x)
    assert y.dtype == "float64" and len(layer.weights) == 2 + center
    np.testing.assert_allclose(y, scale * (x - mean) + offset, rtol=1e-14)


@pytest.mark.parametrize(("dtype", "tolerance"), [("mixed_bfloat16", 1e-2), ("float16", 1e-3), ("float32", 1e-6)])
def test_precision(dtype, tolerance):
    """Weights are in float32 at least, and so is the product, which may be larger than float16 holds."""
    layer = Affine(dtype=dtype)
    layer.build((None, 2))
    layer.set_weights([np.array([3000.0, 1.0]), np.array([-89900.0, 0.1])])
    y = layer(np.array([[30.0, 0.0]]))
    assert y.dtype == layer.compute_dtype and {w.dtype for w in layer.weights} == {"float32"}
    np.testing.assert_allclose(keras.ops.cast(y, "float64"), [[100.0, 0.1]], rtol=tolerance)


def test_integers():
    layer = with_weights((None, 3))
    np.testing.assert_array_equal(layer(np.array([[1, 2, 3]])), layer(np.array([[1.0, 2.0, 3.0]], "float32")))


def test_masks_go_on():
    x = keras.Input((4,), dtype="int32")
    y = keras.layers.Embedding(5, 3, mask_zero=True)(x)
    np.testing.assert_array_equal(
        keras.Model(x, keras.layers.LSTM(2)(Affine()(y)))(np.zeros((1, 4), "int32")), np.zeros((1, 2))
    )


def test_file(tmp_path):
    layers = with_weights((None, 3, 4), axis=(1, 2), center=True, name="affine"), keras.layers.Flatten()
    model = keras.Sequential([keras.Input((3, 4)), *layers])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    assert keras.layers.serialize(model.layers[0])["registered_name"] == "kerasbn>Affine"
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize(
    ("axis", "shape", "parts"),
    [
        (3, (None, 2), ["`axis`", "between -2 and 1", "axis=3"]),
        ((1, -1), (None, 2), ["`axis`", "each axis once", "axis=[1, -1]"]),
        (1, (None, None, 2), ["`axis`", "known size", "axis=1"]),
    ],
)
def test_arguments(axis, shape, parts):
    with pytest.raises(ValueError) as caught:
        Affine(axis).build(shape)
    for part in parts:
        assert part in str(caught.value)


def test_an_axis_is_an_integer():
    with pytest.raises(TypeError, match=r"axis='channels'"):
        Affine("channels")
