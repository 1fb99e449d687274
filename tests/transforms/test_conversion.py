"""`convert` and `to_keras`: the same function in other layers, and back."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, LocalResponseNormalization, convert, to_keras
from kerasbn.selection import layers_in
from tests.transforms.models import MODELS, Scale, all_layers, custom, frozen, inputs_of, with_random_weights

L = keras.layers


def norms(model):
    return {layer.name: layer for layer, _ in layers_in(model) if isinstance(layer, L.BatchNormalization)}


def assert_close(a, b):
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), a, b)


class Wrapped(L.Layer):
    """A layer that gets layers, and shows them."""

    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = [keras.saving.deserialize_keras_object(p) if isinstance(p, dict) else p for p in parts]

    def build(self, shape):
        for part in self.parts:
            part.build(shape)

    def call(self, x, training=False):
        for part in self.parts:
            x = part(x, training=training)
        return x

    def get_config(self):
        return super().get_config() | {"parts": [keras.saving.serialize_keras_object(p) for p in self.parts]}


def everywhere():
    """Keras's layer in every place that is reached."""
    norm = L.BatchNormalization
    inner = keras.Sequential(
        [keras.Input((5, 4)), norm(name="inner", momentum=0.7), Scale(name="scale")], name="nested"
    )
    shared = norm(name="shared", epsilon=0.01)
    x = inputs = keras.Input((5, 4), name="x")
    x = shared(L.Dense(4, name="dense")(shared(inner(x))))
    x = L.TimeDistributed(norm(name="in_time"), name="time")(x)
    x = Wrapped([norm(name="a", scale=False), norm(name="b", renorm=True)], name="wrapped")(x)
    x = norm(name="frozen", trainable=False, axis=1)(x)
    return keras.Model(inputs, BatchNorm(name="ours", unbiased=True)(x), name="everywhere")


NAMES = {"inner", "shared", "in_time", "a", "b", "frozen", "ours"}


def test_every_layer_is_converted_with_its_weights():
    model = with_random_weights(everywhere())
    new = convert(model)
    found = norms(new)
    assert found.keys() == NAMES and {type(layer) for layer in found.values()} == {BatchNorm}
    for name, layer in norms(model).items():
        assert found[name].get_config() == layer.get_config(), name
        for a, b in zip(layer.variables, found[name].variables, strict=True):
            np.testing.assert_array_equal(a, b)
    assert [v.path for v in new.trainable_variables] == [v.path for v in model.trainable_variables]
    x = inputs_of(model)
    assert_close(new(x), model(x))
    assert_close(new(x, training=True), model(x, training=True))
    assert_close(new(x), model(x))  # the moving statistics


@pytest.mark.parametrize("make", [m for m in MODELS if m is not custom], ids=lambda make: make.__name__)
def test_every_kind_of_model_there_and_back(make):
    model = with_random_weights(make())
    if not norms(model):
        with pytest.raises(ValueError, match="must have a BatchNormalization"):
            convert(model)
        new = to_keras(model)
    else:
        new = to_keras(convert(model))
        assert {type(layer) for layer in norms(new).values()} == {L.BatchNormalization}
    x = inputs_of(model)
    assert_close(new(x), model(x))
    assert list(all_layers(new)) == list(all_layers(model))
    assert [layer.trainable for layer in all_layers(new).values()] == [
        layer.trainable for layer in all_layers(model).values()
    ]


def test_arguments_of_calls_are_kept():
    x, mask = keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    model = keras.Model([x, mask], L.BatchNormalization(name="bn", momentum=0.0)(x, mask=mask))
    values = [np.random.default_rng(0).normal(size=(6, 5, 4)), np.random.default_rng(1).random((6, 5)) < 0.5]
    for new in (convert(model), to_keras(convert(model))):
        new(values, training=True)
        np.testing.assert_allclose(new.get_layer("bn").moving_mean, values[0][values[1]].mean(0), rtol=1e-5)


def test_options_of_all_at_once():
    changes = []
    new = convert(everywhere(), virtual_batch_size=2, momentum=None, changes=changes)
    for layer in norms(new).values():
        assert (
            layer.virtual_batch_size == 2
            and layer.momentum is None
            and layer.moving_count.shape == layer.moving_mean.shape
        )
    assert ("nested/inner", "momentum", 0.7, None) in changes and (
        "time/in_time",
        "virtual_batch_size",
        None,
        2,
    ) in changes
    assert sum(change.what == "class" for change in changes) == 6  # one is ours
    # Weights with equal names in one layer keep theirs though there are more of them.
    old = with_random_weights(everywhere())
    for name, layer in norms(convert(old, momentum=None)).items():
        np.testing.assert_array_equal(layer.moving_mean, norms(old)[name].moving_mean, err_msg=name)
        np.testing.assert_array_equal(layer.moving_variance, norms(old)[name].moving_variance, err_msg=name)


