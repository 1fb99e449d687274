"""`activation=`: what a layer of its own behind this one gives, and less to keep."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm, callbacks, find_learning_rate
from kerasbn.layers.batch_norm import FUSED_ACTIVATIONS
from tests.cases import WAYS, in_mode, train
from tests.crossing import crossed

ACTIVATIONS = ["relu", "relu6", "leaky_relu", "sigmoid", "tanh", "gelu", "softmax", "linear", None]
SHAPE = (6, 5, 4)


@pytest.mark.parametrize(("activation", "way"), crossed(ACTIVATIONS, WAYS))
def test_equals_a_layer_of_its_own(activation, way):
    mode, jit_compile = way
    random = np.random.default_rng(0)
    x, dy = random.normal(size=(2, *SHAPE)).astype("float32")
    together, apart = (BatchNorm(activation=each, jit_compile=jit_compile) for each in (activation, None))
    for layer in (together, apart):
        layer.build(SHAPE)
        layer.gamma.assign([0.5, -1.0, 2.0, 5.0])
        layer.beta.assign([0.1, 0.2, -0.3, 2.0])
    after = keras.layers.Activation(activation or "linear")
    found = in_mode(mode, lambda x: train(together, x, dy))(tf.constant(x))

    class Apart:
        gamma, beta = apart.gamma, apart.beta

        def __call__(self, x, training, mask):
            return after(apart(x, training=training))

    wanted = in_mode(mode, lambda x: train(Apart(), x, dy))(tf.constant(x))
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)
    for a, b in zip(apart.get_weights(), together.get_weights(), strict=True):
        np.testing.assert_array_equal(b, a)
    np.testing.assert_allclose(together(x), after(apart(x)), rtol=1e-6, atol=1e-6)


def test_a_constant_channel_has_the_gradient_of_its_beta():
    """It lies on the kink where beta is 0; the derivative of ReLU is 0 there, as in Keras."""
    x = tf.ones([8, 3]) * 1e6
    layer = BatchNorm(activation="relu")
    layer.build(x.shape)
    layer.beta.assign([-1.0, 0.0, 1.0])
    y, _, _, dbeta = in_mode("graph", lambda x: train(layer, x, tf.ones_like(x)))(x)
    np.testing.assert_array_equal(y[0], [0, 0, 1])
    np.testing.assert_array_equal(dbeta, [0, 0, 8])


@pytest.mark.parametrize("activation", [f.__name__ for f in FUSED_ACTIVATIONS])
def test_nothing_is_kept_for_the_backward_pass_but_the_input(activation):
    layer = BatchNorm(activation=activation)
    layer.build((None, 8))
    signature = [tf.TensorSpec((1024, 8), "float32")] * 2
    step = tf.function(lambda x, dy: train(layer, x, dy), autograph=False, input_signature=signature)
    operations = step.get_concrete_function().graph.get_operations()
    calls = [op for op in operations if op.type == "PartitionedCall"]
    full_size = [sum(t.shape.num_elements() == 1024 * 8 for t in op.inputs) for op in calls]
    assert sorted(full_size) == [1, 2]  # forward: x; backward: x and dy
    outside = [op for op in operations if op not in calls and op.type != "PlaceholderWithDefault"]
    assert not any("elu" in op.type for op in outside)


@pytest.mark.parametrize("activation", ["relu", "gelu", keras.layers.LeakyReLU(0.3), keras.layers.ReLU()])
def test_file(activation, tmp_path):
    model = keras.Sequential([keras.Input((4,)), BatchNorm(activation=activation)])
    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    np.testing.assert_array_equal(loaded(x), model(x))


def test_weights_are_those_of_separate_layers(tmp_path):
    apart = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.ReLU()])
    apart.layers[0].moving_mean.assign([1, 2, 3, 4])
    apart.save_weights(tmp_path / "m.weights.h5")
    together = keras.Sequential([keras.Input((4,)), BatchNorm(activation="relu")])
    together.load_weights(tmp_path / "m.weights.h5")
    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    np.testing.assert_allclose(together(x), apart(x), rtol=1e-5, atol=1e-6)


def test_half_precision_is_rounded_once():
    x = tf.cast(np.random.default_rng(0).normal(size=(64, 8)), "bfloat16")
    together, apart = BatchNorm(activation="relu", dtype="mixed_bfloat16"), BatchNorm(dtype="mixed_bfloat16")
    y = together(x, training=True)
    assert y.dtype == "bfloat16"
    np.testing.assert_array_equal(tf.cast(y, "float32"), tf.cast(tf.nn.relu(apart(x, training=True)), "float32"))


def test_unknown():
    with pytest.raises(ValueError, match="reluu"):
        BatchNorm(activation="reluu")


def test_a_layer_with_weights_is_built_with_the_model(tmp_path):
    """Keras knows the output's shape without a call: a file is loaded and an optimizer built before there was one."""

    def made():
        layers = [keras.layers.Dense(3), BatchNorm(activation=keras.layers.PReLU("he_normal"), name="bn")]
        return keras.Sequential([keras.Input((4,)), *layers])

    model = made()
    names = [weight.path.split("/")[-1] for weight in model.get_layer("bn").weights]
    assert names == ["gamma", "beta", "moving_mean", "moving_variance", "alpha"] and len(model.weights) == 7
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = made()
    loaded.load_weights(tmp_path / "model.weights.h5")
    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    np.testing.assert_array_equal(loaded(x), model(x))
    model.compile("sgd", "mse")
    callback = callbacks.LearningRateAcceleration(1.0, on_divergence="backoff")
    model.fit(x, x[:, :3], verbose=0, callbacks=[callback])
    find_learning_rate(model, (x, x[:, :3]), rates=5)
