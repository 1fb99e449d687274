"""The three networks, which differ in what is between a linear layer and its nonlinearity."""

import keras

from examples.covariate_shift.noise import ShiftingNoise
from examples.covariate_shift.results import Settings
from examples.mnist_sigmoid.network import build as build_sigmoid_network


def build(network: str, pixels: int, rate: float, settings: Settings, seed: int) -> keras.Model:
    """One of `results.NETWORKS`, compiled, with the same initial weights as the others have for the same seed."""

    def noise(index: int) -> keras.layers.Layer:
        return ShiftingNoise(*settings.noise, seed=4 * seed + index)

    model = build_sigmoid_network(
        "plain" if network == "plain" else "batch_norm",
        pixels,
        settings.initial_stddev,
        seed,
        activation=settings.activation,
        momentum=settings.momentum,
        behind=noise if network == "noisy" else None,
    )
    model.compile(
        keras.optimizers.SGD(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=max(n for n in range(1, min(settings.every, 50) + 1) if settings.every % n == 0),
    )
    return model