def test_chosen_layers():
    new = convert(everywhere(), ["nested", "a"], unbiased=True)
    ours = {name for name, layer in norms(new).items() if type(layer) is BatchNorm}
    assert ours == {"inner", "a", "ours"} and norms(new)["a"].unbiased


class Own(L.BatchNormalization):
    """With a behaviour of its own."""

    def call(self, x, training=None, mask=None):
        return 2 * super().call(x, training=training, mask=mask)


def test_classes_of_their_own_are_refused_by_name():
    model = keras.Sequential([keras.Input((3,)), Own(name="mine"), L.BatchNormalization(name="theirs")])
    with pytest.raises(
        ValueError,
        match=r"'mine' cannot be converted: it is of class Own, derived from.*kerasbn.BatchNorm; "
        r"or leave it out, as in layers=lambda layer: isinstance\(layer, keras.layers.BatchNormalization\) and "
        r"layer.name != 'mine'",
    ):
        convert(model)
    wrapped = keras.Sequential([keras.Input((5, 3)), L.TimeDistributed(Own(name="mine"))])
    with pytest.raises(ValueError, match=r"'mine' cannot be converted: it is of class Own"):
        convert(wrapped)
    new = convert(
        model, layers=lambda layer: isinstance(layer, keras.layers.BatchNormalization) and layer.name != "mine"
    )
    assert [type(layer) for layer in new.layers] == [Own, BatchNorm]
    assert [type(layer) for layer in to_keras(new).layers] == [Own, L.BatchNormalization]


class OwnOfOurs(BatchNorm):
    """Derived as the error about `Own` says; not registered with Keras."""

    def call(self, x, training=None, mask=None):
        return 2 * super().call(x, training=training, mask=mask)


def with_own_of_ours():
    td = L.TimeDistributed(OwnOfOurs(name="wrapped", gamma_regularizer="l2"), name="td")
    nested = keras.Sequential([keras.Input((5, 3)), OwnOfOurs(name="inner")], name="nested")
    layers = [OwnOfOurs(name="mine"), L.ReLU(name="relu"), td, nested, L.BatchNormalization(name="theirs")]
    return with_random_weights(keras.Sequential([keras.Input((5, 3)), *layers]))


def test_classes_derived_from_ours_are_kept():
    model, changes = with_own_of_ours(), []
    new = convert(model, changes=changes, fuse_activations=True)
    assert {name: type(layer) for name, layer in norms(new).items()} == {
        "mine": OwnOfOurs,
        "wrapped": OwnOfOurs,
        "inner": OwnOfOurs,
        "theirs": BatchNorm,
    }
    assert [change.where for change in changes] == ["theirs"]  # and the ReLU stays after what the class does
    x = inputs_of(model)
    assert_close(new(x), model(x))
    assert_close(new(x, training=True), model(x, training=True))


def test_options_of_classes_derived_from_ours_change():
    model, changes = with_own_of_ours(), []
    new = convert(model, momentum=0.5, unbiased=True, changes=changes)
    assert all(layer.momentum == 0.5 and layer.unbiased for layer in norms(new).values())
    assert type(norms(new)["wrapped"]) is OwnOfOurs and norms(new)["wrapped"].gamma_regularizer is not None
    assert sum(change.what == "unbiased" for change in changes) == 4
    x = inputs_of(model)
    assert_close(new(x), model(x))
    only = convert(model, "td", unbiased=True)
    assert [name for name, layer in norms(only).items() if getattr(layer, "unbiased", False)] == ["wrapped"]


@pytest.mark.parametrize(
    "layer",
    [
        lambda: OwnOfOurs(name="mine"),
        lambda: L.TimeDistributed(OwnOfOurs(name="mine"), name="td"),
        lambda: keras.Sequential([keras.Input((5, 3)), OwnOfOurs(name="mine")], name="nested"),
    ],
    ids=["layer", "wrapped", "nested"],
)
def test_classes_derived_from_ours_are_not_left_in_a_model_for_keras(layer):
    model = keras.Sequential([keras.Input((5, 3)), layer()])
    with pytest.raises(ValueError, match=r"'mine' of class OwnOfOurs, derived from kerasbn BatchNorm,.* no equal in"):
        to_keras(model)


def test_layers_in_python_code_are_refused_by_name():
    with pytest.raises(
        ValueError, match=r"'norm' cannot be converted: it is in 'block' of class Block, which makes it in"
    ):
        convert(custom())
    model = keras.Sequential([keras.Input((3,)), L.Dense(3), L.BatchNormalization(name="outside")])
    functional = keras.Model(model.inputs, custom().get_layer("block")(L.Dense(4)(model.outputs[0])))
    new = convert(functional, "outside")
    assert type(norms(new)["outside"]) is BatchNorm and type(norms(new)["norm"]) is L.BatchNormalization


