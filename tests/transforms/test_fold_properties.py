"""Any small network that hypothesis thinks of: folded it computes the same, in float64 to 1e-10, and is saved."""

import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasbn import BatchNorm, fold
from tests.transforms.models import all_layers
from tests.transforms.trained import trained

L = keras.layers


def wide(layer_class, *arguments, **settings):
    return layer_class(*arguments, **settings, dtype="float64")


def layer(draw, kind):
    """A layer of an image, with settings that keep it one."""
    pick = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    common = {"padding": pick("valid", "same"), "use_bias": draw(st.booleans()), "activation": pick(None, None, "relu")}
    if kind == "conv":
        stride, dilation = pick((1, 1), (2, 1), (1, 2))
        return wide(L.Conv2D, pick(2, 4), pick(1, 2, 3), stride, dilation_rate=dilation, groups=pick(1, 2), **common)
    if kind == "depthwise":
        return wide(L.DepthwiseConv2D, pick(1, 3), pick(1, 2), depth_multiplier=pick(1, 2), **common)
    if kind == "separable":
        return wide(L.SeparableConv2D, 4, pick(1, 2), depth_multiplier=pick(1, 2), **common)
    if kind == "transposed":
        return wide(L.Conv2DTranspose, 4, pick(1, 2), pick(1, 2), **common)
    if kind == "dense":
        return wide(L.Dense, pick(2, 4), use_bias=common["use_bias"], activation=common["activation"])
    if kind == "norm":
        axis, activation = pick(-1, -1, -1, 1, (1, 2, 3)), pick(None, None, None, "relu", "tanh")
        return wide(BatchNorm, axis, center=draw(st.booleans()), scale=draw(st.booleans()), activation=activation)
    if kind == "their norm":
        return wide(L.BatchNormalization, pick(-1, -1, 2), center=draw(st.booleans()))
    return {
        "relu": lambda: wide(L.ReLU),
        "dropout": lambda: wide(L.Dropout, 0.5),
        "mean": lambda: wide(L.AveragePooling2D, 2, 1, padding=common["padding"]),
        "max": lambda: wide(L.MaxPooling2D, 2, 1, padding=common["padding"]),
        "zeros": lambda: wide(L.ZeroPadding2D, 1),
        "nearest": lambda: wide(L.UpSampling2D, 2),
    }[kind]()


LINEAR = ["conv", "depthwise", "separable", "transposed", "dense"]
NORMS = ["norm", "their norm"]
KINDS = [*LINEAR, *NORMS, *NORMS, *NORMS, "relu", "dropout", "mean", "max", "zeros", "nearest"]


def network(draw):
    """A chain with branches: a sum or a concatenation with what was there before, a layer that is called again."""
    x = inputs = keras.Input((6, 6, 4), dtype="float64")
    earlier = []
    for kind in draw(st.lists(st.sampled_from([*KINDS, "add", "concatenate", "again", "nested"]), max_size=9)):
        others = [y for y in earlier if y.shape == x.shape]
        if kind == "add":
            y = draw(st.sampled_from([*others, wide(L.Conv2D, x.shape[-1], 1)(x)]))
            x = wide(L.Add)([x, y])
        elif kind == "concatenate":
            x = wide(L.Concatenate)([x, wide(L.Conv2D, 2, 3, padding="same")(x)])
        elif kind == "again":
            again = layer(draw, draw(st.sampled_from([*NORMS, "relu"])))
            x = again(wide(L.Dense, x.shape[-1])(again(x)))
        elif kind == "nested":
            inner = keras.Input(x.shape[1:], dtype="float64")
            y = layer(draw, draw(st.sampled_from(NORMS)))(wide(L.Dense, x.shape[-1])(inner))
            x = keras.Model(inner, y)(x)
        elif min(x.shape[1:3]) > 4:  # that none becomes too small
            x = layer(draw, kind)(x)
        elif kind in (*NORMS, "relu", "dense", "dropout"):
            x = layer(draw, kind)(x)
        earlier.append(x)
    if draw(st.booleans()):
        pooling = draw(st.sampled_from([L.Flatten, L.GlobalAveragePooling2D, L.GlobalMaxPooling2D]))
        x = wide(L.Dense, 3)(wide(pooling)(x))
    return keras.Model(inputs, x)


@settings(max_examples=80)
@given(st.data())
def test_the_same_results(data):
    model = trained(network(data.draw), data.draw(st.integers(0, 99)))
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4))
    new = fold(model)
    assert not any(isinstance(layer, L.BatchNormalization) for layer in all_layers(new).values())
    wanted = np.asarray(model(x, training=False))
    np.testing.assert_allclose(new(x), wanted, rtol=1e-10, atol=1e-10 * (1 + np.abs(wanted).max()))
