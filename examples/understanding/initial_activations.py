"""Means and deviations of channels against depth."""

from typing import Any

import keras
import numpy as np

from examples.understanding.initial_layers import blocks
from examples.understanding.initial_numbers import significant
from kerasbn.monitors import activation_statistics

#: The layers of a block that are looked at. The first is what batch normalization gets, where there is one.
PLACES = {"convolution": "conv_1", "block": "relu_2"}


def moments(model: keras.Model, images: np.ndarray, depth: int) -> dict[str, dict[str, Any]]:
    """For each of `PLACES`, block by block, root mean squares over channels of their means and of their deviations."""
    names = {place: [f"b{block}_{layer}" for block in blocks(depth)] for place, layer in PLACES.items()}
    found = activation_statistics(model, images, [name for each in names.values() for name in each])

    def over_channels(place: str, what: str) -> list[float]:
        return significant([np.sqrt(np.mean(found[name][what] ** 2)) for name in names[place]], 3)

    return {place: {what: over_channels(place, what) for what in ("mean", "deviation")} for place in PLACES}
