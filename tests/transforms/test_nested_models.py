"""Models in the configuration of a layer: a CNN that runs over frames, or that a layer of the user's own holds."""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, batch_normalize, convert, fold, to_keras
from kerasbn.selection import layers_in
from kerasbn.transforms import (
    from_torch_state,
    reduce_photometric_distortions,
    remove_local_response_normalization,
    replace_activations,
    scale_initialization,
    scale_weight_decay,
)
from tests.transforms.models import Trainer, frames, inputs_of, swish_of_our_own, with_random_weights

L = keras.layers


def norms(model):
    return [layer for layer, _ in layers_in(model) if isinstance(layer, L.BatchNormalization)]


def cnn(norm=L.BatchNormalization, name="cnn", **arguments):
    x = inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(3, 3, activation="relu", kernel_regularizer="l2", name="conv")(x)
    x = keras.ops.relu(norm(name="norm", **arguments)(x)) + 1.0
    x = norm(name="again", **arguments)(L.Conv2D(3, 3, activation=swish_of_our_own, name="second")(x))
    return keras.Model(inputs, L.GlobalAveragePooling2D(name="pool")(x), name=name)


class Held:
    """What the classes below have in common: they sum up what the models in them give."""

    def compute_output_shape(self, shape):
        return (shape[0], 3)

    def call(self, x, training=None):
        return sum(model(x, training=training) for model in self.models())


class Wrapped(Held, L.Wrapper):
    def models(self):
        return [self.layer]


class Dictionary(Held, L.Layer):
    """Models in a dictionary, which may have one name."""

    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = {
            key: keras.saving.deserialize_keras_object(part) if isinstance(part, dict) else part
            for key, part in parts.items()
        }

    def models(self):
        return list(self.parts.values())

    def get_config(self):
        parts = {key: keras.saving.serialize_keras_object(part) for key, part in self.parts.items()}
        return super().get_config() | {"parts": parts}


class Attribute(Held, L.Layer):
    def __init__(self, backbone, **kwargs):
        super().__init__(**kwargs)
        self.backbone = backbone

    def models(self):
        return [self.backbone]

    def get_config(self):
        return super().get_config() | {"backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.layers.deserialize(config.pop("backbone")), **config)


class Bare(Attribute):
    """Stores the configuration of the model, without its class."""

    def get_config(self):
        return super().get_config() | {"backbone": self.backbone.get_config()}

    @classmethod
    def from_config(cls, config):
        return cls(keras.Model.from_config(config.pop("backbone")), **config)


def trainer(**arguments):
    model = cnn(**arguments)
    return Trainer(model.inputs, model.outputs, name="trainer", note="mine")


def two_of_one_name(**arguments):
    return {"z": cnn(**arguments), "a": cnn(**arguments)}


def nested(**arguments):
    inputs = keras.Input((6, 6, 2))
    return keras.Model(inputs, L.Dense(3, name="head")(cnn(**arguments)(inputs)), name="nested")


HOLDERS = {
    "TimeDistributed": lambda **a: L.TimeDistributed(cnn(**a)),
    "twice": lambda **a: L.TimeDistributed(L.TimeDistributed(cnn(**a))),
    "Trainer": lambda **a: Wrapped(trainer(**a)),
    "Sequential": lambda **a: L.TimeDistributed(keras.Sequential([keras.Input((6, 6, 2)), cnn(**a)])),
    "functional": lambda **a: L.TimeDistributed(nested(**a)),
    "Wrapper": lambda **a: Wrapped(cnn(**a)),
    "dictionary": lambda **a: Dictionary(two_of_one_name(**a)),
    "within another": lambda **a: L.TimeDistributed(Wrapped(Dictionary({"only": cnn(**a)}))),
    "attribute": lambda **a: Attribute(cnn(**a)),
    "bare": lambda **a: Bare(cnn(**a)),
}


def holding(holder, **arguments):
    """A trained model that has a model in the configuration of a layer, which is frozen in part."""
    keras.utils.set_random_seed(0)
    layer = HOLDERS[holder](**arguments)
    times = {"TimeDistributed": (3,), "twice": (2, 3)}.get(holder, (3,) if isinstance(layer, L.TimeDistributed) else ())
    inputs = keras.Input((*times, 6, 6, 2))
    x = layer(inputs)
    model = with_random_weights(keras.Model(inputs, L.Dense(2, name="logits")(L.Flatten(name="flat")(x))))
    for inner, _ in layers_in(layer):
        if inner.name in ("conv", "again"):
            inner.trainable = False
    return model


def assert_same_function(new, model, training=False):
    x = inputs_of(model, 2)
    results = [one(x, training=training) for one in (new, model)]
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), *results)


