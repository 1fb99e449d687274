"""Half precision and the mixed policies: statistics in float32, outputs as accurate as their dtype."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from tests import reference
from tests.cases import WAYS, in_mode, train
from tests.crossing import crossed

HALF = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


@pytest.mark.parametrize(
    ("shape_and_axis", "dtype", "way"),
    crossed([((64, 5, 8), 2), ((64, 5, 7), 2), ((64, 8, 6), 1), ((64, 8, 5), 1)], HALF, WAYS),
)
def test_half_precision_against_float64_on_the_same_inputs(shape_and_axis, dtype, way):
    """With even and odd sizes: bfloat16 is added up two at a time."""
    shape, axis = shape_and_axis
    mode, jit_compile = way
    random = np.random.default_rng(0)
    x = tf.cast(random.normal(size=shape) * 3 + 20, dtype)
    dy = tf.cast(random.normal(size=shape), dtype)
    layer = BatchNorm(axis=axis, dtype=f"mixed_{dtype}", momentum=0.0, jit_compile=jit_compile)
    layer.build(x.shape)
    y, dx, dgamma, dbeta = in_mode(mode, lambda x: train(layer, x, dy))(x)
    assert y.dtype == dx.dtype == dtype and dgamma.dtype == dbeta.dtype == "float32"
    wide, wide_dy = tf.cast(x, "float64").numpy(), tf.cast(dy, "float64").numpy()
    n = reference.algorithm_1(wide, 1.0, 0.0, layer.epsilon, (0, 3 - axis))
    wanted = reference.backward(wide, 1.0, wide_dy, layer.epsilon, (0, 3 - axis))
    # One rounding to half precision, of the result.
    np.testing.assert_allclose(tf.cast(y, "float64"), n.y, rtol=HALF[dtype], atol=1e-5)
    np.testing.assert_allclose(tf.cast(dx, "float64"), wanted[0], rtol=HALF[dtype], atol=1e-5)
    np.testing.assert_allclose(dgamma, wanted[1].ravel(), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(layer.moving_mean, n.mu.ravel(), rtol=1e-6)
    # Sums of numbers on the coarse grid of half precision round the same way more often than others.
    np.testing.assert_allclose(layer.moving_variance, n.sigma2.ravel(), rtol=3e-5)


def test_float16_statistics_do_not_overflow():
    """The squares of these inputs, and their sum, are beyond float16."""
    x = np.random.default_rng(0).normal(size=(4096, 2)).astype("float16") * 1000
    layer = BatchNorm(dtype="mixed_float16", momentum=0.0)
    y = layer(x, training=True)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(layer.moving_variance, x.astype("float64").var(0), rtol=1e-5)


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_statistics_are_float32_under_a_half_precision_policy(policy):
    """In half precision a moving average of momentum 0.99 would not move: its updates are rounded away."""
    layer = BatchNorm(dtype=policy, renorm=True)
    x = tf.cast(np.random.default_rng(0).normal(size=(256, 3)) + 5, policy)
    steps = 300
    for _ in range(steps):
        y = layer(x, training=True)
    assert y.dtype == policy
    assert layer.gamma.dtype == policy
    assert {w.dtype for w in layer.non_trainable_weights} == {"float32"}
    mean = tf.reduce_mean(tf.cast(x, "float32"), 0)
    np.testing.assert_allclose(layer.moving_mean, mean * (1 - 0.99**steps), rtol=1e-4)


def test_float64_stays_float64():
    x = np.random.default_rng(0).normal(size=(50, 3)) + 1e9
    layer = BatchNorm(dtype="float64", epsilon=0.0, momentum=0.0)
    y = layer(x, training=True)
    assert y.dtype == "float64" and layer.moving_variance.dtype == "float64"
    np.testing.assert_allclose(layer.moving_variance, x.var(0), rtol=1e-7)


def test_input_wider_than_the_layer():
    """`autocast=False` leaves the input as it is; it is computed in its own precision and given out in the layer's."""
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("float16")
    y = BatchNorm(autocast=False)(tf.constant(x), training=True)
    assert y.dtype == "float32"
    np.testing.assert_allclose(y, reference.algorithm_1(x, 1, 0, 1e-3, (0,)).y, atol=1e-5)


def test_large_integers_under_a_mixed_policy():
    """70,000 is no float16."""
    y = BatchNorm(dtype="mixed_float16")(tf.constant([[1], [70_000], [5]]), training=True)
    np.testing.assert_allclose(y[:, 0], [-0.7071, 1.4142, -0.7071], atol=1e-3)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers_are_numbers(dtype):
    x = np.random.default_rng(0).integers(0, 2, (20, 3)).astype(dtype)
    y = BatchNorm()(x, training=True)
    np.testing.assert_allclose(y, reference.algorithm_1(x, 1, 0, 1e-3, (0,)).y, rtol=1e-5)


def test_no_widened_copy_between_the_kernels():
    """In the graph of a training step, what lies between the kernels, forward to backward, is in the input's dtype."""
    layer = BatchNorm(dtype="mixed_bfloat16")
    layer.build((None, 8))
    signature = [tf.TensorSpec((1024, 8), "bfloat16")] * 2
    step = tf.function(lambda x, dy: train(layer, x, dy), autograph=False, input_signature=signature)
    outputs = [t for op in step.get_concrete_function().graph.get_operations() for t in op.outputs]
    full_size = [t for t in outputs if t.dtype.is_floating and t.shape.num_elements() == 1024 * 8]
    assert full_size
    assert {t.dtype.name for t in full_size} == {"bfloat16"}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_fit_with_a_mixed_policy(policy):
    layers = [keras.Input((8,)), keras.layers.Dense(16, dtype=policy), BatchNorm(dtype=policy), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if policy == "mixed_float16" else optimizer, "mse")
    random = np.random.default_rng(0)
    x = random.normal(size=(256, 8))
    losses = model.fit(x, x[:, :1], epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
