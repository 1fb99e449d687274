"""The network of Sec. 4.1: three hidden layers of 100 sigmoid units and ten outputs."""

from collections.abc import Callable

import keras

from kerasbn import BatchNorm

#: The two networks that are compared, with their names in the figure.
NETWORKS = {"plain": "without BN", "batch_norm": "with BN"}

#: The layer that holds the inputs of the last hidden layer's sigmoids.
LAST_SIGMOID_INPUT = "last_sigmoid_input"


def build(
    network: str,
    pixels: int,
    initial_stddev: float,
    seed: int,
    *,
    activation: str = "sigmoid",
    momentum: float = 0.99,
    behind: Callable[[int], keras.layers.Layer] | None = None,
) -> keras.Model:
    """Builds one of `NETWORKS`. They differ in nothing but the normalization and the bias that it makes redundant
    (Sec. 3.2).

    Args:
        network: A key of `NETWORKS`.
        pixels: Number of inputs.
        initial_stddev: Standard deviation of the Gaussians that weights start from.
        seed: Both networks start from the same weights for the same seed.
        activation: Of the hidden layers.
        momentum: Of the moving statistics.
        behind: Function from the number of a hidden layer to a layer that is put behind its normalization.
    """
    normalized = network == "batch_norm"

    def dense(units: int, index: int, name: str | None = None, use_bias: bool = True) -> keras.layers.Dense:
        initializer = keras.initializers.RandomNormal(stddev=initial_stddev, seed=4 * seed + index)
        return keras.layers.Dense(units, kernel_initializer=initializer, use_bias=use_bias, name=name)

    model = keras.Sequential([keras.Input((pixels,))], name=network)
    for index in range(3):
        name = LAST_SIGMOID_INPUT if index == 2 else None
        if normalized:
            model.add(dense(100, index, use_bias=False))
            model.add(BatchNorm(momentum=momentum, name=name))
            if behind:
                model.add(behind(index))
        else:
            model.add(dense(100, index, name=name))
        model.add(keras.layers.Activation(activation))
    model.add(dense(10, 3))
    return model
