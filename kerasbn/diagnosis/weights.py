"""What the weights of a model say without data: numbers that nothing can be computed with."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kerasbn.diagnosis.finding import Finding
from kerasbn.freezing import is_frozen
from kerasbn.selection import layers_in


def not_finite(model: keras.Model) -> Iterator[Finding]:
    """The finding that weights of a layer of any kind are NaN or infinite."""
    owners: dict[int, keras.Layer] = {}
    # From the outside in: a weight belongs to the layer that has the fewest.
    for layer in sorted({layer: None for layer, _ in layers_in(model)}, key=lambda layer: -len(layer.weights)):
        owners.update({id(weight): layer for weight in layer.weights})
    broken: dict[keras.Layer, int] = {}
    for weight in model.weights:
        values, layer = np.asarray(weight), owners[id(weight)]
        if values.dtype.kind not in "iub":
            broken[layer] = broken.get(layer, 0) + int(np.count_nonzero(~np.isfinite(values)))
    for layer, number in broken.items():
        if not number:
            continue
        all_of_them = sum(int(np.prod(weight.shape)) for weight in layer.weights)
        advice = (
            f"{number} of {all_of_them} weights and statistics of this layer are NaN or infinite. Go back to a "
            "checkpoint, and train with a lower learning rate or with a loss scale."
        )
        yield Finding("error", "not finite", layer.path, float(number), advice)


def invalid_variance(layers: Sequence[Any]) -> Iterator[Finding]:
    """The finding that a layer cannot divide by ``sqrt(moving_variance + epsilon)``."""
    for layer in layers:
        variance = np.asarray(layer.moving_variance, "float64")
        invalid = (variance < 0) | (variance + layer.epsilon == 0)
        if invalid.any():
            advice = (
                f"The moving variance of {invalid.sum()} of {variance.size} channels is not positive (the lowest is "
                f"{variance[invalid].min():.3g}, with epsilon {layer.epsilon:g}), so that inference gives NaN or wrong "
                "values there. Training cannot make a variance negative: look at how the weights were loaded, averaged "
                f"or edited, and run {recalibration(layer)}."
            )
            yield Finding("error", "invalid variance", layer.path, float(invalid.sum()), advice)


def recalibration(layer: Any) -> str:
    """The call that gives `layer` the statistics of the data: a frozen one has to be named."""
    return f"kerasbn.recalibrate(model, data{f', layers={layer.name!r}' * is_frozen(layer)})"
