"""What cannot work over replicas says so in a sentence."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn
from kerasbn import BatchNorm

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")


@pytest.fixture
def layer(strategy):
    with strategy.scope():
        layer = BatchNorm(synchronized=True)
        layer.build((None, 6))
    return layer


NO_XLA = r"`jit_compile`.*must not be True for several replicas on CPUs.*jit_compile=True and 2 replicas\. Set.*'auto'"


@pytest.mark.parametrize("synchronized", [False, True])
def test_xla_around_several_cpus(strategy, synchronized):
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), BatchNorm(synchronized=synchronized), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=True)
    with pytest.raises(ValueError, match=NO_XLA):
        model.fit(X, X[:, :1], verbose=0)


def test_xla_in_the_step_of_a_replica(strategy, layer):
    """Where TensorFlow's own strategy, which knows nothing of it, is in charge, the layer says it."""
    step = tf.function(lambda: layer(tf.constant(X), training=True), jit_compile=True, autograph=False)
    with pytest.raises(ValueError, match=NO_XLA):
        tf.function(lambda: strategy.run(step), autograph=False)()


OUTSIDE = "`synchronized=True` was called for training outside of the 2 replicas.*strategy.run"


def test_training_in_the_cross_replica_context(strategy, layer):
    with strategy.scope():
        with pytest.raises(ValueError, match=OUTSIDE):
            layer(X, training=True)
        with pytest.raises(tf.errors.InvalidArgumentError, match=OUTSIDE):
            tf.function(lambda: layer(tf.constant(X), training=True), autograph=False)()
        layer(X, training=False)


def test_a_functional_model_may_be_built_in_training_mode_in_the_scope(strategy):
    with strategy.scope():
        inputs = keras.Input((6,))
        model = keras.Model(inputs, BatchNorm(synchronized=True)(inputs, training=True))
    assert model.output_shape == (None, 6)


def test_parameter_servers_have_no_joined_batch(monkeypatch):
    layer = BatchNorm(synchronized=True)
    servers = object.__new__(tf.distribute.experimental.ParameterServerStrategy)  # a real one needs three processes
    layer.build((None, 6))
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: servers)
    with pytest.raises(ValueError, match=r"`synchronized` must be False under ParameterServerStrategy.*Use Mirrored"):
        layer(X, training=True)


def test_joined_loss_needs_a_loss_with_a_mean():
    with pytest.raises(ValueError, match=r"`loss` must be a keras.losses.Loss.*instead of 'mse'.*loss='mse'"):
        kerasbn.distribute.JoinedLoss("mse")
    with pytest.raises(ValueError, match=r"`loss` must have one of these as its `reduction`.*reduction='sum'"):
        kerasbn.distribute.JoinedLoss(keras.losses.MeanSquaredError(reduction="sum"))
