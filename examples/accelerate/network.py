"""A small Inception as one would have built it before batch normalization: LRN, dropout, L2, distortions."""

import keras

from kerasbn import LocalResponseNormalization

L2 = 1e-4
DROPOUT = 0.4


def build(
    shape: tuple[int, int, int],
    classes: int,
    learning_rate: float,
    decay_steps: int,
    seed: int,
    distortion: float = 0.2,
) -> keras.Model:
    """The compiled network, with nothing normalized.

    Args:
        shape: Of an image: height, width, channels.
        classes: Number of classes.
        learning_rate: Of SGD with momentum 0.9, at the start.
        decay_steps: Number of steps in which the rate falls to a tenth, exponentially.
        seed: Of weights, dropout and distortions.
        distortion: How far brightness and contrast are moved at random, as a part of their range.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    x = keras.layers.RandomBrightness(distortion, value_range=(0, 1), name="random_brightness")(inputs)
    x = keras.layers.RandomContrast(distortion, value_range=(0, 1), name="random_contrast")(x)
    x = keras.layers.Rescaling(4.0, offset=-2.0, name="rescaling")(x)
    x = convolution(x, 32, 3, "stem")
    x = LocalResponseNormalization(2, alpha=1e-4, beta=0.75, name="lrn_1")(x)
    x = inception(x, 64, "a")
    x = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool_1")(x)
    x = LocalResponseNormalization(2, alpha=1e-4, beta=0.75, name="lrn_2")(x)
    x = inception(x, 128, "b")
    x = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool_2")(x)
    x = inception(x, 192, "c")
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    x = keras.layers.Dropout(DROPOUT, name="dropout")(x)
    outputs = keras.layers.Dense(classes, kernel_regularizer=keras.regularizers.L2(L2), name="logits")(x)
    model = keras.Model(inputs, outputs, name="inception")
    rate = keras.optimizers.schedules.ExponentialDecay(learning_rate, decay_steps, 0.1)
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def convolution(x, filters: int, size: int, name: str):
    """A convolution and ReLU, by He et al.'s (2015) initial weights."""
    return keras.layers.Conv2D(
        filters,
        size,
        padding="same",
        activation="relu",
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(L2),
        name=name,
    )(x)


def inception(x, filters: int, name: str):
    """Four branches side by side: 1x1; 3x3; 5x5 as two 3x3; pooled."""
    one = convolution(x, filters // 4, 1, f"{name}_1x1")
    three = convolution(x, filters // 4, 1, f"{name}_3x3_reduce")
    three = convolution(three, filters // 2, 3, f"{name}_3x3")
    five = convolution(x, filters // 8, 1, f"{name}_5x5_reduce")
    five = convolution(five, filters // 8, 3, f"{name}_5x5_1")
    five = convolution(five, filters // 8, 3, f"{name}_5x5_2")
    pooled = keras.layers.AveragePooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    pooled = convolution(pooled, filters // 8, 1, f"{name}_pool_1x1")
    return keras.layers.Concatenate(name=f"{name}_concatenate")([one, three, five, pooled])