# Activations


def chain(norm, activation, **kwargs):
    x = inputs = keras.Input((4,))
    return keras.Model(inputs, L.Dense(2)(activation(norm(L.Dense(4, use_bias=False)(x)))), **kwargs)


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (lambda: L.ReLU(), "relu"),
        (lambda: L.Activation("relu"), "relu"),
        (lambda: keras.ops.relu, "relu"),
        (lambda: L.ReLU(6.0), "relu6"),
        (lambda: keras.ops.relu6, "relu6"),
        (lambda: L.Activation("leaky_relu"), "leaky_relu"),
        (lambda: L.LeakyReLU(0.2), "leaky_relu"),
        (lambda: L.LeakyReLU(0.1), None),
        (lambda: L.ReLU(5.0), None),
        (lambda: L.ReLU(threshold=1.0), None),
        (lambda: L.Activation("tanh"), None),
        (lambda: L.Activation("relu", activity_regularizer="l2"), None),
        (lambda: L.ReLU(dtype="float64"), None),
        (lambda: L.Dense(4, "relu"), None),
    ],
)
def test_activations_are_absorbed(activation, name):
    model = with_random_weights(chain(L.BatchNormalization(name="bn"), activation()))
    changes = []
    new = convert(model, fuse_activations=True, changes=changes)
    assert (getattr(new.get_layer("bn").activation, "__name__", None) if name else None) == name
    assert len(new.operations) == len(model.operations) - bool(name)
    assert (("bn", "activation", None, name) in changes) == bool(name)
    x = inputs_of(model)
    assert_close(new(x), model(x))
    assert_close(new(x, training=True), model(x, training=True))
    back = to_keras(new)
    assert_close(back(x), model(x))


def test_an_activation_of_several_is_absorbed_only_where_all_may_have_it():
    relu, inputs = L.ReLU(name="relu"), keras.Input((4,))
    first, second = L.BatchNormalization(name="first"), L.BatchNormalization(name="second")
    both = keras.Model(inputs, L.Add()([relu(first(inputs)), relu(second(inputs))]))
    new = convert(both, fuse_activations=True)
    assert "relu" not in {layer.name for layer in new.layers}
    x = inputs_of(both)
    assert_close(new(x), both(x))
    also_without = keras.Model(inputs, L.Add()([relu(first(inputs)), relu(inputs)]))
    assert convert(also_without, fuse_activations=True).get_layer("relu")
    normalized = second(inputs)
    seen = keras.Model(inputs, [L.ReLU(name="after")(normalized), normalized])
    assert convert(seen, fuse_activations=True).get_layer("after")
    assert_close(convert(seen, fuse_activations=True)(x), seen(x))


def test_what_a_nested_model_gives_stays():
    backbone = keras.Sequential([keras.Input((4,)), L.BatchNormalization(name="last")], name="backbone")
    model = keras.Sequential([keras.Input((4,)), backbone, L.ReLU(name="relu")])
    new = convert(model, fuse_activations=True)
    assert new.get_layer("relu") and new.get_layer("backbone").get_layer("last").activation is keras.activations.linear


# The optimizer


