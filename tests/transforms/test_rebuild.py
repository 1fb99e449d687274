"""What holds for every transform: the old model is untouched, and what it does not change stays as it was."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from kerasbn.transforms import (
    batch_normalize,
    reduce_photometric_distortions,
    remove_local_response_normalization,
    scale_weight_decay,
)
from kerasbn.transforms.clone import clone
from kerasbn.transforms.rebuild import rebuild
from tests.transforms.models import (
    MODELS,
    Block,
    Python,
    all_layers,
    custom,
    inputs_of,
    nested,
    sequential,
    shared,
    snapshot,
    swish_of_our_own,
    with_random_weights,
    without_input_shape,
)

L = keras.layers


def copy(model):
    return rebuild(model, lambda operation, where: [clone(operation)]).model


def assert_same(a, b):
    keras.tree.map_structure(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_a_copy_computes_the_same(make):
    model = with_random_weights(make())
    new = copy(model)
    x = inputs_of(model)
    assert type(new) is type(model) and new.name == model.name
    assert_same(new(x), model(x))
    # Random states, too, were carried over: the masks of dropout are the same, and the batches that BN saw.
    assert_same(new(x, training=True), model(x, training=True))
    assert_same(new(x), model(x))


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_a_copy_has_the_same_layers_and_shares_none(make):
    model = make()
    new = copy(model)
    layers, new_layers = all_layers(model), all_layers(new)
    assert list(layers) == list(new_layers)
    assert not {id(layer) for layer in layers.values()} & {id(layer) for layer in new_layers.values()}
    assert not {id(v) for v in model.variables} & {id(v) for v in new.variables}
    for path, layer in layers.items():
        assert type(new_layers[path]) is type(layer), path
        assert new_layers[path].trainable == layer.trainable, path
        assert new_layers[path].dtype_policy.name == layer.dtype_policy.name, path
    assert [v.path for v in new.trainable_variables] == [v.path for v in model.trainable_variables]
    assert new.trainable == model.trainable
    config, new_config = (json.dumps(m.get_config(), default=str, sort_keys=True) for m in (model, new))
    assert new_config == config
    assert str(keras.tree.map_structure(lambda x: (x.shape, x.dtype), new.outputs)) == str(
        keras.tree.map_structure(lambda x: (x.shape, x.dtype), model.outputs)
    )


TRANSFORMS = [batch_normalize, scale_weight_decay, reduce_photometric_distortions, remove_local_response_normalization]


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_the_original_is_untouched(make):
    model = with_random_weights(make())
    before = snapshot(model)
    for transform in TRANSFORMS:
        assert transform(model) is not model
    after = snapshot(model)
    assert after[0] == before[0] and after[3] == before[3]
    assert_same(after[1:3], before[1:3])


@pytest.mark.parametrize(
    ("make", "transform"),
    [*((sequential, transform) for transform in TRANSFORMS), (nested, batch_normalize), (custom, scale_weight_decay)],
)
def test_a_compiled_model_is_compiled_with_the_same_settings(make, transform):
    model = make()
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, clipnorm=2.0)
    metric = keras.metrics.MeanAbsoluteError(name="error")
    model.compile(optimizer, huber_of_our_own, metrics=[metric], steps_per_execution=2, jit_compile=False)
    model.fit(inputs_of(model), np.zeros((4, model.output_shape[-1])), epochs=3, verbose=0)
    new = transform(model)
    assert new.optimizer is not model.optimizer and int(new.optimizer.iterations) == 0
    assert new.optimizer.get_config() == model.optimizer.get_config()
    assert new.loss is huber_of_our_own and new.steps_per_execution == 2
    history = new.fit(inputs_of(new), np.zeros((4, new.output_shape[-1])), verbose=0).history
    assert history.keys() == {"loss", "error"}
    assert int(new.optimizer.iterations) == 1


def huber_of_our_own(y_true, y_pred):
    return keras.ops.mean(keras.losses.huber(y_true, y_pred))


def test_a_changed_learning_rate_is_copied():
    model = sequential()
    model.compile("adam", "mse")
    model.optimizer.learning_rate = 0.125
    assert float(copy(model).optimizer.learning_rate) == 0.125
    assert not copy(sequential()).compiled


def test_mixed_precision_optimizer_is_copied():
    model = sequential()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(0.5), initial_scale=8.0), "mse")
    new = copy(model).optimizer
    assert isinstance(new, keras.optimizers.LossScaleOptimizer) and new.initial_scale == 8.0
    assert isinstance(new.inner_optimizer, keras.optimizers.AdamW) and float(new.learning_rate) == 0.5


def test_compile_settings_that_have_no_name_are_refused():
    model = sequential()
    model.compile("sgd", lambda y_true, y_pred: y_pred)
    with pytest.warns(UserWarning, match="lambda"), pytest.raises(ValueError, match="'sequential_model'") as caught:
        copy(model)
    assert "with `def` in place of `lambda`" in str(caught.value)


def test_a_layer_in_two_models_stays_one():
    new = copy(shared())
    layers = all_layers(new)
    assert layers["tied"] is layers["encoder/tied"] and layers["relu"] is layers["encoder/relu"]
    assert len(new.weights) == len(shared().weights)


def test_frozen_layers_within_a_custom_layer():
    model = custom()
    model.get_layer("block").first.trainable = False
    block = copy(model).get_layer("block")
    assert isinstance(block, Block)
    assert (block.first.trainable, block.second[0].trainable, block.second[1].trainable) == (False, True, False)


def test_a_lambda_keeps_its_function():
    """As byte code it would no longer find `np`."""
    model = custom()
    assert copy(model).get_layer("times_pi").function is model.get_layer("times_pi").function


def test_what_preprocessing_layers_have_learned_is_carried_over():
    normalization, lookup = L.Normalization(), L.StringLookup(output_mode="one_hot")
    normalization.adapt(np.array([[1.0], [3.0], [5.0]]))
    lookup.adapt(["a", "b", "b"])
    number, word = keras.Input((1,)), keras.Input((1,), dtype="string")
    model = keras.Model([number, word], [normalization(number), lookup(word)])
    x = [tf.constant([[2.0], [9.0]]), tf.constant([["b"], ["zebra"]])]
    assert_same(copy(model)(x), model(x))


def test_a_model_without_input_shape():
    model = without_input_shape()
    assert not copy(model).built
    x = np.ones((2, 3), "float32")
    with_random_weights(model(x) is not None and model)
    assert_same(copy(model)(x), model(x))


def test_a_built_layer_in_a_model_without_input_shape():
    layer = L.Dense(2)
    layer.build((None, 3))
    model = keras.Sequential([layer])
    assert_same(copy(model).layers[0].kernel, layer.kernel)


def test_an_operation_can_be_replaced_removed_and_followed():
    def rewrite(operation, where):
        if where == "backbone/hidden":
            return [clone(operation), L.Rescaling(2.0, name="twice"), L.Rescaling(5.0, name="ten_times")]
        return [] if where == "head/hidden" else [clone(operation)]

    model = with_random_weights(nested())
    new = rebuild(model, rewrite).model
    assert [layer.name for layer in new.get_layer("head").layers] == ["relu"]
    inner, old = new.get_layer("backbone"), model.get_layer("backbone")
    x = inputs_of(model)
    np.testing.assert_allclose(inner(x)[1], 10 * old(x)[1], rtol=1e-6)
    np.testing.assert_allclose(inner(x)[0], old.get_layer("linear")(10 * old(x)[1]), rtol=1e-5)


def test_an_operation_of_keras_ops_can_be_replaced():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.ops.relu(inputs) + 1.0)

    def rewrite(operation, where):
        return [L.Rescaling(-1.0)] if type(operation).__name__ == "Relu" else [clone(operation)]

    x = np.array([[1.0, -2.0, 3.0]], "float32")
    np.testing.assert_array_equal(rebuild(model, rewrite).model(x), 1 - x)


def test_a_layer_of_another_class_takes_the_first_argument_only():
    inputs = keras.Input((3,))
    x = BatchNorm(name="first")(inputs, training=False, mask=None)
    model = keras.Model(inputs, BatchNorm(name="second")(inputs=x, training=False))

    def rewrite(operation, where):
        return [L.Rescaling(2.0)] if where == "first" else []

    np.testing.assert_array_equal(rebuild(model, rewrite).model(np.ones((1, 3))), [[2, 2, 2]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_of_a_sequential_model_can_be_removed(dtype):
    layer = L.Dense(3, dtype=dtype)
    model = keras.Sequential([keras.Input((3,), dtype=dtype), layer], name="empty")
    new = rebuild(model, lambda operation, where: []).model
    x = np.ones((2, 3), dtype)
    assert_same(new(x), x)
    assert new(x).dtype == dtype and new.name == "empty"
    assert keras.Sequential.from_config(new.get_config()).built


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_subclassed_model_is_refused_by_name(transform):
    for model in (Python(name="mine"), Backbone(4, name="mine")):
        with pytest.raises(ValueError, match="Python code") as caught:
            transform(model)
        for part in (
            "`model`",
            "functional and Sequential",
            "'mine'",
            f"class {type(model).__name__}",
            "functional API",
        ):
            assert part in str(caught.value)
    # As the message proposes:
    assert "keras.Model(model.inputs, model.outputs)" in str(caught.value)
    new = transform(keras.Model(model.inputs, model.outputs))
    assert new.get_layer("hidden") is not model.get_layer("hidden")


class Backbone(keras.Model):
    """A functional model that its own constructor builds."""

    def __init__(self, width, **kwargs):
        inputs = keras.Input((3,))
        hidden = L.Dense(width, activation="relu", name="hidden")(inputs)
        super().__init__(inputs=inputs, outputs=L.Dense(1)(hidden), **kwargs)
        self.width = width

    def get_config(self):
        return {"name": self.name, "width": self.width}


def test_a_subclassed_model_within_is_a_layer_like_any_other():
    inputs = keras.Input((4,))
    model = with_random_weights(keras.Model(inputs, L.Dense(2)(Python(5, name="inner")(inputs))))
    new = copy(model)
    assert isinstance(new.get_layer("inner"), Python) and new.get_layer("inner") is not model.get_layer("inner")
    x = inputs_of(model)
    assert_same(new(x), model(x))


def test_two_custom_objects_of_one_name():
    def same_name(factor):
        def activation(x):
            return factor * x

        return activation

    cell = [L.SimpleRNNCell(3, activation=same_name(factor)) for factor in (1.0, 2.0)]
    model = keras.Sequential([keras.Input((4, 2)), L.RNN(cell)])
    with pytest.raises(ValueError, match="Two custom objects have the name 'activation'"):
        copy(model)
    # In layers of their own they are told apart, also where the model is compiled.
    model = keras.Sequential([keras.Input((2,)), *(L.Activation(same_name(factor)) for factor in (2.0, 3.0))])
    model.compile("sgd", huber_of_our_own)
    np.testing.assert_array_equal(copy(model)(np.ones((1, 2))), [[6, 6]])


def test_methods_are_no_custom_objects():
    """Keras stores wrapped methods on each layer; those of two layers of one class have one name."""
    model = keras.Sequential([keras.Input((3,)), L.Pipeline([BatchNorm(momentum=0.5), BatchNorm(momentum=0.75)])])
    assert [layer.momentum for layer in copy(model).layers[0].layers] == [0.5, 0.75]


def test_a_custom_function_with_a_name_of_keras():
    def relu(x):
        return x + 1.0

    model = keras.Sequential([keras.Input((2,)), L.Dense(2, activation=relu, kernel_initializer="zeros")])
    np.testing.assert_array_equal(copy(model)(np.zeros((1, 2))), [[1, 1]])


def test_files(tmp_path):
    model = nested()
    model.compile("adam", "mse", jit_compile=False)
    new = scale_weight_decay(batch_normalize(model))
    x = inputs_of(new)
    new.fit(x, np.zeros((4, 2)), verbose=0)
    new.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded.predict(x, verbose=0), new.predict(x, verbose=0))
    loaded.fit(x, np.zeros((4, 2)), verbose=0)


def test_under_a_strategy(strategy):
    """The copy lives where the original does, wherever the transform is called."""
    with strategy.scope():
        model = sequential()
        model.compile(keras.optimizers.SGD(0.1), "mse")
    new = scale_weight_decay(batch_normalize(model), 0.5)
    before = new.get_weights()
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    history = new.fit(x, np.ones((8, 3)), batch_size=4, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert not any(np.array_equal(a, b) for a, b in zip(before, new.get_weights(), strict=True))
    for variable in new.variables:
        one, other = variable.value.values
        np.testing.assert_array_equal(one, other)


def test_custom_activation_is_the_same_function():
    assert copy(custom()).get_layer("custom_activation").activation is swish_of_our_own
