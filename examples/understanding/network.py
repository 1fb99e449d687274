"""A ResNet of settable depth, with batch normalization everywhere, on the last layer alone, or nowhere."""

from typing import Any

import keras

from kerasbn import BatchNorm

NORMALIZED = ("all", "none", "last")
FILTERS = (16, 32, 64)


def resnet(
    depth: int,
    normalized: str,
    shape: tuple[int, int, int],
    classes: int = 10,
    *,
    seed: int = 0,
    initializer: str = "he_normal",
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> keras.Model:
    """He et al.'s (2016) ResNet for CIFAR-10, not compiled: three stages of equally many blocks of two convolutions.

    Where nothing is normalized each convolution has a bias, as `BatchNorm` would give it. Convolutions are called
    `stem`, `b<block>_conv_1`, `b<block>_conv_2` and `b<block>_shortcut`, blocks counted from 1, `logits` is the output.

    Args:
        depth: Number of layers with weights on the longest path, 6 n + 2: 8, 14, 20, 56, 110.
        normalized: `"all"`: `BatchNorm` behind each convolution; `"none"`; `"last"`: on the outputs alone.
        shape: Of an image: height, width, channels.
        classes: Number of outputs, which are logits.
        seed: Of the initial weights.
        initializer: Of the kernels, by Keras's name.
        momentum: Of the moving statistics.
        weight_decay: L2 regularization, of the kernels: half of it times their squares is added to the loss.

    Raises:
        ValueError: If `depth` or `normalized` is something else.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"`depth` must be 6 n + 2 with n from 1 on: 8, 14, 20, ... Received: depth={depth!r}.")
    if normalized not in NORMALIZED:
        raise ValueError(f"`normalized` must be one of {', '.join(NORMALIZED)}. Received: normalized={normalized!r}.")
    keras.utils.set_random_seed(seed)
    everywhere = normalized == "all"

    def kernel() -> dict[str, Any]:
        regularizer = keras.regularizers.L2(weight_decay / 2) if weight_decay else None
        return {"kernel_initializer": keras.initializers.get(initializer), "kernel_regularizer": regularizer}

    def convolution(x, filters: int, size: int, stride: int, name: str):
        layer = keras.layers.Conv2D(
            filters,
            size,
            stride,
            "same",
            use_bias=not everywhere,
            name=name,
            **kernel(),
        )
        x = layer(x)
        return BatchNorm(momentum=momentum, name=f"{name}_bn")(x) if everywhere else x

    inputs = keras.Input(shape)
    x = keras.layers.Rescaling(4.0, offset=-2.0, name="rescaling")(inputs)
    x = keras.layers.ReLU(name="stem_relu")(convolution(x, FILTERS[0], 3, 1, "stem"))
    blocks = (depth - 2) // 6
    for block in range(3 * blocks):
        name, filters = f"b{block + 1}", FILTERS[block // blocks]
        narrower = x.shape[-1] < filters
        stride = 2 if narrower else 1
        shortcut = convolution(x, filters, 1, stride, f"{name}_shortcut") if narrower else x
        x = keras.layers.ReLU(name=f"{name}_relu_1")(convolution(x, filters, 3, stride, f"{name}_conv_1"))
        x = keras.layers.Add(name=f"{name}_add")([convolution(x, filters, 3, 1, f"{name}_conv_2"), shortcut])
        x = keras.layers.ReLU(name=f"{name}_relu_2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    x = keras.layers.Dense(classes, name="logits", **kernel())(x)
    outputs = BatchNorm(momentum=momentum, name="logits_bn")(x) if normalized == "last" else x
    return keras.Model(inputs, outputs, name=f"resnet_{depth}_{normalized}")
