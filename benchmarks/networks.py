"""The networks whose training is measured, each without normalization, with Keras's layer and with kerasbn."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from kerasbn import BatchNorm
from kerasbn.kernels import tiered


def compile_soon():
    """In this process, batches that are large enough to be compiled are so after two steps, not after hundreds.

    For measuring what long training comes to: call it first, then `tiered.wait_until_compiled` after two steps.
    """
    tiered.MIN_USES, tiered.BREAK_EVEN = 1, 1


class WithActivation(BatchNorm):
    """kerasbn's layer, which takes the place of the activation behind it too."""


LAYERS = {
    "no BN": None,
    "keras": keras.layers.BatchNormalization,
    "kerasbn": BatchNorm,
    "kerasbn, activation=": WithActivation,
}


def normalize(x, layer_class, activation=None):
    """Normalization and what follows it."""
    if layer_class is WithActivation:
        return WithActivation(activation=activation)(x)
    if layer_class is not None:
        x = layer_class()(x)
    return keras.layers.Activation(activation)(x) if activation else x


def conv(x, layer_class, filters, size=3, stride=1, activation=None):
    """Convolution and normalization; without normalization a bias takes its place, as for all convolutions here."""
    x = keras.layers.Conv2D(filters, size, stride, "same", use_bias=layer_class is None)(x)
    return normalize(x, layer_class, activation)


def classes(x):
    return keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))


def mlp(layer_class):
    """That of the MNIST example."""
    inputs = x = keras.Input((784,))
    for _ in range(3):
        x = keras.layers.Dense(100, use_bias=layer_class is None)(x)
        x = normalize(x, layer_class, "sigmoid")
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def resnet20(layer_class):
    """He et al. 2016, Sec. 4.2, for CIFAR-10; two shortcuts are projections instead of padding."""
    inputs = keras.Input((32, 32, 3))
    x = conv(inputs, layer_class, 16, activation="relu")
    for filters in (16, 32, 64):
        for block in range(3):
            stride = 2 if block == 0 and filters > 16 else 1
            shortcut = x if x.shape[-1] == filters else keras.layers.Conv2D(filters, 1, stride)(x)
            x = conv(x, layer_class, filters, stride=stride, activation="relu")
            x = keras.layers.ReLU()(keras.layers.Add()([conv(x, layer_class, filters), shortcut]))
    return keras.Model(inputs, classes(x))


def inception(layer_class):
    """A stem and two modules as those of Ioffe & Szegedy 2015, Fig. 5 (3a, and 3c, which halves the image)."""
    inputs = keras.Input((32, 32, 3))

    def convs(x, *layers):
        for filters, size, stride in layers:
            x = conv(x, layer_class, filters, size, stride, "relu")
        return x

    x = convs(inputs, (32, 3, 1))
    x = keras.layers.MaxPooling2D(3, 2, "same")(x)
    x = keras.layers.Concatenate()(
        [
            convs(x, (32, 1, 1)),
            convs(x, (32, 1, 1), (32, 3, 1)),
            convs(x, (32, 1, 1), (48, 3, 1), (48, 3, 1)),
            convs(keras.layers.AveragePooling2D(3, 1, "same")(x), (16, 1, 1)),
        ]
    )
    x = keras.layers.Concatenate()(
        [
            convs(x, (64, 1, 1), (80, 3, 2)),
            convs(x, (32, 1, 1), (48, 3, 1), (48, 3, 2)),
            keras.layers.MaxPooling2D(3, 2, "same")(x),
        ]
    )
    return keras.Model(inputs, classes(x))


def mobilenet_v2(layer_class):
    """Sandler et al. 2018, Table 2; for images of 32 x 32 the first two of its five halvings are left out."""
    inputs = keras.Input((32, 32, 3))

    def inverted_residual(x, filters, stride, expansion):
        block, channels = x, x.shape[-1]
        if expansion > 1:
            block = conv(block, layer_class, expansion * channels, 1, activation="relu6")
        block = keras.layers.DepthwiseConv2D(3, stride, "same", use_bias=layer_class is None)(block)
        block = conv(normalize(block, layer_class, "relu6"), layer_class, filters, 1)
        return keras.layers.Add()([x, block]) if stride == 1 and channels == filters else block

    x = conv(inputs, layer_class, 32, activation="relu6")
    for expansion, filters, repeats, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for repeat in range(repeats):
            x = inverted_residual(x, filters, first_stride if repeat == 0 else 1, expansion)
    return keras.Model(inputs, classes(conv(x, layer_class, 1280, 1, activation="relu6")))


class Network(NamedTuple):
    build: Callable[[type | None], keras.Model]
    batch: int
    large_batch: int  # so large that a step's memory is mostly activations


NETWORKS = {
    "MLP": Network(mlp, 60, 65536),
    "Inception": Network(inception, 32, 512),
    "ResNet-20": Network(resnet20, 128, 512),
    "MobileNetV2": Network(mobilenet_v2, 32, 128),
}


def compiled(name: str, layer: str, mode: str) -> keras.Model:
    """A network, ready to train."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[name].build(LAYERS[layer])
    model.compile(
        # So small a rate that nothing diverges without normalization: NaN is slow to compute with.
        keras.optimizers.SGD(1e-6),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=mode == "xla",
    )
    return model


def examples(model: keras.Model, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and classes."""
    random = np.random.default_rng(0)
    return random.normal(size=(count, *model.input_shape[1:])).astype("float32"), random.integers(0, 10, count)
