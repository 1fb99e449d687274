"""`freeze` and `unfreeze`: inference mode in training, and the way back to what was."""

import gc
import weakref
from functools import partial

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, freeze, unfreeze
from tests.crossing import crossed

L = keras.layers
CLASSES = [L.BatchNormalization, partial(BatchNorm, jit_compile=False)]
X = np.random.default_rng(0).normal(2.0, 3.0, (32, 4)).astype("float32")


def model_with(layer_class, compiled=True):
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((4,)), layer_class(name="inner"), L.Dense(4, name="dense")], name="nested")
    model = keras.Sequential([keras.Input((4,)), inner, layer_class(name="outer"), L.Dense(1, name="last")])
    if compiled:
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
        model.fit(X, X[:, :1], verbose=0)
    return model


def norms(model):
    return [model.get_layer("nested").get_layer("inner"), model.get_layer("outer")]


def moved(model, steps=1):
    """The names of the weights that training moves."""
    before = model.get_weights()
    model.fit(X, X[:, :1], batch_size=8, epochs=steps, verbose=0)
    pairs = zip(model.weights, before, strict=True)
    return {"/".join(w.path.split("/")[-2:]) for w, old in pairs if not np.array_equal(w, old)}


DENSE = {f"{layer}/{weight}" for layer in ("dense", "last") for weight in ("kernel", "bias")}
PARAMETERS = {f"{layer}/{weight}" for layer in ("inner", "outer") for weight in ("gamma", "beta")}
STATISTICS = {f"{layer}/moving_{weight}" for layer in ("inner", "outer") for weight in ("mean", "variance")}


@pytest.mark.parametrize("layer_class", CLASSES)
def test_what_moves(layer_class):
    """In a model that is compiled and traced already; frozen in one way after the other; and put back."""
    model = model_with(layer_class)
    everything = moved(model)
    assert everything >= DENSE - {"dense/bias"} | PARAMETERS | STATISTICS
    freeze(model)
    assert moved(model) == DENSE
    freeze(model, parameters=False)
    assert moved(model) == DENSE | PARAMETERS
    freeze(model)
    assert moved(model) == DENSE
    unfreeze(model)
    assert moved(model) >= DENSE - {"dense/bias"} | PARAMETERS | STATISTICS


@pytest.mark.parametrize(("layer_class", "parameters"), crossed(CLASSES, [True, False]))
def test_training_computes_what_inference_does(layer_class, parameters):
    model = model_with(layer_class)
    other = model_with(layer_class)
    freeze(model, parameters=parameters)
    np.testing.assert_array_equal(model(X, training=True), model(X))
    np.testing.assert_array_equal(model.predict(X, verbose=0), other.predict(X, verbose=0))
    loss = model.fit(X, X[:, :1], batch_size=32, verbose=0).history["loss"]
    assert loss[0] == pytest.approx(other.evaluate(X, X[:, :1], batch_size=32, verbose=0), rel=1e-5)


