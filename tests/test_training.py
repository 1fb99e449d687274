"""Keras's training loop in all its settings: a model with kerasbn ends where the same model with Keras's layer ends."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from tests.crossing import crossed

RANDOM = np.random.default_rng(0)
X = (RANDOM.normal(size=(80, 6)) * 3 + 5).astype("float32")
Y = (X @ RANDOM.normal(size=(6, 2))).astype("float32")


class Subclassed(keras.Model):
    def __init__(self, layer_class):
        super().__init__()
        self.dense, self.bn, self.out = keras.layers.Dense(8), layer_class(momentum=0.8), keras.layers.Dense(2)

    def call(self, x, training=None):
        return self.out(keras.ops.tanh(self.bn(self.dense(x), training=training)))


def sequential(layer_class):
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(8),
        layer_class(momentum=0.8),
        keras.layers.ReLU(),
        keras.layers.Dense(2),
    ]
    return keras.Sequential(layers)


def functional(layer_class):
    inputs = keras.Input((6,))
    x = layer_class(momentum=0.8)(keras.layers.Dense(8)(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Activation("tanh")(x)))


def shared(layer_class):
    """One layer called twice: two updates of its statistics in a step."""
    inputs = keras.Input((6,))
    bn = layer_class(momentum=0.8)
    x = bn(keras.layers.Dense(8)(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(bn(keras.layers.Dense(8, activation="tanh")(x))))


def nested(layer_class):
    inner = functional(layer_class)
    return keras.Sequential([keras.Input((6,)), layer_class(momentum=0.8), inner, keras.layers.Dense(2)])


def regularized(layer_class):
    bn = layer_class(gamma_regularizer="l2", beta_regularizer=keras.regularizers.L1(0.01), gamma_constraint="non_neg")
    return keras.Sequential([keras.Input((6,)), bn, keras.layers.Dense(2)])


def renormalized(layer_class):
    bn = layer_class(renorm=True, renorm_clipping={"rmax": 1.5, "dmax": 1.0}, renorm_momentum=0.7)
    return keras.Sequential([keras.Input((6,)), bn, keras.layers.Dense(2)])


BUILDERS = [sequential, functional, Subclassed, shared, nested, regularized, renormalized]
COMPILE = {
    "graph": {},
    "xla": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "steps_per_execution": {"steps_per_execution": 2},
    "xla, steps_per_execution": {"steps_per_execution": 2, "jit_compile": True},
}


def trained(build, layer_class, how, optimizer=None, epochs=2):
    keras.utils.set_random_seed(1)
    model = build(layer_class)
    model.compile(optimizer or keras.optimizers.SGD(0.01, momentum=0.9), "mse", **COMPILE[how])
    losses = model.fit(X, Y, batch_size=24, epochs=epochs, verbose=0).history["loss"]  # 24, 24, 24, 8
    return model, losses


@pytest.mark.parametrize(("build", "how"), crossed(BUILDERS, COMPILE))
def test_fit_ends_where_keras_ends(build, how):
    theirs, their_losses = trained(build, keras.layers.BatchNormalization, how)
    ours, our_losses = trained(build, BatchNorm, how)
    np.testing.assert_allclose(our_losses, their_losses, rtol=1e-4)
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ours.predict(X, verbose=0), theirs.predict(X, verbose=0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(ours.evaluate(X, Y, verbose=0), theirs.evaluate(X, Y, verbose=0), rtol=1e-3)


def test_gradient_accumulation():
    """Statistics move at every step, weights at every second."""
    results = []
    for layer_class in (keras.layers.BatchNormalization, BatchNorm):
        model, _ = trained(sequential, layer_class, "graph", keras.optimizers.SGD(0.01, gradient_accumulation_steps=2))
        results.append(model.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)


def test_train_on_batch_and_test_on_batch():
    results = []
    for layer_class in (keras.layers.BatchNormalization, BatchNorm):
        keras.utils.set_random_seed(1)
        model = sequential(layer_class)
        model.compile("sgd", "mse")
        results.append([model.train_on_batch(X[:n], Y[:n]) for n in (16, 16, 5)] + [model.test_on_batch(X, Y)])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4)


def test_layer_by_itself_in_a_tf_function_and_a_custom_loop():
    model = sequential(BatchNorm)
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    losses = [float(step(X, Y)) for _ in range(20)]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("when", "how"), crossed(["before compile", "after compile", "compiled again"], ["graph", "xla", "eager"])
)
def test_trainable_false(when, how):
    """A frozen layer infers and learns nothing; a change after `compile` waits for the next one, as in Keras."""
    results = []
    for layer_class in (keras.layers.BatchNormalization, BatchNorm):
        keras.utils.set_random_seed(1)
        model = sequential(layer_class)
        bn = model.layers[1]
        if when == "before compile":
            bn.trainable = False
        model.compile("sgd", "mse", **COMPILE[how])
        if when != "before compile":
            model.fit(X, Y, batch_size=40, verbose=0)
            bn.trainable = False
        if when == "compiled again":
            model.compile("sgd", "mse", **COMPILE[how])
        before = bn.get_weights()
        model.fit(X, Y, batch_size=40, verbose=0)
        frozen = all((a == b).all() for a, b in zip(before, bn.get_weights(), strict=True))
        results.append((frozen, model.get_weights()))
        assert frozen or when == "after compile"
        assert len(bn.trainable_weights) == 0 and len(bn.non_trainable_weights) == 4
    assert results[0][0] == results[1][0]
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)


def test_frozen_layer_uses_moving_statistics_in_training_mode():
    layer = BatchNorm(trainable=False)
    np.testing.assert_array_equal(layer(X, training=True), layer(X, training=False))


@pytest.mark.parametrize("training", [None, False, True])
def test_training_argument(training):
    layer, keras_layer = BatchNorm(), keras.layers.BatchNormalization()
    np.testing.assert_allclose(layer(X, training=training), keras_layer(X, training=training), rtol=1e-5, atol=1e-5)
    moved = not np.array_equal(layer.moving_mean, np.zeros(6))
    assert moved == (training is True)


def test_stateless_call():
    layer = BatchNorm(momentum=0.0)
    layer.build(X.shape)
    before = [w.value for w in layer.non_trainable_weights]
    y, after = layer.stateless_call([w.value for w in layer.trainable_weights], before, X, training=True)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(6))  # nothing outside was touched
    np.testing.assert_allclose(after[0], X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(y, layer(X, training=True), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("shape", [(0, 3), (0, 4, 5, 3)])
def test_empty_batch(shape, jit_compile):
    for settings in ({}, {"renorm": True}, {"momentum": None}, {"unbiased": True}):
        layer = BatchNorm(jit_compile=jit_compile, **settings)
        layer.build(shape)
        before = layer.get_weights()
        with tf.GradientTape() as tape:
            y = layer(tf.zeros(shape), training=True)
        gradients = tape.gradient(y, [layer.gamma.value, layer.beta.value])
        assert y.shape == shape
        assert all((g.numpy() == 0).all() for g in gradients)
        for a, b in zip(before, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("settings", [{}, {"unbiased": True}, {"renorm": True}, {"momentum": None}], ids=str)
def test_one_sample(settings):
    layer = BatchNorm(**settings)
    y = layer(X[:1], training=True)
    assert np.isfinite(y).all() and all(np.isfinite(w).all() for w in layer.get_weights())
    if "renorm" not in settings:
        np.testing.assert_allclose(y, np.zeros((1, 6)), atol=1e-6)


def test_deterministic():
    """With op determinism on, two runs are equal to the bit. In a process of its own: it cannot be turned off again."""
    program = """
import numpy, tensorflow as tf
from tests import test_training as t
tf.config.experimental.enable_op_determinism()
runs = [t.trained(t.functional, t.BatchNorm, how)[0].get_weights() for how in ("graph", "graph", "eager", "eager")]
for one, two in (runs[:2], runs[2:]):
    assert all(numpy.array_equal(a, b) for a, b in zip(one, two, strict=True))
print("equal")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=200, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.endswith("equal\n"), done.stderr


def test_inside_a_dataset():
    layer = BatchNorm()
    layer.build((None, 6))
    dataset = tf.data.Dataset.from_tensor_slices(X).batch(16).map(lambda x: layer(x, training=False))
    np.testing.assert_allclose(np.concatenate(list(dataset)), layer(X), rtol=1e-6)


def test_isinstance_of_keras_layer():
    assert isinstance(BatchNorm(), keras.layers.BatchNormalization)
