"""Dropout is gone when the training loss is that of inference: targets are what the model infers, and the rate is 0."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasbn.callbacks import DropoutRemoval, LearningRateAcceleration
from kerasbn.dropout import dropout_rates
from tests.crossing import crossed

RANDOM = np.random.default_rng(0)
HOW = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "xla, steps_per_execution": {"steps_per_execution": 2, "jit_compile": True},
}


def compiled(*stack, shape=(6,), **how):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(shape), *stack, layers.Flatten(), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", **how)
    return model


def fitted(model, *callbacks, epochs=3, **settings):
    """The training losses: 0 without dropout."""
    x = RANDOM.normal(size=(16, *model.input_shape[1:])).astype("float32")
    y = model.predict(x, verbose=0)
    settings = {"batch_size": 4, "verbose": 0, **settings}
    return model.fit(x, y, epochs=epochs, callbacks=list(callbacks), **settings).history


def removed(history):
    """In which epochs there was no dropout."""
    assert all(loss < 1e-9 or loss > 1e-5 for loss in history["loss"]), history
    return [epoch for epoch, loss in enumerate(history["loss"]) if loss < 1e-9]


class Own(layers.Layer):
    """Dropout in a list, in a dictionary, and as a number that is used as it is."""

    def __init__(self, dropout):
        super().__init__()
        self.some = [layers.Dense(6), {"dropout": layers.Dropout(0.5)}]
        self.dropout, self.seeds = dropout, keras.random.SeedGenerator(1)

    def build(self, shape):
        self.some[0].build(shape)

    def call(self, x, training=False):
        x = self.some[1]["dropout"](self.some[0](x), training=training)
        return keras.random.dropout(x, self.dropout, seed=self.seeds) if training else x


class Rated(layers.Layer):
    """A layer whose `rate` is a dropout that only its user knows."""

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x, training=False):
        return keras.random.dropout(x, self.rate, seed=self.seeds) if training else x


def nested():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5), layers.Dropout(0.5)], name="inner")
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.AlphaDropout(0.3)(inner(inputs)), name="outer")


def attention(layer):
    inputs = keras.Input((3, 4))
    arguments = ([inputs, inputs],) if isinstance(layer, layers.Attention) else (inputs, inputs)
    return keras.Model(inputs, layer(*arguments))


KINDS = {
    "SpatialDropout1D": ((3, 4), lambda: [layers.SpatialDropout1D(0.5)]),
    "SpatialDropout2D": ((2, 2, 4), lambda: [layers.SpatialDropout2D(0.5)]),
    "SpatialDropout3D": ((2, 2, 1, 4), lambda: [layers.SpatialDropout3D(0.5)]),
    "GaussianDropout": ((6,), lambda: [layers.GaussianDropout(0.5)]),
    "AlphaDropout": ((6,), lambda: [layers.AlphaDropout(0.5)]),
    "LSTM": ((3, 4), lambda: [layers.LSTM(5, dropout=0.5)]),
    "GRU": ((3, 4), lambda: [layers.GRU(5, recurrent_dropout=0.5)]),
    "Bidirectional": ((3, 4), lambda: [layers.Bidirectional(layers.SimpleRNN(5, dropout=0.3, recurrent_dropout=0.5))]),
    "cells": ((3, 4), lambda: [layers.RNN([layers.SimpleRNNCell(5, dropout=0.5), layers.SimpleRNNCell(5)])]),
    "ConvLSTM1D": ((3, 4, 2), lambda: [layers.ConvLSTM1D(2, 3, dropout=0.5)]),
    "TimeDistributed": ((3, 4), lambda: [layers.TimeDistributed(layers.Dropout(0.5))]),
    "MultiHeadAttention": ((3, 4), lambda: [attention(layers.MultiHeadAttention(2, 3, dropout=0.5))]),
    "GroupQueryAttention": ((3, 4), lambda: [attention(layers.GroupQueryAttention(2, 2, 1, dropout=0.5))]),
    "Attention": ((3, 4), lambda: [attention(layers.Attention(dropout=0.5))]),
    "nested": ((6,), lambda: [nested()]),
    "own": ((6,), lambda: [Own(0.3)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_dropout(kind):
    shape, stack = KINDS[kind]
    model = compiled(*stack(), shape=shape)
    removal = DropoutRemoval(at=1, put_back=True)
    history = fitted(model, removal, epochs=2)
    assert removed(history) == [1] and history["dropout"] == [history["dropout"][0], 0.0]
    assert removed(fitted(model, epochs=1)) == []  # put back


@pytest.mark.parametrize("how", HOW)
def test_takes_effect_in_every_mode(how):
    model = compiled(layers.Dropout(0.5), **HOW[how])
    assert removed(fitted(model, DropoutRemoval(at=1))) == [1, 2]
    assert model.layers[0].rate == 0.0
    assert removed(fitted(model)) == [0, 1, 2]  # stays away


def test_takes_effect_on_two_replicas(strategy):
    with strategy.scope():
        model = compiled(layers.Dropout(0.5))
    with DropoutRemoval(at=1) as removal:
        assert removed(fitted(model, removal)) == [1, 2]
    assert removed(fitted(model, epochs=1)) == []


def test_first_epoch_and_fit_again():
    model = compiled(layers.Dropout(0.5))
    removal = DropoutRemoval()
    assert removed(fitted(model, removal)) == [0, 1, 2]
    removal.restore()
    assert removed(fitted(model, epochs=1)) == []
    late = DropoutRemoval(at=2)
    assert removed(fitted(model, late)) == removed(fitted(model, late)) == [2]
    assert removed(fitted(model, late, initial_epoch=2)) == [0]  # the one epoch, number 2


def test_schedule_lowers_and_never_raises():
    first, second = layers.Dropout(0.5), layers.Dropout(0.2)
    model = compiled(first, layers.Dense(4), second, layers.Dropout(0.0))
    history = fitted(model, DropoutRemoval(at=lambda epoch: [1.0, 0.3, 0.1, 0.0][epoch]), epochs=4)
    assert history["dropout"] == [0.5, 0.3, 0.1, 0.0] and removed(history) == [3]
    with DropoutRemoval(to=0.3) as removal:
        first.rate, second.rate = 0.5, 0.2
        fitted(model, removal, epochs=1)
        assert (first.rate, second.rate) == (0.3, 0.2)
    assert (first.rate, second.rate) == (0.5, 0.2)


def test_the_step_is_traced_anew_for_changes_only():
    model = compiled(layers.Dropout(0.5))
    steps = []

    class Seen(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            steps.append(self.model.train_function)

    fitted(model, DropoutRemoval(at=2), Seen(), epochs=4)
    assert len({id(step) for step in steps}) == 2


def test_selection():
    named = layers.Dropout(0.5, name="classifier")
    model = compiled(nested(), layers.Dense(6), named, layers.Dense(3), Rated(0.4, name="mine"))

    def found(which=None):
        return {rate.layer.name: rate.original for rate in dropout_rates(model, which)}

    inner, alpha = model.get_layer("outer").get_layer("inner").layers[-1].name, model.get_layer("outer").layers[-1].name
    assert found() == {inner: 0.5, alpha: 0.3, "classifier": 0.5}
    assert found("classifier") == {"classifier": 0.5}
    assert found(["inner", "mine"]) == {inner: 0.5, "mine": 0.4}
    assert found(lambda layer: isinstance(layer, layers.AlphaDropout)) == {alpha: 0.3}
    with pytest.raises(ValueError, match=r"Received: layers='clasifier'; there is no 'clasifier'.*'classifier'.*"):
        found("clasifier")
    assert removed(fitted(model, DropoutRemoval(layers=["outer", "classifier", "mine"]), epochs=1)) == [0]


def test_selection_of_a_part_with_a_shared_layer():
    shared = layers.Dropout(0.5)
    ends = [keras.Sequential([keras.Input((6,)), layers.Dense(6), shared], name=name) for name in ("one", "two")]
    fitted(compiled(*ends), DropoutRemoval(layers="two"), epochs=1)
    assert shared.rate == 0


def test_noise_only_if_asked():
    model = compiled(layers.GaussianNoise(0.5))
    assert removed(fitted(model, DropoutRemoval(), epochs=1)) == []
    assert removed(fitted(model, DropoutRemoval(noise=True), epochs=1)) == [0]


def test_files_stay_loadable(tmp_path):
    model = compiled(layers.Dropout(0.5), layers.LSTM(3, dropout=0.5), shape=(2, 3))
    model.save_weights(tmp_path / "before.weights.h5")
    model.save(tmp_path / "before.keras")
    fitted(model, DropoutRemoval(), epochs=1)
    model.save_weights(tmp_path / "after.weights.h5")
    model.save(tmp_path / "after.keras")
    model.load_weights(tmp_path / "before.weights.h5")
    with_dropout, without = (keras.models.load_model(tmp_path / f"{name}.keras") for name in ("before", "after"))
    with_dropout.load_weights(tmp_path / "after.weights.h5")
    without.load_weights(tmp_path / "before.weights.h5")
    assert removed(fitted(with_dropout, epochs=1)) == [] and removed(fitted(without, epochs=1)) == [0]


class Logged(keras.callbacks.Callback):
    """Gives a metric the values of a list, and raises where one is an error."""

    def __init__(self, values, name="val_loss"):
        super().__init__()
        self.values, self.name = values, name

    def on_epoch_end(self, epoch, logs=None):
        if isinstance(self.values[epoch], BaseException):
            raise self.values[epoch]
        logs[self.name] = self.values[epoch]


def test_plateau():
    values = [3.0, 2.0, 1.95, 1.9, 1.0, 1.5, 1.5]
    model = compiled(layers.Dropout(0.5))
    removal = DropoutRemoval("plateau", patience=2, min_delta=0.2)
    assert removed(fitted(model, Logged(values), removal, epochs=7)) == [4, 5, 6]
    assert removed(fitted(model, Logged(values), removal, epochs=1)) == [0]  # remembered
    model = compiled(layers.Dropout(0.5))
    removal = DropoutRemoval("plateau", patience=1, monitor="accuracy", mode="max")
    assert removed(fitted(model, Logged([0.1, 0.2, 0.1, 0.0], "accuracy"), removal, epochs=4)) == [3]
    removal.restore()
    with pytest.warns(UserWarning, match=r"monitors 'val_loss', which is not in the logs.*'dropout', 'loss'"):
        fitted(model, DropoutRemoval("plateau"), epochs=1)


def test_another_model_begins_anew():
    """A plateau of the first model took the dropout of the second from its first epoch on."""
    first, second = compiled(layers.Dropout(0.5)), compiled(layers.Dropout(0.5))
    removal = DropoutRemoval("plateau", patience=1)
    assert removed(fitted(first, Logged([1.0, 2.0, 2.0]), removal)) == [2]
    assert removed(fitted(second, Logged([9.0, 8.0, 9.0, 9.0]), removal, epochs=4)) == [3]
    assert first.layers[0].rate == 0.0
    removal.restore()
    assert (first.layers[0].rate, second.layers[0].rate) == (0.0, 0.5)  # the last one's

    removal = DropoutRemoval(0, restore_if_worse=0.5)
    assert removed(fitted(compiled(layers.Dropout(0.5)), Logged([1.0, 3.0, 3.0]), removal)) == [0, 1]
    assert removed(fitted(second, Logged([1.0, 1.0, 1.0]), removal)) == [0, 1, 2]


@pytest.mark.parametrize("sign", [1, -1])
def test_restore_if_worse(sign):
    """Worse than the best by more than the margin; before the removal nothing is looked at; it returns for good."""
    values = [sign * value for value in (2.0, 4.0, 1.9, 2.3, 2.5, 1.0, 1.0)]
    model = compiled(layers.Dropout(0.5))
    removal = DropoutRemoval(2, restore_if_worse=0.5, mode="min" if sign > 0 else "max")
    assert removed(fitted(model, Logged(values), removal, epochs=7)) == [2, 3, 4]
    assert not removal.lowered and model.layers[0].rate == 0.5
    model, removal = compiled(layers.Dropout(0.5)), DropoutRemoval(1, restore_if_worse=0.7, mode=removal.mode)
    assert removed(fitted(model, Logged(values[2:]), removal, epochs=5)) == [1, 2, 3, 4]
    assert removal.lowered


def test_training_that_raises():
    """A `with` statement puts the rates back; `restore` does; and the next `fit` starts from the original ones."""
    model = compiled(layers.Dropout(0.5))
    with pytest.raises(KeyboardInterrupt), DropoutRemoval() as removal:
        fitted(model, removal, Logged([KeyboardInterrupt()]))
    assert model.layers[0].rate == 0.5
    assert removed(fitted(model, epochs=1)) == []
    removal = DropoutRemoval(1, put_back=True)
    with pytest.raises(KeyboardInterrupt):
        fitted(model, removal, Logged([1.0, KeyboardInterrupt()]))
    assert model.layers[0].rate == 0.0 and removal.lowered
    assert removed(fitted(model, removal)) == [1, 2]
    assert model.layers[0].rate == 0.5
    removal.restore()
    assert removed(fitted(model, epochs=1)) == []


def test_backup(tmp_path):
    """A resumed training has the rates of the epoch that it resumes with."""
    for expected in ([], [0, 1]):
        model = compiled(layers.Dropout(0.5))
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        interruption = Logged([1.0, 1.0, KeyboardInterrupt()], "none") if not expected else keras.callbacks.Callback()
        try:
            assert removed(fitted(model, DropoutRemoval(at=1), interruption, backup, epochs=4)) == expected
        except KeyboardInterrupt:
            continue


@pytest.mark.parametrize(("order", "schedule"), crossed([1, -1], [False, True]))
def test_together_with_acceleration(order, schedule):
    """Each has the step made anew, and neither loses the other."""
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([10**6], [0.25, 0.0]) if schedule else 0.25
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, kernel_initializer="zeros", use_bias=False)])
    model.add(layers.Dropout(0.5))
    model.compile(keras.optimizers.SGD(rate), "mse")
    callbacks = [LearningRateAcceleration(2.0, 1.0), DropoutRemoval(at=1)][::order]
    kernel = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: kernel.append(model.get_weights()[0].item()))
    model.fit(np.ones((1, 1)), np.ones((1, 1)), epochs=3, callbacks=[*callbacks, note], verbose=0)
    assert kernel[1:] == [1.0, 1.0]  # A step of 0.5 is Newton's, without dropout: from anywhere to the minimum.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": -1}, r"`at` must be an epoch.*or 'plateau'. Received: at=-1"),
        ({"at": "end"}, r"`at`.*Received: at='end'"),
        ({"to": 1.5}, r"`to` must be a number from 0 to 1. Received: to=1.5"),
        ({"mode": "auto"}, r"`mode` must be one of 'min', 'max'. Received: mode='auto'"),
        ({"patience": 0}, r"`patience` must be an integer not below 1. Received: patience=0"),
        ({"min_delta": -1}, r"`min_delta`.*Received: min_delta=-1"),
        ({"restore_if_worse": -0.1}, r"`restore_if_worse`.*Received: restore_if_worse=-0.1"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DropoutRemoval(**arguments)


def test_model_that_is_not_built():
    """Layers make their dropout when they are built, so it could be missed."""
    model = keras.Sequential([layers.Dropout(0.5), layers.Dense(1)], name="raw")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"must be built before training.*Received: 'raw'.*keras.Input"):
        model.fit(np.ones((4, 1)), np.ones((4, 1)), callbacks=[DropoutRemoval()], verbose=0)


def test_a_function_that_gives_no_rate():
    with pytest.raises(ValueError, match=r"`at\(0\)` must be a number from 0 to 1. Received: at\(0\)=2"):
        fitted(compiled(layers.Dropout(0.5)), DropoutRemoval(at=lambda epoch: 2))