@pytest.mark.parametrize("parameters", [True, False])
def test_unfreeze_puts_back_exactly_what_was(parameters):
    layers = [
        BatchNorm(name="usual"),
        BatchNorm(name="frozen_before", trainable=False),
        BatchNorm(name="half", activation=L.PReLU()),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    layers[2].gamma.trainable = False
    layers[2].activation.trainable = False

    def flags():
        return (
            [(v.path, v.trainable) for v in model.variables],
            [layer.trainable for layer in layers],
            ["call" in vars(layer) for layer in layers],
        )

    before = flags()
    freeze(model, parameters=parameters)
    assert flags() != before
    freeze(model, parameters=parameters)
    unfreeze(model)
    assert flags() == before
    unfreeze(model)
    assert flags() == before


def test_which_layers():
    model = model_with(L.BatchNormalization, compiled=False)
    inner, outer = norms(model)
    freeze(model, "nested")
    assert not inner.trainable and outer.trainable and model.get_layer("nested").get_layer("dense").trainable
    freeze(model, lambda layer: layer.name == "outer", parameters=False)
    np.testing.assert_array_equal(model(X, training=True), model(X))
    unfreeze(model, ["inner"])
    assert inner.trainable and "call" in vars(outer)
    unfreeze(model)
    assert "call" not in vars(outer)


def test_masks():
    layer = BatchNorm()
    layer.build((None, 6, 4))
    model = keras.Sequential([keras.Input((6, 4)), layer])
    freeze(model, parameters=False)
    x = X.reshape(-1, 1, 4).repeat(6, 1)
    np.testing.assert_array_equal(layer(x, training=True, mask=x[..., 0] > 0), layer(x, mask=x[..., 0] > 0))


@pytest.mark.parametrize("parameters", [True, False])
def test_files(parameters, tmp_path):
    """What the docstring says of saving: flags are stored, a taken-over call is not."""
    model = model_with(L.BatchNormalization)
    freeze(model, parameters=parameters)
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.trainable for layer in norms(loaded)] == [not parameters] * 2
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    unfreeze(loaded)
    assert [layer.trainable for layer in norms(loaded)] == [not parameters] * 2


def test_an_optimizer_that_was_built_while_frozen():
    model = model_with(L.BatchNormalization, compiled=False)
    freeze(model)
    model.compile("sgd", "mse")
    assert moved(model) == DENSE
    unfreeze(model)
    model.compile("sgd", "mse")
    assert moved(model) >= PARAMETERS | STATISTICS


def forcing(base, signature):
    """A class derived from `base` that normalizes with the batch whatever it is called with."""

    class WithTraining(base):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=True, mask=mask)

    class WithoutTraining(base):
        def call(self, inputs, mask=None):
            return super().call(inputs, training=True, mask=mask)

    class WithKeywords(base):
        def call(self, inputs, **kwargs):
            return super().call(inputs, **kwargs | {"training": True})

    return {"training": WithTraining, "no training": WithoutTraining, "keywords": WithKeywords}[signature]


@pytest.mark.parametrize(
    ("signature", "base", "parameters"),
    crossed(["training", "no training", "keywords"], [L.BatchNormalization, BatchNorm], [True, False]),
)
def test_a_class_that_forces_training_mode(base, signature, parameters):
    model = model_with(forcing(base, signature))
    assert moved(model) >= STATISTICS
    freeze(model, parameters=parameters)
    assert moved(model) == (DENSE if parameters else DENSE | PARAMETERS)
    before = [[v.trainable for v in layer.variables] for layer in norms(model)]
    x = X[:5]
    np.testing.assert_allclose(model(X, training=True)[:5], model(x, training=True), rtol=1e-5)  # no batch statistics
    assert [[v.trainable for v in layer.variables] for layer in norms(model)] == before
    unfreeze(model)
    assert moved(model) >= STATISTICS


def test_frozen_layers_are_not_kept_alive():
    model = model_with(L.BatchNormalization, compiled=False)
    freeze(model)
    freeze(model, "outer", parameters=False)
    layers = [weakref.ref(layer) for layer in norms(model)]
    del model
    keras.backend.clear_session()
    gc.collect()
    assert [layer() for layer in layers] == [None, None]


def test_on_two_replicas(strategy):
    with strategy.scope():
        model = model_with(L.BatchNormalization)
    freeze(model, parameters=False)
    assert moved(model) == DENSE | PARAMETERS


@pytest.mark.parametrize("function", [freeze, unfreeze])
def test_arguments(function):
    with pytest.raises(ValueError, match=r"`model` must have a BatchNormalization.*Received: 'plain', which has none"):
        function(keras.Sequential([keras.Input((4,)), L.Dense(1)], name="plain"))
    with pytest.raises(ValueError, match=r"`layers` must name layers.*'middle'.*\['inner', 'outer'\]"):
        function(model_with(BatchNorm, compiled=False), "middle")
