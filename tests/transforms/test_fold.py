"""`fold`: the same results as `predict`, where each normalization goes, and what it says of it."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn
from kerasbn import Affine, BatchNorm, batch_normalize, fold
from tests.transforms.models import (
    MODELS,
    Python,
    all_layers,
    custom,
    inputs_of,
    mixed_precision,
    shared,
    swish_of_our_own,
    without_input_shape,
)
from tests.transforms.trained import trained

L = keras.layers
Theirs = L.BatchNormalization


def inference(model, x):
    return keras.tree.map_structure(np.asarray, model(x, training=False))


def assert_same_results(new, model, x=None, tolerance=1e-5):
    x = inputs_of(model) if x is None else x

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * (1e-30 + np.abs(b).max()))

    keras.tree.map_structure(check, inference(new, x), inference(model, x))


def fates(model):
    """The new model, and what became of each normalization, by its name."""
    changes = []
    new = fold(model, changes=changes)
    assert not normalizations(new)
    return new, {change.where: change.new for change in changes if change.what == "normalization"}


def normalizations(model):
    return [name for name, layer in all_layers(model).items() if isinstance(layer, Theirs)]


def sequential(shape, *layers, dtype="float64"):
    """A model in float64 for which nothing is rounded, with weights as after training."""
    return trained(keras.Sequential([keras.Input(shape, dtype=dtype), *layers]))


def wide(layer_class, *arguments, **settings):
    return layer_class(*arguments, **settings, dtype="float64")


# Whole models.


#: Each model, normalized in each place where it can be.
NORMALIZED = [(make, "pre_activation") for make in MODELS]
NORMALIZED += [(make, "post_activation") for make in MODELS if make is not shared]


@pytest.mark.parametrize(("make", "where"), NORMALIZED, ids=lambda x: getattr(x, "__name__", x))
def test_the_same_results_and_nothing_left(make, where):
    model = trained(batch_normalize(make(), where))
    before = [variable.numpy() for variable in model.variables]
    new = fold(model)
    assert_same_results(new, model, tolerance=3e-2 if make is mixed_precision else 1e-4)
    assert type(new) is type(model) and new.name == model.name
    assert normalizations(new) == []
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert new.trainable_variables == []


# Each kind of layer, on both sides.

SQUARE = (6, 6, 4)
KINDS = {
    "dense": ((5,), lambda **s: wide(L.Dense, 3, **s)),
    "dense on images": (SQUARE, lambda **s: wide(L.Dense, 3, **s)),
    "conv1d": ((7, 4), lambda **s: wide(L.Conv1D, 3, 2, **s)),
    "conv1d, dilated": ((7, 4), lambda **s: wide(L.Conv1D, 3, 2, dilation_rate=2, **s)),
    "conv2d": (SQUARE, lambda **s: wide(L.Conv2D, 3, 3, strides=2, **s)),
    "conv2d, groups": (SQUARE, lambda **s: wide(L.Conv2D, 6, 2, groups=2, **s)),
    "conv2d, 1x1": (SQUARE, lambda **s: wide(L.Conv2D, 3, 1, strides=2, padding="same", **s)),
    "conv3d": ((3, 4, 3, 2), lambda **s: wide(L.Conv3D, 3, 2, **s)),
    "transposed 1d, 1": ((5, 4), lambda **s: wide(L.Conv1DTranspose, 3, 1, **s)),
    "transposed 2d, 1x1": (SQUARE, lambda **s: wide(L.Conv2DTranspose, 3, 1, **s)),
    "transposed 3d, 1x1x1": ((3, 4, 3, 2), lambda **s: wide(L.Conv3DTranspose, 3, 1, **s)),
    "depthwise 1d": ((7, 4), lambda **s: wide(L.DepthwiseConv1D, 3, depth_multiplier=2, **s)),
    "depthwise 2d": (SQUARE, lambda **s: wide(L.DepthwiseConv2D, 3, depth_multiplier=3, **s)),
    "separable 1d": ((7, 4), lambda **s: wide(L.SeparableConv1D, 3, 3, depth_multiplier=2, **s)),
    "separable 2d": (SQUARE, lambda **s: wide(L.SeparableConv2D, 3, 3, depth_multiplier=2, **s)),
    "each time step": ((3, 4), lambda name, **s: wide(L.TimeDistributed, wide(L.Dense, 2, **s), name=name)),
    "each image": ((2, *SQUARE), lambda name, **s: wide(L.TimeDistributed, wide(L.Conv2D, 3, 2, **s), name=name)),
}


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_before_and_behind_each_kind(kind, use_bias):
    shape, make = KINDS[kind]
    model = sequential(shape, wide(BatchNorm, name="a"), make(use_bias=use_bias, name="linear"), wide(Theirs, name="b"))
    model.add(wide(L.ReLU))
    new, fate = fates(trained(model))
    assert fate == {"a": "folded into linear", "b": "folded into linear"}
    assert [layer.name for layer in new.layers[:-1]] == ["linear"]
    assert_same_results(new, model, tolerance=1e-11)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: wide(L.Conv2D, 3, 3, padding="same", name="c"), "c pads with zeros"),
        (lambda: wide(L.DepthwiseConv2D, 3, padding="same", name="c"), "c pads with zeros"),
        (lambda: wide(L.SeparableConv2D, 3, 3, padding="same", name="c"), "c pads with zeros"),
        (lambda: wide(L.Conv2DTranspose, 3, 3, name="c"), "c adds up"),
        (lambda: wide(L.Conv2DTranspose, 3, 1, strides=2, name="c"), "c adds up"),
        (lambda: wide(L.ZeroPadding2D, name="c"), "c pads with zeros"),
    ],
)
def test_what_sees_zeros_takes_no_offset(layer, reason):
    layers = wide(BatchNorm, name="bn"), layer(), wide(L.Dense, 2, activation="relu")
    model = sequential(SQUARE, *layers)
    new, fate = fates(model)
    assert reason in fate["bn"]
    assert isinstance(new.layers[0], Affine) and new.layers[0].name == "bn"
    assert_same_results(new, model, tolerance=1e-11)
    # Without an offset, they do.
    model.layers[0].beta.assign(model.layers[0].gamma * model.layers[0].moving_mean)
    model.layers[0].moving_variance.assign(0 * model.layers[0].gamma + 1 - model.layers[0].epsilon)
    new, fate = fates(model)
    assert fate["bn"].startswith("folded")
    assert_same_results(new, model, tolerance=1e-11)


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize(
    ("equation", "settings", "shape", "axis"),
    [
        ("abc,cd->abd", {"output_shape": (None, 3)}, (4, 5), -1),
        ("abc,cd->abd", {"output_shape": (None, 3), "bias_axes": "d"}, (4, 5), -1),
        ("abc,cde->abde", {"output_shape": (None, 2, 3), "bias_axes": "de"}, (4, 5), -1),
        ("abc,cde->abde", {"output_shape": (None, 2, 3)}, (4, 5), (2, 3)),
        ("abc,cde->abde", {"output_shape": (None, 2, 3), "bias_axes": "ed"}, (4, 5), 3),
        ("abc,cde->abde", {"output_shape": (None, 2, 3)}, (4, 5), 2),
        ("abde,dec->abc", {"output_shape": (None, 3)}, (4, 2, 5), -1),
        ("abc,bcd->abd", {"output_shape": (4, 3), "bias_axes": "bd"}, (4, 5), (1, 2)),
        ("abc,bcd->abd", {"output_shape": (4, 3)}, (4, 5), 1),
        ("...x,xy->...y", {"output_shape": 3, "bias_axes": "y"}, (4, 5), -1),
        ("...x,xy->...y", {"output_shape": 3}, (2, 4, 5), -1),
    ],
)
def test_einsum(equation, settings, shape, axis, where):
    einsum = wide(L.EinsumDense, equation, **settings, name="linear")
    if where == "before":
        axis = axis if equation == "abc,bcd->abd" else -1
        model = sequential(shape, wide(BatchNorm, axis, name="bn"), einsum)
    else:
        model = sequential(shape, einsum, wide(BatchNorm, axis, name="bn"), wide(L.ReLU))
    new, fate = fates(model)
    assert fate == {"bn": "folded into linear"}
    assert_same_results(new, model, tolerance=1e-11)


@pytest.mark.parametrize(
    ("equation", "settings", "axis", "reason"),
    [
        ("abc,cd->abd", {"output_shape": (4, 3)}, (1, 2), "it differs from place to place within a channel"),
        ("abc,bcd->abd", {"output_shape": (4, 3), "bias_axes": "d"}, (1, 2), "linear has a bias along d only"),
        ("ab...,bc->ac...", {"output_shape": (3,)}, 1, "linear has the equation 'ab...,bc->ac...'"),
    ],
)
def test_einsum_that_takes_nothing(equation, settings, axis, reason):
    layers = wide(L.EinsumDense, equation, **settings, name="linear"), wide(BatchNorm, axis, name="bn"), wide(L.ReLU)
    model = sequential((4, 5), *layers)
    new, fate = fates(model)
    assert fate["bn"].startswith(f"Affine: {reason}; ")
    assert_same_results(new, model, tolerance=1e-11)


@pytest.mark.parametrize("kind", ["conv", "depthwise", "separable", "transposed"])
def test_channels_first(kind):
    make = {
        "conv": lambda **s: L.Conv2D(4, 3, groups=2, **s),
        "depthwise": lambda **s: L.DepthwiseConv2D(3, depth_multiplier=2, **s),
        "separable": lambda **s: L.SeparableConv2D(3, 3, **s),
        "transposed": lambda **s: L.Conv2DTranspose(3, 1, **s),
    }[kind]
    first = {"data_format": "channels_first"}
    x = keras.Input((4, 6, 6))
    y = L.Dropout(0.5)(make(**first, name="linear")(BatchNorm(1, name="a")(x)))
    y = BatchNorm(1, name="b")(L.AveragePooling2D(2, **first)(y))
    model = trained(keras.Model(x, L.ReLU(name="end")(y)))
    new, fate = fates(model)
    assert fate == {"a": "folded into linear", "b": "folded into linear"}
    linear = model.get_layer("linear")
    # Most kernels of TensorFlow do not know these convolutions on CPUs. The weights say enough: those of the same model
    # with the channels at the end.
    config = linear.get_config() | {"data_format": "channels_last"}
    last = sequential_like(model, type(linear).from_config(config))
    wanted = fold(last).get_layer("linear").get_weights()
    for weight, value in zip(new.get_layer("linear").get_weights(), wanted, strict=True):
        np.testing.assert_allclose(weight, value, rtol=1e-6)
    assert new.get_layer("linear").data_format == "channels_first"


def sequential_like(model, linear):
    """The model of the test above with channels last, and its weights."""
    layers = BatchNorm(name="a"), linear, L.Dropout(0.5), L.AveragePooling2D(2), BatchNorm(name="b"), L.ReLU()
    new = keras.Sequential([keras.Input((6, 6, 4)), *layers])
    new.set_weights(model.get_weights())
    return new


def test_channels_first_at_each_time_step():
    """The weights are those of the layer by itself."""
    conv, bn = L.Conv2D(3, 2, data_format="channels_first", name="conv"), BatchNorm(1)
    alone = trained(keras.Sequential([keras.Input((4, 6, 6)), conv, bn]))
    each = L.TimeDistributed(L.Conv2D(3, 2, data_format="channels_first"), name="each"), BatchNorm(2, name="bn")
    model = keras.Sequential([keras.Input((5, 4, 6, 6)), *each])
    model.set_weights(alone.get_weights())
    new, fate = fates(model)
    assert fate == {"bn": "folded into each"}
    wanted = fold(alone).get_layer("conv").get_weights()
    for weight, value in zip(new.get_layer("each").get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(weight, value)


# What may lie between.


@pytest.mark.parametrize(
    "between",
    [
        lambda: [wide(L.Dropout, 0.5)],
        lambda: [wide(L.SpatialDropout2D, 0.5), wide(L.GaussianNoise, 1.0), wide(L.Identity)],
        lambda: [wide(L.AveragePooling2D, 2, padding="same"), wide(L.Activation, "linear")],
        lambda: [wide(L.MaxPooling2D, 3, strides=2, padding="same")],
        lambda: [wide(L.UpSampling2D, 2, interpolation="bilinear"), wide(L.Cropping2D, 2)],
        lambda: [wide(L.GlobalAveragePooling2D)],
        lambda: [wide(L.GlobalMaxPooling2D, keepdims=True)],
        lambda: [wide(L.Reshape, (36, 3))],
        lambda: [wide(L.Reshape, (-1, 9, 3)), wide(L.GlobalAveragePooling2D, keepdims=True)],
    ],
    ids=lambda between: "+".join(type(layer).__name__ for layer in between()),
)
def test_between(between):
    def model(gamma):
        layers = wide(L.Conv2D, 3, 1, name="conv"), *between(), wide(BatchNorm, name="bn"), wide(L.ReLU)
        behind = wide(L.ReLU), wide(Theirs, name="bn2"), *between(), wide(L.Dense, 2, name="dense")
        model = sequential(SQUARE, *layers), sequential((6, 6, 3), *behind)
        for each, name in zip(model, ("bn", "bn2"), strict=True):
            each.get_layer(name).gamma.assign(gamma)
        return model

    names = [type(layer).__name__ for layer in between()]
    tolerance = 1e-6 if "UpSampling2D" in names else 1e-11  # TensorFlow interpolates in float32
    for each in model([1.0, 2.0, 0.5]):
        new, fate = fates(each)
        assert set(fate.values()) <= {"folded into conv", "folded into dense"}
        assert_same_results(new, each, tolerance=tolerance)
    for each in model([1.0, -2.0, 0.5]):
        new, fate = fates(each)
        assert ("turns into a minimum" in str(fate)) == any("Max" in name for name in names)
        assert_same_results(new, each, tolerance=tolerance)


def test_flattened():
    """Each place has weights of its own behind `Flatten` and before `Reshape`."""
    layers = [
        wide(Theirs, name="a"),
        wide(L.Flatten),
        wide(L.Dense, 12, name="dense"),
        wide(L.Reshape, (2, 2, 3)),
        wide(BatchNorm, name="b"),
        wide(L.ReLU),
        wide(BatchNorm, (1, 3), name="c"),
        wide(L.Flatten),
        wide(BatchNorm, name="d"),
        wide(L.Dense, 2, name="logits"),
    ]
    model = sequential((3, 3, 2), *layers)
    new, fate = fates(model)
    folded = {"a": "dense", "b": "dense", "c": "logits", "d": "c"}
    assert fate == {name: f"folded into {place}" for name, place in folded.items()}
    assert_same_results(new, model, tolerance=1e-11)


def test_flattened_from_an_unknown_size():
    model = sequential((None, 3), wide(BatchNorm, name="bn"), wide(L.Reshape, (-1, 1)), wide(L.Conv1D, 2, 1))
    new, fate = fates(model)
    assert "has a shape that is not known" in fate["bn"]
    assert_same_results(new, model, np.random.default_rng(0).normal(size=(2, 5, 3)), tolerance=1e-11)


def test_sum_and_concatenation():
    x = keras.Input(SQUARE, dtype="float64")
    conv = [wide(L.Conv2D, filters, 1, name=f"conv{i}")(x) for i, filters in enumerate([3, 3, 2, 4])]
    a = wide(L.ReLU)(wide(BatchNorm, name="a")(wide(L.Add)(conv[:2])))
    b = wide(L.ReLU)(wide(BatchNorm, name="b")(wide(L.Concatenate)(conv[2:])))
    c = wide(L.ReLU)(wide(BatchNorm, (1, 2), name="c")(wide(L.Concatenate)([a, b])))
    model = trained(keras.Model(x, c))
    new, fate = fates(model)
    assert fate["a"] == "folded into conv0, conv1" and fate["b"] == "folded into conv2, conv3"
    assert fate["c"].startswith("Affine: re_lu")
    assert_same_results(new, model, tolerance=1e-11)


def test_several_behind_and_in_a_row():
    x = keras.Input((4,), dtype="float64")
    y = wide(BatchNorm, name="b")(wide(Theirs, name="a")(x))
    y = wide(L.Concatenate)([wide(L.Dense, 2, activation="tanh", name=name)(y) for name in ("left", "right")])
    model = trained(keras.Model(x, wide(Theirs, name="c")(y)))
    new, fate = fates(model)
    assert fate["b"] == "folded into a" and fate["a"] == "folded into left, right"
    assert fate["c"] == "Affine: left has an activation; an output of the model is behind it"
    assert_same_results(new, model, tolerance=1e-11)


@pytest.mark.parametrize("axes", [((1, 2), 2), (2, (1, 2)), (1, 2)])
def test_two_in_a_row_that_stay(axes):
    normalizations = wide(BatchNorm, axes[0], scale=False, center=False, name="a"), wide(BatchNorm, axes[1], name="b")
    model = sequential((3, 4), *normalizations, wide(L.Softmax))
    new, fate = fates(model)
    assert fate["b"] == "folded into a"
    assert [layer.name for layer in new.layers[:-1]] == ["a"] and new.layers[0].scale.shape == (3, 4)
    assert_same_results(new, model, tolerance=1e-11)


# What stays, and why.


def used_twice():
    x = keras.Input((4,))
    y = L.Dense(4, name="dense")(x)
    return keras.Model(x, L.Add(name="add")([L.ReLU(name="relu")(BatchNorm(name="bn")(y)), y]))


def output_too():
    x = keras.Input((4,))
    y = L.Dense(4, name="dense")(x)
    return keras.Model(x, [L.ReLU(name="relu")(BatchNorm(name="bn")(y)), y])


def called_twice():
    x = keras.Input((4,))
    dense, bn, relu = L.Dense(4, name="dense"), BatchNorm(name="bn"), L.ReLU(name="relu")
    return keras.Model(x, dense(relu(bn(dense(x)))))


def another_class():
    class Louder(L.Dense):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs)

    return keras.Sequential([keras.Input((4,)), Louder(3, name="louder"), BatchNorm(name="bn"), L.ReLU(name="relu")])


def per_activation():
    layers = L.Conv1D(3, 2, name="conv"), BatchNorm((1, 2), name="bn"), L.Conv1D(2, 2, name="conv2")
    return keras.Sequential([keras.Input((5, 4)), *layers])


def batch_axis():
    layers = L.Conv1D(3, 2, name="conv"), BatchNorm((0, 2), name="bn"), L.ReLU(name="relu")
    return keras.Sequential([keras.Input((5, 4), batch_size=4), *layers])


def precisions():
    layers = L.Dense(3, dtype="mixed_bfloat16", name="dense"), BatchNorm(name="bn"), L.ReLU(name="relu")
    return keras.Sequential([keras.Input((4,)), *layers])


def cast_between():
    layers = [
        L.Dense(3, dtype="mixed_bfloat16", name="dense"),
        L.Dropout(0.5, name="dropout"),
        BatchNorm(dtype="mixed_bfloat16", name="bn"),
        L.ReLU(name="relu"),
    ]
    return keras.Sequential([keras.Input((4,)), *layers])


def operation():
    x = keras.Input((4,))
    return keras.Model(x, L.ReLU(name="relu")(BatchNorm(name="bn")(keras.ops.multiply(L.Dense(3)(x), 2.0))))


def adapter():
    dense = L.Dense(4, name="dense", lora_rank=2)
    return keras.Sequential([keras.Input((4,)), dense, BatchNorm(name="bn"), L.ReLU(name="relu")])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (used_twice, "dense goes to add, too; relu (ReLU) is behind it"),
        (output_too, "dense goes to output, too; relu (ReLU) is behind it"),
        (called_twice, "dense is called elsewhere, too; relu (ReLU) is behind it"),
        (another_class, "louder (Louder) is before it; relu (ReLU) is behind it"),
        (per_activation, "it differs from place to place within a channel; it differs"),
        (batch_axis, "it differs from place to place within a channel; relu"),
        (precisions, "dense computes in bfloat16; relu"),
        (cast_between, "dropout computes in float32; relu"),
        (operation, "(Multiply) is before it; relu"),
        (adapter, "dense is quantized or has a low-rank adapter; relu"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_what_stays(make, reason):
    model = trained(make())
    new, fate = fates(model)
    assert fate["bn"].startswith("Affine: ") and reason in fate["bn"]
    assert isinstance(new.get_layer("bn"), Affine)
    tolerance = 2e-2 if make in (precisions, cast_between) else 1e-5
    assert_same_results(new, model, tolerance=tolerance)
    for output, wanted in zip(new.outputs, model.outputs, strict=True):
        assert (output.shape, output.dtype) == (wanted.shape, wanted.dtype)


def test_a_class_that_normalizes_in_a_way_of_its_own_is_kept():
    class Half(BatchNorm):
        def call(self, inputs, training=None, mask=None):
            return 0.5 * super().call(inputs, training, mask)

    class Quiet(BatchNorm):
        pass

    model = keras.Sequential([keras.Input((3,)), L.Dense(4, name="dense"), Half(name="half"), Quiet(name="quiet")])
    changes = []
    new = fold(trained(model), changes=changes)
    assert [str(change) for change in changes] == [
        "half: normalization Half -> kept: the Python code of Half says what it computes",
        "quiet: normalization Quiet -> Affine: half (Half) is before it; an output of the model is behind it",
    ]
    assert_same_results(new, model)


def test_normalizations_in_custom_layers_are_kept_and_named():
    changes = []
    model = trained(custom())
    new = fold(model, changes=changes)
    (change,) = changes
    assert str(change) == (
        "block/norm: normalization BatchNormalization -> kept: the Python code of Block says what it computes"
    )
    assert_same_results(new, model)


# Layers that are called several times, and nested models.


def test_a_pair_that_is_called_twice():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    dense, bn = L.Dense(3, name="dense"), BatchNorm(name="bn")
    model = trained(keras.Model(inputs, L.Subtract()([L.ReLU()(bn(dense(x))) for x in inputs])))
    new, fate = fates(model)
    assert fate == {"bn": "folded into dense"}
    assert_same_results(new, model)


def test_one_normalization_behind_two_layers():
    inputs = [keras.Input((4,)), keras.Input((5,))]
    bn = BatchNorm(name="bn")
    towers = [L.ReLU()(bn(L.Dense(3, name=name)(x))) for name, x in zip("ab", inputs, strict=True)]
    model = trained(keras.Model(inputs, L.Subtract()(towers)))
    new, fate = fates(model)
    assert fate == {"bn": "folded into a, b"}
    assert_same_results(new, model)


def test_one_layer_before_two_normalizations():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    dense = L.Dense(3, name="dense")
    towers = [L.ReLU()(BatchNorm(name=name)(dense(x))) for name, x in zip("ab", inputs, strict=True)]
    model = trained(keras.Model(inputs, L.Subtract()(towers)))
    new, fate = fates(model)
    assert all(reason.startswith("Affine: dense is called elsewhere, too") for reason in fate.values())
    assert_same_results(new, model)


def test_a_normalization_of_its_own_result():
    bn = BatchNorm(name="bn")
    model = trained(keras.Sequential([keras.Input((4,)), L.Dense(3, name="dense")]))
    model = trained(keras.Model(model.inputs, L.ReLU()(bn(bn(model.outputs[0])))))
    new, fate = fates(model)
    assert fate["bn"].startswith("Affine: ")
    assert_same_results(new, model)


def test_nested_models():
    """A backbone that is called twice; normalizations on both sides of the borders; one that is all of a model."""
    image = keras.Input((6, 6, 2))
    inside = L.ReLU()(Theirs(name="bn")(L.Conv2D(3, 3, name="conv")(image)))
    backbone = keras.Model(image, L.Conv2D(3, 1, name="last")(inside), name="backbone")
    neck = keras.Sequential([keras.Input((4, 4, 3)), BatchNorm(name="bn")], name="neck")
    head = keras.Sequential([keras.Input((3,)), L.Dense(2, name="dense")], name="head")
    inputs = [keras.Input((6, 6, 2), name=name) for name in ("left", "right")]
    norm = Theirs(name="norm")
    outputs = [head(norm(L.GlobalAveragePooling2D()(L.ReLU()(neck(backbone(x)))))) for x in inputs]
    model = trained(keras.Model(inputs, outputs))
    new, fate = fates(model)
    folded = {"backbone/bn": "backbone/conv", "neck/bn": "backbone/last", "norm": "head/dense"}
    assert fate == {name: f"folded into {place}" for name, place in folded.items()}
    assert_same_results(new, model)
    assert [layer.name for layer in new.get_layer("backbone").layers[1:]][0::2] == ["conv", "last"]


def test_the_usual_way_to_fine_tune():
    """`training=False` is an argument of the call of the backbone, and may be one of the normalization."""
    x = keras.Input((4,))
    backbone = keras.Sequential([keras.Input((4,)), L.Dense(3, name="dense"), Theirs(name="bn"), L.ReLU()])
    y = Theirs(name="norm")(backbone(x, training=False), training=False)
    y = BatchNorm(name="given a mask")(L.ReLU()(y), mask=keras.ops.any(x > 0) & (x[:, 0] > 0))
    model = trained(keras.Model(x, y))
    new, fate = fates(model)
    assert [name for name, reason in fate.items() if reason.startswith("Affine")] == ["norm", "given a mask"]
    assert_same_results(new, model)


def test_what_is_used_as_a_mask_is_no_input():
    x, sequence = keras.Input((4,)), keras.Input((4, 3))
    y = BatchNorm(name="other")(sequence, mask=BatchNorm(name="bn")(x))
    model = trained(keras.Model([x, sequence], L.ReLU()(y)))
    new, fate = fates(model)
    assert fate["bn"].endswith("other (BatchNormalization) is behind it")
    assert_same_results(new, model)


def test_masks_go_on():
    words = keras.Input((7,), dtype="int32")
    x = L.Dense(4, name="dense")(L.Embedding(11, 4, mask_zero=True)(words))
    x = BatchNorm(name="c")(L.ReLU()(BatchNorm(name="b")(L.ReLU()(BatchNorm(name="a")(x)))))
    model = trained(keras.Model(words, L.GRU(3)(x)))
    new, fate = fates(model)
    assert [reason.split(":")[0] for reason in fate.values()] == ["folded into dense", "Affine", "Affine"]
    assert_same_results(new, model, np.array([[1, 2, 3, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0]]))


# Settings of the normalization.


@pytest.mark.parametrize("behind", ["relu", "dense"])
@pytest.mark.parametrize(
    "settings",
    [
        {"center": False},
        {"scale": False},
        {"center": False, "scale": False},
        {"epsilon": 0.25},
        {"renorm": True},
        {"momentum": None, "unbiased": True, "virtual_batch_size": 2},
        {"activation": "relu"},
        {"activation": swish_of_our_own},
        {"activation": L.LeakyReLU(0.3)},
        {"axis": [2]},
    ],
    ids=lambda settings: ",".join(
        f"{name}={getattr(v, '__name__', getattr(v, 'name', v))}" for name, v in settings.items()
    ),
)
def test_settings(settings, behind):
    """Folded into the layer before, into the layer behind, and left as one of its own."""
    end = {"relu": lambda: wide(L.ReLU), "dense": lambda: wide(L.Dense, 2, name="behind")}[behind]
    for first in (lambda: wide(L.Dense, 4, name="before"), lambda: wide(L.Activation, "tanh")):
        model = sequential((3, 4), first(), wide(BatchNorm, **settings, name="bn"), end())
        new, fate = fates(model)
        if first().name == "before":
            assert fate["bn"] == "folded into before"
        elif behind == "dense" and "activation" not in settings:
            assert fate["bn"] == "folded into behind"
        else:
            assert fate["bn"].startswith("Affine: ")
        assert_same_results(new, model, tolerance=1e-11)
        if "activation" in settings:
            last = new.get_layer("bn")
            assert getattr(last, "activation", last) is settings["activation"] or behind


@pytest.mark.parametrize("layer_class", [Theirs, BatchNorm])
def test_normalization_of_each_time_step(layer_class):
    """Behind a layer, before one, and alone; per activation, too."""
    axes = [-1] if layer_class is Theirs else [-1, (1, 2), (1, 3)]
    for axis in axes:
        layers = [
            wide(L.TimeDistributed, wide(L.Dense, 3), name="dense"),
            wide(L.TimeDistributed, wide(layer_class, axis, name="inner"), name="bn"),
            wide(L.ReLU),
            wide(L.TimeDistributed, wide(layer_class, axis), name="bn2"),
            wide(L.Softmax),
        ]
        model = sequential((2, 4, 5, 3), *layers)
        new, fate = fates(model)
        assert (fate["bn"] == "folded into dense") == (axis == -1)
        assert fate["bn2"].startswith("Affine: re_lu")
        assert_same_results(new, model, tolerance=1e-11)


# Numbers.


def far_away(layers, distance):
    """A model whose input is `distance` standard deviations from 0, and its normalization knows."""
    random = np.random.default_rng(0)
    x = (random.normal(size=(64, 4)) + distance).astype("float32")
    model = trained(keras.Sequential([keras.Input((4,)), BatchNorm(name="bn"), *layers]))
    bn = model.get_layer("bn")
    bn.moving_mean.assign(x.astype("float64").mean(0))
    bn.moving_variance.assign(x.astype("float64").var(0))
    return model, x


@pytest.mark.parametrize("distance", [1e4, 1e6])
@pytest.mark.parametrize("layers", [lambda: [L.ReLU()], lambda: [L.Dense(3)]], ids=["relu", "dense"])
def test_far_from_zero(distance, layers):
    """`x * a + b` would be off by 1e-3 at 10,000 standard deviations, and by 0.1 at a million; so would `(W * a) x`."""
    model, x = far_away(layers(), distance)
    new, fate = fates(model)
    assert fate["bn"].startswith("Affine") and new.get_layer("bn").center
    assert_same_results(new, model, x, tolerance=3e-6)
    if layers()[0].name.startswith("dense"):
        assert "so far from 0 that digits would be lost" in fate["bn"]


def test_two_in_a_row_of_which_the_first_moves_far_away():
    """Together they do not: there is nothing to subtract from what comes in."""

    def model(dtype):
        x = keras.Input((4,), dtype=dtype)
        far = BatchNorm(name="far", dtype=dtype)(x)
        back = [BatchNorm(name=name, dtype=dtype)(far) for name in ("back", "too")]
        return keras.Model(x, L.Concatenate(dtype=dtype)([L.ReLU(dtype=dtype)(y) for y in back]))

    narrow, true = trained(model("float32")), model("float64")
    narrow.get_layer("far").beta.assign(1e4 * np.ones(4))
    for name in ("back", "too"):
        narrow.get_layer(name).moving_mean.assign(1e4 * np.ones(4))
    true.set_weights(narrow.get_weights())
    new, fate = fates(narrow)
    assert fate["far"] == "folded into back, too"
    assert not new.get_layer("back").center and not new.get_layer("too").center
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    np.testing.assert_allclose(new(x), true(x), rtol=1e-5, atol=1e-5)


def test_near_zero_nothing_is_subtracted():
    model, x = far_away([L.ReLU()], 10)
    new = fold(model)
    assert not new.get_layer("bn").center
    assert_same_results(new, model, x, tolerance=1e-5)


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_bfloat16", 3e-2), ("mixed_float16", 4e-3), ("float16", 4e-3)]
)
def test_half_precision(policy, tolerance):
    settings = {"dtype": policy}
    layers = [
        L.Conv2D(4, 3, **settings, name="conv"),
        BatchNorm(**settings, name="a"),
        L.ReLU(**settings),
        BatchNorm(**settings, name="b"),
        L.Softmax(**settings),
    ]
    model = trained(keras.Sequential([keras.Input((6, 6, 2)), *layers]))
    new, fate = fates(model)
    assert fate["a"] == "folded into conv" and fate["b"].startswith("Affine")
    assert new.get_layer("conv").dtype_policy.name == policy
    assert {weight.dtype for weight in new.get_layer("b").weights} == {"float32"}
    assert new.outputs[0].dtype == model.outputs[0].dtype
    assert_same_results(new, model, tolerance=tolerance)


@pytest.mark.parametrize("gamma", [1e6, 1e-6])
def test_what_float16_cannot_hold_stays_apart(gamma):
    layers = L.Dense(4, dtype="mixed_float16", name="dense"), BatchNorm(dtype="mixed_float16", name="bn")
    model = trained(keras.Sequential([keras.Input((3,)), *layers, L.ReLU(dtype="mixed_float16")]))
    bn = model.get_layer("bn")
    bn.gamma.assign(gamma * np.ones(4))
    _, fate = fates(model)
    assert fate["bn"].startswith("Affine: dense computes in float16, too coarse for what it would be; ")


def test_statistics_that_are_not_finite_stay_so():
    model = trained(keras.Sequential([keras.Input((3,)), L.Dense(2, name="dense"), BatchNorm(name="bn"), L.ReLU()]))
    model.get_layer("bn").moving_mean.assign([np.nan, 0.0])
    new, fate = fates(model)
    assert fate["bn"] == "folded into dense"
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(np.isnan(new(x)), np.isnan(model(x)))


# Models as a whole.


def small():
    layers = [
        L.Conv2D(4, 3, use_bias=False, kernel_regularizer="l2", name="conv"),
        BatchNorm(activation="relu", name="bn"),
        BatchNorm(name="bn2"),
        L.Activation("relu", name="relu"),
        L.GlobalAveragePooling2D(),
        L.Dense(3, name="dense"),
        BatchNorm(name="logits"),
    ]
    return trained(keras.Sequential([keras.Input((6, 6, 2), name="image"), *layers]))


def test_changes():
    changes = []
    fold(small(), changes=changes)
    assert [str(change) for change in changes] == [
        "conv: use_bias False -> True",
        "bn: normalization BatchNormalization -> folded into conv",
        "bn2: normalization BatchNormalization -> Affine: bn (BatchNormalization) is before it; "
        "relu (Activation) is behind it",
        "logits: normalization BatchNormalization -> folded into dense",
    ]


def test_names():
    """Those of inputs and outputs stay, as losses and servers may go by them."""
    model = small()
    model = keras.Model(model.inputs, model.outputs)
    new = fold(model)
    assert new.output_names == model.output_names == ["logits"]
    assert [x.name for x in new.inputs] == [x.name for x in model.inputs] == ["image"]
    assert [layer.name for layer in new.layers if layer.weights] == ["conv", "bn2", "dense"]
    assert (
        isinstance(new.get_layer("bn"), L.Activation) and new.get_layer("logits").activation is keras.activations.linear
    )


def test_a_model_that_folds_as_a_whole_is_made_of_layers_of_keras():
    layers = L.Conv2D(3, 2), BatchNorm(activation="relu"), L.Flatten(), L.Dense(2), BatchNorm()
    model = trained(keras.Sequential([keras.Input((4, 4, 1)), *layers]))
    assert "kerasbn" in json.dumps(model.get_config())
    assert "kerasbn" not in json.dumps(fold(model).get_config())


def test_an_output_keeps_its_dtype():
    model = sequential((3,), wide(L.Dense, 2), wide(BatchNorm))
    assert fold(model)(np.ones((1, 3))).dtype == "float64"


def test_files_and_servers(tmp_path):
    model = small()
    new = fold(model)
    x = inputs_of(model)
    new.save(tmp_path / "folded.keras")
    loaded = keras.models.load_model(tmp_path / "folded.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(x), new(x))
    new.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(x.astype("float32")), inference(model, x), rtol=1e-5, atol=1e-5)


def test_compiled_models_are_evaluated_without_penalties():
    model = small()
    model.compile("adam", "mse", metrics=["mae"])
    new = fold(model)
    x, y = inputs_of(model), np.zeros((4, 3))
    with_penalties, error = model.evaluate(x, y, verbose=0)
    loss, same_error = new.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(same_error, error, rtol=1e-5)
    np.testing.assert_allclose(loss, with_penalties - float(sum(model.losses)), rtol=1e-5)
    assert new.get_layer("conv").kernel_regularizer is None
    assert model.get_layer("conv").kernel_regularizer is not None


def test_twice_is_once():
    model = small()
    changes = []
    new = fold(fold(model), changes=changes)
    assert changes == []
    assert_same_results(new, model)


def test_a_model_without_input_shape():
    model = keras.Sequential([L.Dense(4, name="dense"), BatchNorm(name="a"), L.ReLU(), BatchNorm(name="b"), L.ReLU()])
    with pytest.raises(ValueError, match="must be built") as caught:
        fold(model)
    for part in ("'a'", "keras.Input", "call it on a batch"):
        assert part in str(caught.value)
    x = np.ones((2, 3), "float32")
    model(x)
    new, fate = fates(trained(model))
    assert fate["a"] == "folded into dense" and fate["b"].startswith("Affine")
    assert_same_results(new, model, x)


def test_built_layers_in_a_model_without_input_shape():
    layers = [L.Dense(3, name="dense"), BatchNorm(name="a"), L.ReLU(), BatchNorm(name="b"), L.Softmax()]
    for layer in layers[:4]:
        layer.build((None, 3))
    model = keras.Sequential(layers)
    new = fold(model)
    x = np.ones((2, 3), "float32")
    assert_same_results(new, model, x)


def test_without_a_normalization_nothing_changes():
    changes = []
    model = without_input_shape()
    new = fold(model, changes=changes)
    assert changes == [] and [layer.name for layer in new.layers] == [layer.name for layer in model.layers]


def test_a_subclassed_model_is_refused_by_name():
    with pytest.raises(ValueError, match="Python code") as caught:
        fold(Python(name="mine"))
    assert "`model`" in str(caught.value) and "'mine'" in str(caught.value)


def test_under_a_strategy(strategy):
    with strategy.scope():
        model = small()
    new = fold(model)
    assert_same_results(new, model)
    assert len(new.get_layer("conv").bias.value.values) == 2
    np.testing.assert_allclose(
        new.predict(inputs_of(model), verbose=0), model.predict(inputs_of(model), verbose=0), rtol=1e-5, atol=1e-5
    )


def test_after_training():
    """What `fit` leaves behind, and not what a test makes up."""
    model = kerasbn.batch_normalize(keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dense(1)]))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    random = np.random.default_rng(0)
    x = random.normal(size=(256, 4)) * 3 + 5
    model.fit(x, x[:, :1], epochs=3, verbose=0)
    assert_same_results(fold(model), model, x.astype("float32"))
