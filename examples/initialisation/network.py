"""A small convolutional network by He's initial weights, without and with batch normalization."""

import keras

import kerasbn

NETWORKS = {"plain": "without BN", "batch_norm": "with BN"}
FILTERS = ((16, 2), (16, 1), (16, 2), (32, 1), (32, 2), (32, 1))


def build(network: str, shape: tuple[int, int, int], classes: int, seed: int, momentum: float = 0.9) -> keras.Model:
    """Six convolutions of 3x3 with ReLU, three of them of stride 2, an average and the outputs. Not compiled.

    Args:
        network: One of `NETWORKS`. For a seed both have the same kernels.
        shape: Of an image: height, width, channels.
        classes: Number of outputs, which are logits.
        seed: Of the initial weights.
        momentum: Of the moving statistics.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    x = keras.layers.Rescaling(4.0, offset=-2.0, name="rescaling")(inputs)
    for i, (filters, stride) in enumerate(FILTERS):
        x = keras.layers.Conv2D(
            filters, 3, stride, "same", activation="relu", kernel_initializer="he_normal", name=f"conv_{i + 1}"
        )(x)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    outputs = keras.layers.Dense(classes, kernel_initializer="he_normal", name="logits")(x)
    model = keras.Model(inputs, outputs, name="plain")
    return kerasbn.batch_normalize(model, momentum=momentum) if network == "batch_norm" else model
