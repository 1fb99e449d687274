"""`PopulationStatistics`: when it recalibrates, and that statistics are there as long as their weights are."""

from functools import partial

import keras
import numpy as np
import pytest
from keras.callbacks import SwapEMAWeights

from kerasbn import BatchNorm
from kerasbn.callbacks import DropoutRemoval, PopulationStatistics

L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(2.0, 3.0, size=(48, 4)).astype("float32")
Y = X[:, :1]


def model_with(layer_class=L.BatchNormalization, **optimizer):
    keras.utils.set_random_seed(0)
    layers = [L.Dense(6, "relu"), layer_class(name="bn"), L.Dropout(0.2), L.Dense(1)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(keras.optimizers.SGD(0.01, **optimizer), "mse")
    return model


def statistics(model):
    layer = model.get_layer("bn")
    return np.stack([layer.moving_mean.numpy(), layer.moving_variance.numpy()])


def population(model):
    """The statistics of what the layer gets with the weights that are in the model now."""
    kernel, bias = (weight.numpy().astype("float64") for weight in model.layers[0].weights)
    hidden = np.maximum(X @ kernel + bias, 0)
    return np.stack([hidden.mean(0), hidden.var(0, ddof=1)])


class Look(keras.callbacks.Callback):
    """Notes at its places in a training whether statistics are those of the population, and the weights."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def look(self, place):
        kernel = self.model.layers[0].kernel.numpy()
        self.seen.append((place, statistics(self.model), population(self.model), kernel))

    def on_test_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.look("test")

    def on_epoch_end(self, epoch, logs=None):
        self.look("epoch")

    def on_train_end(self, logs=None):
        self.look("end")

    def of_population(self):
        return [(place, bool(np.allclose(found, wanted, rtol=1e-4))) for place, found, wanted, _ in self.seen]


def fit(model, *callbacks, epochs=2, validate=True):
    look = Look()
    data = {"validation_data": (X, Y)} if validate else {}
    model.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=[*callbacks, look], **data)
    return look


EVERY_SECOND = [("epoch", False), ("epoch", True), ("epoch", False), ("epoch", True), ("end", True)]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("end", [*[("test", False), ("epoch", False)] * 2, ("end", True)]),
        ("validation", [*[("test", True), ("epoch", True)] * 2, ("end", True)]),
        (2, EVERY_SECOND),
        (lambda epoch: epoch in (1, 3), EVERY_SECOND),
    ],
    ids=["end", "validation", "number", "function"],
)
def test_when(when, expected):
    callback = PopulationStatistics(X, when=when)
    validate = isinstance(when, str)
    look = fit(model_with(), callback, epochs=2 if validate else 4, validate=validate)
    assert look.of_population() == expected
    assert callback.report.samples == 48


def test_training_goes_on_as_without_it():
    """In training a normalization looks at no moving statistic."""
    plain, other = model_with(), model_with()
    losses = [
        model.fit(X, Y, batch_size=16, epochs=3, verbose=0, callbacks=callbacks).history["loss"]
        for model, callbacks in ((plain, []), (other, [PopulationStatistics(X, when=1)]))
    ]
    assert losses[0] == losses[1]
    for a, b in zip(plain.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("layer_class", "first"),
    [
        pytest.param(L.BatchNormalization, "swap", marks=pytest.mark.slow),
        (L.BatchNormalization, "statistics"),
        (partial(BatchNorm, jit_compile=False), "swap"),
    ],
    ids=["Keras", "Keras, out of order", "kerasbn"],
)
def test_averaged_weights_in_validation(layer_class, first):
    """The averaged weights have statistics of their own; the moving averages come back with the trained ones."""
    model = model_with(layer_class, use_ema=True, ema_momentum=0.8)
    callbacks = [SwapEMAWeights(), PopulationStatistics(X, when="validation")]
    look = fit(model, *(callbacks if first == "swap" else callbacks[::-1]))
    assert look.of_population()[:4] == [("test", True), ("epoch", False)] * 2
    for (_, _, _, averaged), (_, _, _, trained) in zip(look.seen[0:4:2], look.seen[1:4:2], strict=True):
        assert np.abs(averaged - trained).max() > 1e-4
    plain = model_with(layer_class, use_ema=True, ema_momentum=0.8)
    without = fit(plain, SwapEMAWeights())
    for i in (1, 3):  # what training made of them, untouched by what validation saw
        np.testing.assert_array_equal(look.seen[i][1], without.seen[i][1])


def test_averaged_weights_in_a_checkpoint(tmp_path):
    """The recipe of the docstring: what is validated is what is saved."""
    model = model_with(use_ema=True, ema_momentum=0.8)
    callbacks = [
        SwapEMAWeights(swap_on_epoch=True),
        PopulationStatistics(X, when="validation"),
        PopulationStatistics(X, when=1),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
    ]
    data = {"validation_data": (X, Y), "batch_size": 16, "epochs": 2, "verbose": 0}
    losses = model.fit(X, Y, **data, callbacks=callbacks).history["val_loss"]
    for epoch, loss in enumerate(losses, 1):
        saved = keras.models.load_model(tmp_path / f"{epoch}.keras")
        np.testing.assert_allclose(statistics(saved), population(saved), rtol=1e-4)
        assert saved.evaluate(X, Y, verbose=0) == pytest.approx(loss, rel=1e-4)


def test_averaged_weights_at_the_end():
    """An optimizer with `use_ema` leaves its averages in the model after the last epoch."""
    model = model_with(use_ema=True, ema_momentum=0.8)
    look = fit(model, PopulationStatistics(X), validate=False)
    assert look.of_population() == [("epoch", False), ("epoch", False), ("end", True)]
    assert np.abs(look.seen[1][3] - look.seen[2][3]).max() > 1e-4


def test_what_was_traced_is_kept_until_the_training_step_changes():
    traces = []

    class Traced(L.Layer):
        def call(self, x, training=False):
            if training:
                traces.append(1)
            return x

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), L.Dropout(0.5), L.BatchNormalization(name="bn"), Traced(), L.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, Y, batch_size=16, verbose=0)
    traces.clear()
    model.fit(X, Y, batch_size=16, epochs=3, verbose=0, callbacks=[PopulationStatistics(X, batch_size=16, when=1)])
    assert len(traces) == 1
    removal = DropoutRemoval(at=1)
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=[removal, PopulationStatistics(X, when=1)])
    np.testing.assert_allclose(model.get_layer("bn").moving_mean, X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.get_layer("bn").moving_variance, X.var(0, ddof=1), rtol=1e-5)


def test_layers_functions_of_data_and_evaluate():
    model = model_with()
    callback = PopulationStatistics(batches, when="validation", layers="bn", steps=2)
    before = model.evaluate(X, Y, verbose=0)
    after = model.evaluate(X, Y, verbose=0, callbacks=[callback])
    assert after != before and callback.report.batches == 2
    assert [each.layer.split("/")[-1] for each in callback.report.layers] == ["bn"]


def batches():
    yield from ((X[i : i + 16],) for i in (0, 16, 32))


def test_on_two_replicas(strategy):
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), L.BatchNormalization(name="bn"), L.Dense(1)])
        model.compile("sgd", "mse")
    model.fit(X, Y, batch_size=16, verbose=0, callbacks=[PopulationStatistics(X[:15], when="end")])
    for copy in strategy.experimental_local_results(model.get_layer("bn").moving_variance.value):
        np.testing.assert_allclose(copy, X[:15].var(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"when": "start"}, r"`when` must be 'end', 'validation', a number.*Received: when='start'"),
        ({"when": 0}, r"`when`.*Received: when=0"),
        ({"steps": 0}, r"`steps`.*Received: steps=0"),
        ({"batch_size": 1.5}, r"`batch_size`.*Received: batch_size=1.5"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PopulationStatistics(X, **arguments)


@pytest.mark.parametrize("another", ["model", "weights"])
def test_a_second_fit_keeps_what_was_loaded_or_recalibrated_before_it(another):
    first = model_with()
    callback = PopulationStatistics(X)
    fit(first, callback, validate=False)
    wanted = statistics(first)
    np.testing.assert_allclose(wanted, population(first), rtol=1e-4)
    if another == "model":
        fit(model_with(), callback, validate=False)
        np.testing.assert_array_equal(statistics(first), wanted)
        return
    first.layers[0].kernel.assign(2 * first.layers[0].kernel)
    first.get_layer("bn").moving_mean.assign([77.0] * 6)
    seen = []

    class Begin(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(float(first.get_layer("bn").moving_mean[0]))

    fit(first, callback, Begin(), epochs=1, validate=False)
    assert seen[0] == 77
