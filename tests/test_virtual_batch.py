"""`virtual_batch_size`: ghost batch normalization, against the same layer on one group after the other."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from tests.cases import WAYS, in_mode, train
from tests.crossing import crossed, first_of

SIZE = 4


def batch(samples):
    random = np.random.default_rng(samples)
    return (random.normal(size=(samples, 5, 3)) * random.normal(size=(samples, 1, 3)) + 5).astype("float32")


def group_by_group(x, dy, **settings):
    """Output, gradients, weights of the plain layer called on each group; gradients of weights are sums."""
    layer = BatchNorm(momentum=0.7, **settings)
    layer.build(x.shape)
    results = [train(layer, x[i : i + SIZE], dy[i : i + SIZE]) for i in range(0, len(x), SIZE)]
    y, dx, *sums = zip(*results, strict=True)
    return [np.concatenate(y), np.concatenate(dx), *(np.sum(s, 0) for s in sums)], layer.get_weights()


@pytest.mark.parametrize(("samples", "way", "known"), crossed([16, 13, 4, 3, 1, 9], WAYS, [True, False]))
def test_equals_one_group_after_the_other(samples, way, known):
    """Whatever remains, and whether or not the graph knows the size of the batch."""
    mode, jit_compile = way
    x, dy = batch(samples), np.random.default_rng(1).normal(size=(samples, 5, 3)).astype("float32")
    layer = BatchNorm(momentum=0.7, virtual_batch_size=SIZE, jit_compile=jit_compile)
    layer.build(x.shape)
    spec = ((samples if known else None, 5, 3), "float32")
    found = in_mode(mode, lambda x, dy: train(layer, x, dy), spec, spec)(tf.constant(x), tf.constant(dy))
    wanted, weights = group_by_group(x, dy)
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-5)
    for a, b in zip(weights, layer.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_a_mask_that_knows_the_size_of_the_batch():
    """A graph that does not know it from the input has no branch for a batch that divides."""
    layer, x, mask = BatchNorm(virtual_batch_size=SIZE), batch(6), np.arange(30).reshape(6, 5) % 3 > 0
    layer.build(x.shape)
    found = in_mode("graph", lambda x: train(layer, x, mask=mask)[0], ((None, 5, 3), "float32"))(x)
    np.testing.assert_allclose(found, BatchNorm(virtual_batch_size=SIZE)(x, training=True, mask=mask), atol=1e-5)


@pytest.mark.parametrize("channels", first_of([4, 3]))
def test_bfloat16_of_several_batch_sizes(channels):
    """Two at a time where channels are even. With the second size TensorFlow no longer knows the number of groups."""
    layer = BatchNorm(virtual_batch_size=SIZE, dtype="mixed_bfloat16", jit_compile=True)
    for samples in (8, 13, 16):
        x = tf.cast(np.random.default_rng(samples).normal(5, 3, size=(samples, channels)), "bfloat16")
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        dx = tape.gradient(y, x, output_gradients=x)
        assert y.shape == dx.shape == x.shape
        for i in range(0, samples, SIZE):
            group = np.asarray(x[i : i + SIZE], "float64")
            wanted = (group - group.mean(0)) / np.sqrt(group.var(0) + 1e-3)
            np.testing.assert_allclose(np.asarray(y[i : i + SIZE], "float64"), wanted, atol=0.02)
            assert np.all(np.isfinite(np.asarray(dx, "float64")))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_empty_batch_moves_nothing(way):
    mode, jit_compile = way
    layer = BatchNorm(virtual_batch_size=SIZE, jit_compile=jit_compile)
    layer.build((None, 3))
    before = layer.get_weights()
    y, dx, dgamma, _ = in_mode(mode, lambda x, dy: train(layer, x, dy), *[((None, 3), "float32")] * 2)(
        tf.zeros([0, 3]), tf.zeros([0, 3])
    )
    assert y.shape == dx.shape == (0, 3)
    np.testing.assert_array_equal(dgamma, 0)
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(b, a)


def test_a_group_that_is_masked_out_moves_nothing():
    x = batch(8)
    mask = np.repeat([True, False], SIZE)[:, None] & np.ones((8, 5), bool)
    half, whole = (BatchNorm(momentum=None, virtual_batch_size=SIZE) for _ in range(2))
    half(x[:SIZE], training=True)
    whole(x, training=True, mask=mask)
    for a, b in zip(half.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6)
    np.testing.assert_array_equal(whole.moving_count, 1)


def test_each_group_has_mean_0():
    y = BatchNorm(virtual_batch_size=SIZE)(batch(16), training=True)
    means = tf.reduce_mean(tf.reshape(y, [4, SIZE * 5, 3]), 1)
    np.testing.assert_allclose(means, 0, atol=1e-6)
    assert np.abs(tf.reduce_mean(BatchNorm()(batch(16), training=True)[:SIZE], (0, 1))).max() > 0.1


def test_inference_does_not_know_groups():
    x = batch(6)
    np.testing.assert_array_equal(BatchNorm(virtual_batch_size=SIZE)(x), BatchNorm()(x))


@pytest.mark.parametrize("jit_compile", first_of([False, True]))
def test_fit_with_a_remainder(jit_compile):
    keras.utils.set_random_seed(0)
    normalize = BatchNorm(virtual_batch_size=8, activation="relu")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8), normalize, keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=jit_compile)
    x = np.random.default_rng(0).normal(size=(77, 5))
    losses = model.fit(x, x[:, :1], batch_size=32, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_on_replicas(strategy):
    """Each replica has groups, and a remainder, of its own."""
    x = batch(20)[:, 0]
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), BatchNorm(virtual_batch_size=4), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    before = model.layers[0].get_weights()
    history = model.fit(x, x[:, :1], batch_size=20, epochs=3, verbose=0, shuffle=False).history["loss"]
    assert np.isfinite(history).all() and history[-1] < history[0]
    assert not np.allclose(before[2], model.layers[0].get_weights()[2])


@pytest.mark.parametrize("value", [0, -3, 2.5, "8", True])
def test_bad_size(value):
    with pytest.raises(ValueError, match=f"`virtual_batch_size` must be an integer not below 1.*{value!r}"):
        BatchNorm(virtual_batch_size=value)


def test_not_with_synchronized():
    with pytest.raises(ValueError, match=r"must be None if `synchronized` is True.*virtual_batch_size=4"):
        BatchNorm(virtual_batch_size=4, synchronized=True)


def test_not_along_the_batch():
    with pytest.raises(ValueError, match=r"averaged over.*virtual_batch_size=4, axis=0"):
        BatchNorm(virtual_batch_size=4, axis=0).build((8, 5, 3))


def test_axis_of_a_file_of_tensorflow_2():
    """Its layer counted the axis of the groups."""
    layer = BatchNorm.from_config({"axis": [4], "momentum": 0.99, "epsilon": 0.001, "virtual_batch_size": 4})
    for use in (layer.build, layer.compute_output_shape):
        with pytest.raises(ValueError, match=r"axis=\[4\]. If this is from a file of TensorFlow 2.* by \[3\]"):
            use((None, 8, 8, 3))
    with pytest.raises(ValueError, match=r"Received: axis=4.$"):
        BatchNorm(axis=4, virtual_batch_size=4).build((None, 8, 8, 3))
    with pytest.raises(ValueError, match=r"Received: axis=\[4\].$"):
        BatchNorm(axis=[4]).build((None, 8, 8, 3))