def assert_same_weights(new, model):
    assert [v.path for v in new.variables] == [v.path for v in model.variables]
    assert [v.path for v in new.trainable_variables] == [v.path for v in model.trainable_variables]
    for a, b in zip(new.variables, model.variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


@pytest.mark.parametrize("holder", HOLDERS)
def test_normalizations_in_it_are_converted_there_and_back(holder):
    model = holding(holder)
    new = convert(model)
    assert {type(layer) for layer in norms(new)} == {BatchNorm}
    back = to_keras(new)
    assert {type(layer) for layer in norms(back)} == {L.BatchNormalization}
    for one in (new, back):
        assert_same_weights(one, model)
        assert_same_function(one, model)
    assert_same_function(back, new, training=True)
    assert_same_function(back, new)


@pytest.mark.parametrize("holder", HOLDERS)
def test_normalizations_with_other_variables_keep_those_that_they_had(holder):
    model = holding(holder)
    new = convert(model, momentum=None)
    for a, b in zip(norms(new), norms(model), strict=True):
        assert a.momentum is None
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=f"{holder}, {b.path}")
    assert_same_function(new, model)


TRANSFORMS = {
    "fold": fold,
    "batch_normalize": batch_normalize,
    "fuse": lambda model: convert(model, fuse_activations=True),
    "weight decay": scale_weight_decay,
    "initialization": lambda model: scale_initialization(model, 1.0),
    "distortions": reduce_photometric_distortions,
    "local response": remove_local_response_normalization,
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("holder", ["TimeDistributed", "dictionary", "bare"])
def test_every_transform_leaves_the_function(holder, transform):
    """Each linear layer is normalized already or the last."""
    model = holding(holder)
    assert_same_function(TRANSFORMS[transform](model), model)


def test_a_model_in_several_layers_stays_one():
    model = with_random_weights(frames())
    for new in (convert(model), scale_weight_decay(model), batch_normalize(convert(model))):
        inner = new.get_layer("cnn")
        assert new.get_layer("each_clip").layer is inner and new.get_layer("each_preview").layer is inner
        assert_same_function(new, model) if new.count_params() == model.count_params() else None
        assert inner.get_layer("times_pi").function is model.get_layer("cnn").get_layer("times_pi").function
        assert not inner.get_layer("norm").trainable and inner.get_layer("conv").trainable


def test_an_activation_in_it_becomes_a_layer_of_its_own():
    """And goes back into the normalization: in a graph both can be done."""
    model = holding("TimeDistributed", norm=BatchNorm, activation="relu")
    changes = []
    new = to_keras(model, changes=changes)
    where = f"{model.layers[1].name}/cnn/norm"
    assert (where, "activation", "relu", "layer norm_activation") in changes
    assert new.layers[1].layer.get_layer("norm_activation")
    assert_same_function(new, model)
    again = convert(new, fuse_activations=True)
    assert [layer.activation.__name__ for layer in norms(again)] == ["relu", "relu"]
    assert_same_function(again, model)


def test_a_cnn_over_frames_is_normalized_folded_and_given_other_nonlinearities():
    x = inputs = keras.Input((6, 6, 2))
    for n in (1, 2):
        x = L.Conv2D(3, 3, activation="relu", name=f"conv{n}")(x)
    each = L.TimeDistributed(keras.Model(inputs, L.GlobalAveragePooling2D()(x), name="cnn"), name="each")
    model = keras.Sequential([keras.Input((4, 6, 6, 2)), each, L.LSTM(3), L.Dense(2)])
    changes = []
    new = batch_normalize(model, changes=changes)
    assert [c.where for c in changes if c.what == "normalization"] == ["each/cnn/conv1", "each/cnn/conv2"]
    with_random_weights(new)
    changes = []
    folded = fold(new, changes=changes)
    assert not norms(folded)
    assert [c.new for c in changes if c.what == "normalization"] == [f"folded into each/cnn/conv{n}" for n in (1, 2)]
    assert_same_function(folded, new)
    sigmoid = replace_activations(model, "sigmoid").layers[0].layer
    assert [sigmoid.get_layer(f"conv{n}").activation.__name__ for n in (1, 2)] == ["sigmoid", "sigmoid"]
    state = {f"bn{n}.{name}": np.full(3, n) for n in (1, 2) for name in ("running_mean", "running_var")}
    assert float(from_torch_state(new, state).layers[0].layer.get_layer("conv2_bn").moving_mean[0]) == 2


def test_weight_decay_in_it_is_scaled_once_and_said_where():
    model, changes = holding("dictionary"), []
    name = model.layers[1].name
    new = scale_weight_decay(model, 0.5, changes=changes)
    assert [str(change) for change in changes] == [f"{name}/cnn/conv: kernel_regularizer.l2 0.01 -> 0.005"] * 2
    kernels = [layer for layer, _ in layers_in(new) if layer.name == "conv"]
    assert [layer.kernel_regularizer.l2 for layer in kernels] == pytest.approx([0.005, 0.005])


def test_a_file_of_a_converted_model_loads(tmp_path):
    model = convert(holding("TimeDistributed"))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"swish_of_our_own": swish_of_our_own})
    assert {type(layer) for layer in norms(loaded)} == {BatchNorm}
    assert_same_function(loaded, model)
