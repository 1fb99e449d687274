"""Models with a `train_step` and no `call`, such as a GAN: errors that can be followed, and the way that they name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn
from kerasbn import monitors
from kerasbn.callbacks import PopulationStatistics

L = keras.layers
X = np.random.default_rng(0).normal(2.0, 3.0, (64, 4)).astype("float32")


class Gan(keras.Model):
    """Two networks; the first is trained to give what the second calls 0."""

    def __init__(self):
        super().__init__(name="gan")
        layers = [L.Dense(5, name="hidden"), kerasbn.BatchNorm(name="bn"), L.ReLU(), L.Dense(4)]
        self.generator = keras.Sequential([keras.Input((4,)), *layers], name="generator")
        self.discriminator = keras.Sequential([keras.Input((4,)), L.Dense(1)], name="discriminator")

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.discriminator(self.generator(data, training=True)) ** 2)
        weights = self.generator.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


@pytest.fixture
def gan():
    keras.utils.set_random_seed(0)
    model = Gan()
    model.compile("sgd")
    return model


NAMES_THE_PARTS = r"`model`.*'gan' of class Gan, which has no `call`.*inner model.*'generator' or 'discriminator'"


@pytest.mark.parametrize(
    "function",
    [
        lambda model: kerasbn.recalibrate(model, X),
        lambda model: kerasbn.diagnose(model, X),
        lambda model: monitors.activation_statistics(model, X, ["hidden"]),
        lambda model: monitors.gradient_statistics(model, X, X, ["hidden"]),
        lambda model: PopulationStatistics(X, model=model),
        lambda model: monitors.ActivationStatistics(X, ["hidden"], model=model),
    ],
    ids=["recalibrate", "diagnose", "activations", "gradients", "callback", "monitor"],
)
@pytest.mark.parametrize("trained", [True, False])
def test_the_error_says_to_hand_in_the_inner_model(gan, function, trained):
    if trained:
        gan.fit(X, verbose=0)
    with pytest.raises(ValueError, match=NAMES_THE_PARTS):
        function(gan)
    assert kerasbn.recalibrate(gan.generator, X).samples == 64
    assert kerasbn.diagnose(gan.generator, X).samples == 64


MONITORS = {
    "ActivationStatistics": lambda **given: monitors.ActivationStatistics(X, ["hidden"], **given),
    "ActivationPercentiles": lambda **given: monitors.ActivationPercentiles(X, ["hidden"], **given),
    "CovariateShift": lambda **given: monitors.CovariateShift(X, ["hidden"], **given),
    "GradientStatistics": lambda **given: monitors.GradientStatistics(X, X, ["hidden"], **given),
    "PopulationStatistics": lambda **given: PopulationStatistics(X, **given),
}


@pytest.mark.parametrize("callback", MONITORS.values(), ids=MONITORS)
def test_a_callback_says_so_before_the_first_step_and_takes_the_inner_model(gan, callback):
    before = gan.get_weights()
    with pytest.raises(ValueError, match=NAMES_THE_PARTS + ".*argument `model`"):
        gan.fit(X, verbose=0, callbacks=[callback()])
    for weight, old in zip(gan.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    gan.generator.compile("sgd", "mse")  # whose gradients are looked at
    inner = callback(model=gan.generator)
    gan.fit(X, verbose=0, callbacks=[inner])
    if isinstance(inner, PopulationStatistics):
        assert inner.report.samples == 64
        layer, weights = gan.generator.get_layer("bn"), gan.generator.get_layer("hidden").get_weights()
        np.testing.assert_allclose(layer.moving_mean, X.mean(0) @ weights[0] + weights[1], rtol=1e-4, atol=1e-4)
    else:
        assert [row["step"] for row in inner.history] == [0, 2]


def test_population_statistics_of_a_part_before_validation(gan):
    """In the middle of a training, with weights that go on."""
    callback = PopulationStatistics(X, when=1, model=gan.generator)
    gan.fit(X, epochs=3, verbose=0, callbacks=[callback])
    assert callback.report.samples == 64


def test_a_model_in_python_code_is_told_about_inner_models():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x):
            return self.dense(x)

    own = Own()
    own(X)
    with pytest.raises(ValueError, match=r"must be functional or Sequential.*inner model"):
        monitors.activation_statistics(own, X, ["dense"])
