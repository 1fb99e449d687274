"""Models as they are after training, with statistics that no initializer gives."""

import keras
import numpy as np


def trained(model: keras.Model, seed: int = 0) -> keras.Model:
    """`model` with random weights; factors of both signs, variances above 0."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        value = random.normal(size=weight.shape) * (0.5 if weight.name in ("moving_mean", "beta", "bias") else 1)
        if weight.name in ("moving_variance", "moving_stddev", "renorm_stddev"):
            value = random.uniform(0.3, 2, weight.shape)
        elif weight.name == "gamma":
            value = random.uniform(0.5, 1.5, weight.shape) * random.choice([-1, 1], weight.shape)
        elif "kernel" in weight.name:
            value *= np.prod(weight.shape[:-1]) ** -0.5
        if weight.name not in ("mean", "variance", "count") and "float" in str(weight.dtype):  # of `Normalization`
            weight.assign(value)
    return model
