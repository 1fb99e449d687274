"""The layer against the formula of the paper, against TensorFlow's function, and in files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import LocalResponseNormalization

ALEXNET = {"depth_radius": 2, "bias": 2.0, "alpha": 1e-4, "beta": 0.75}
SETTINGS = [{}, ALEXNET, {"depth_radius": 0}, {"depth_radius": 40, "alpha": 0.5}, {"beta": -1.0}]


def in_the_papers_letters(a, depth_radius=5, bias=1.0, alpha=1.0, beta=0.5):
    """Sec. 3.3, channels last, in float64."""
    a = np.asarray(a, "float64")
    b = np.empty_like(a)
    for i in range(a.shape[-1]):
        window = a[..., max(0, i - depth_radius) : i + depth_radius + 1]
        b[..., i] = a[..., i] / (bias + alpha * np.sum(window**2, axis=-1)) ** beta
    return b


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("axis", [-1, 1, 2, -2])
def test_formula(settings, axis):
    x = np.random.default_rng(0).normal(size=(2, 7, 8, 9)).astype("float32") * 3
    wanted = np.moveaxis(in_the_papers_letters(np.moveaxis(x, axis, -1), **settings), -1, axis)
    np.testing.assert_allclose(LocalResponseNormalization(**settings, axis=axis)(x), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS[:4], ids=str)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_is_the_function_of_tensorflow(settings, jit_compile):
    """In value and gradient, with its defaults."""
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 6, 12)), "float32")
    layer = LocalResponseNormalization(**settings)

    @tf.function(jit_compile=jit_compile)
    def value_and_gradient(function, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x, tf.sin(x))

    y, dx = value_and_gradient(layer, x)
    wanted, wanted_dx = value_and_gradient(lambda x: tf.nn.local_response_normalization(x, **settings), x)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx, wanted_dx, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4), (2, 2, 2, 2, 4)])
def test_any_rank(shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    np.testing.assert_allclose(LocalResponseNormalization()(x), in_the_papers_letters(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("mixed_bfloat16", 2e-2), ("mixed_float16", 2e-3)]
)
def test_precision(dtype, tolerance):
    """300 squared is more than float16 holds."""
    layer = LocalResponseNormalization(dtype=dtype)
    x = np.random.default_rng(0).normal(size=(3, 8)) * 300
    y = layer(x)
    assert y.dtype == layer.compute_dtype
    wanted = in_the_papers_letters(tf.cast(tf.cast(x, layer.compute_dtype), "float64"))
    np.testing.assert_allclose(tf.cast(y, "float64"), wanted, rtol=tolerance, atol=tolerance)


def test_unknown_sizes():
    model = keras.Sequential([keras.Input((None, None, None)), LocalResponseNormalization(**ALEXNET)])
    x = np.ones((2, 3, 4, 5), "float32")
    np.testing.assert_allclose(model(x), in_the_papers_letters(x, **ALEXNET), rtol=1e-6)


def test_file(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 6)), LocalResponseNormalization(**ALEXNET, axis=2, name="norm1")])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    assert keras.layers.serialize(model.layers[0])["registered_name"] == "kerasbn>LocalResponseNormalization"
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype("float32")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"depth_radius": -1}, ["`depth_radius`", "not below 0", "depth_radius=-1"]),
        ({"depth_radius": 1.5}, ["`depth_radius`", "integer", "depth_radius=1.5"]),
        ({"bias": 0}, ["`bias`", "above 0", "bias=0"]),
        ({"alpha": -1}, ["`alpha`", "alpha=-1"]),
        ({"beta": "much"}, ["`beta`", "number", "beta='much'"]),
        ({"axis": [1, 2]}, ["`axis`", "one integer", "axis=[1, 2]"]),
        ({"radius": 2}, ["radius"]),
    ],
    ids=str,
)
def test_arguments(settings, parts):
    with pytest.raises(ValueError) as caught:
        LocalResponseNormalization(**settings)
    for part in parts:
        assert part in str(caught.value)


def test_axis_out_of_range():
    with pytest.raises(ValueError, match="axis=4"):
        LocalResponseNormalization(axis=4)(np.ones((2, 3), "float32"))


def test_inputs():
    layer = LocalResponseNormalization()
    np.testing.assert_allclose(layer(np.array([[1, 2]])), layer(np.array([[1.0, 2.0]], "float32")))
    with pytest.raises(ValueError, match=r"must be a dense tensor.*SparseTensor"):
        layer(tf.sparse.from_dense(np.eye(3, dtype="float32")))
    with pytest.raises(ValueError, match="The layer needs an input of rank 2"):
        layer(np.ones(3, "float32"))