@pytest.mark.parametrize("optimizer", ["adam", "loss scale", "schedule", "without scale"])
def test_the_optimizer_goes_on(optimizer):
    """Training the copy is training the model."""
    keras.utils.set_random_seed(0)
    model = chain(L.BatchNormalization(name="bn"), L.ReLU())
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5) if optimizer == "schedule" else 0.01
    adam = keras.optimizers.Adam(rate)
    model.compile(keras.optimizers.LossScaleOptimizer(adam) if optimizer == "loss scale" else adam, "mse")
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    data = {"x": x, "y": x[:, :2], "batch_size": 8, "shuffle": False, "verbose": 0}
    model.fit(**data)
    new = convert(model, scale=False) if optimizer == "without scale" else convert(model)
    before, after = model.optimizer.variables, new.optimizer.variables
    if optimizer == "without scale":
        before = [v for v in before if "gamma" not in v.path]
        assert len(before) == len(model.optimizer.variables) - 2
    assert int(new.optimizer.iterations) == 4
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(b, a.numpy(), err_msg=a.path)
    if optimizer == "without scale":
        return
    model.fit(**data)
    new.fit(**data)
    for a, b in zip(model.weights, new.weights, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_a_model_that_was_not_trained_has_a_new_optimizer():
    model = chain(L.BatchNormalization(), L.ReLU())
    assert not convert(model).compiled
    model.compile("adam", "mse")
    assert int(convert(model).optimizer.iterations) == 0


def test_under_a_strategy(strategy):
    with strategy.scope():
        model = chain(L.BatchNormalization(name="bn"), L.ReLU())
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    x = np.ones((8, 4), "float32")
    model.fit(x, x[:, :2], batch_size=4, verbose=0)
    new = convert(model, synchronized=True)
    assert new.get_layer("bn").synchronized and new.optimizer.iterations.numpy() == 2
    new.fit(x, x[:, :2], batch_size=4, verbose=0)
    assert new.optimizer.iterations.numpy() == 4


# Back


def test_a_machine_without_kerasbn_loads_it(tmp_path):
    model = with_random_weights(chain(BatchNorm(name="bn", activation="relu", jit_compile=False), L.ReLU()))
    new = to_keras(model)
    assert [type(layer).__name__ for layer in new.layers][2:5] == ["BatchNormalization", "Activation", "ReLU"]
    new.save(tmp_path / "model.keras")
    program = f"""
import sys, keras, numpy
model = keras.models.load_model({str(tmp_path / "model.keras")!r})
assert "kerasbn" not in sys.modules
numpy.save({str(tmp_path / "y.npy")!r}, model(numpy.ones((2, 4), "float32")))
"""
    subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(np.ones((2, 4), "float32")), rtol=1e-6)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"unbiased": True}, "unbiased=True"),
        ({"virtual_batch_size": 4}, "virtual_batch_size=4"),
        ({"momentum": None}, "momentum=None"),
        ({"synchronized": True, "sync_group_size": 1}, "sync_group_size=1"),
    ],
)
def test_options_of_training_are_left_out_if_no_training_follows(option, text):
    model = with_random_weights(chain(BatchNorm(name="bn", **option), L.ReLU()))
    with pytest.raises(ValueError, match=rf"'bn' has {text}, which Keras's layer lacks.*inference_only=True"):
        to_keras(model)
    changes = []
    new = to_keras(model, inference_only=True, changes=changes)
    assert changes[1][:2] == ("bn", text.split("=")[0]) and changes[1].new is None
    x = inputs_of(model)
    assert_close(new(x), model(x))
    assert new.get_layer("bn").synchronized == option.get("synchronized", False)


def test_what_keras_lacks_is_refused_by_name():
    x = keras.Input((5, 4))
    several = keras.Model(x, BatchNorm(name="bn", axis=(1, 2))(x))
    with pytest.raises(
        ValueError, match=r"'bn' normalizes along several axes, axis=\[1, 2\], which Keras's layer cannot"
    ):
        to_keras(several, inference_only=True)
    one = to_keras(keras.Model(x, BatchNorm(name="bn", axis=(1,))(x)))
    assert one.get_layer("bn").axis == 1
    within = keras.Model(x, L.TimeDistributed(BatchNorm(name="bn", activation="relu"), name="time")(x))
    with pytest.raises(ValueError, match=r"'time/bn' has an activation, 'relu', which cannot become a layer"):
        to_keras(within)
    images = keras.Sequential([keras.Input((4, 4, 3)), LocalResponseNormalization(name="lrn")])
    with pytest.raises(ValueError, match=r"'lrn' of class kerasbn LocalResponseNormalization has no equal in Keras"):
        to_keras(images)


def test_to_keras_reaches_what_convert_reaches():
    model = with_random_weights(convert(everywhere()))
    new = to_keras(model, inference_only=True)
    assert {type(layer) for layer in norms(new).values()} == {L.BatchNormalization}
    x = inputs_of(model)
    assert_close(new(x), model(x))


def test_trainable_is_kept():
    model = frozen()
    functional = keras.Model(model.inputs, [L.BatchNormalization(name="bn", trainable=False)(model.outputs[0])])
    for new in (convert(functional), to_keras(convert(functional))):
        assert not new.get_layer("bn").trainable
        assert len(new.trainable_variables) == len(functional.trainable_variables)


def test_names_that_are_taken():
    layers = [BatchNorm(name="bn", activation=L.PReLU()), L.Dense(3, name="bn_activation")]
    model = with_random_weights(keras.Sequential([keras.Input((3,)), *layers]))
    new = to_keras(model)
    assert [layer.name for layer in new.layers] == ["bn", "bn_activation_1", "bn_activation"]
    assert_close(new(np.eye(3)), model(np.eye(3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "x"}, r"`name` of BatchNorm cannot be given.*Received: name='x'"),
        ({"activation": "relu"}, r"`activation`.*fuse_activations=True. Received: activation='relu'"),
        ({"virtual_batch_size": 0}, r"`virtual_batch_size`.*Received: virtual_batch_size=0"),
        ({"layers": "nb"}, r"`layers`.*there is no 'nb'"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        convert(everywhere(), **arguments)


def test_what_was_split_off_is_called_by_its_name():
    changes = []
    to_keras(keras.Sequential([keras.Input((3,)), BatchNorm(activation="relu", name="bn")]), changes=changes)
    assert [(change.what, change.old) for change in changes] == [("class", "kerasbn.BatchNorm"), ("activation", "relu")]
