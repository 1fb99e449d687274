"""By how much `accelerate` raises a learning rate if it is not told, and why."""

from collections.abc import Iterator
from typing import NamedTuple

import keras

from kerasbn.optimizers import stepping
from kerasbn.selection import layers_in

#: That of BN-x5 in Sec. 4.2.2.
FACTOR = 5.0
NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
)


class Recommendation(NamedTuple):
    """A factor for the learning rate, and for one of 1 the reason, in sentences."""

    factor: float
    reason: str = ""


def recommended_factor(model: keras.Model) -> Recommendation:
    """5 for a network that is not normalized and trains with SGD, as the paper's; else 1."""
    found = normalizations(model)
    others = sorted({type(each).__name__ for each in stepping(model.optimizer) if not _scales_gradients(each)})
    if not found and not others:
        return Recommendation(FACTOR)
    reasons = []
    if found:
        reasons.append(f"the model has normalization already (layer {found[0].name!r}), so its rate was chosen with it")
    if others:
        reasons.append(
            f"{' and '.join(others)} divides each gradient by a running mean of its size, so that the size of a step "
            "does not depend on the scale of the gradients; the paper's factor of 5 was found with SGD"
        )
    return Recommendation(
        1.0,
        f"The learning rate is not raised, and its decay is no faster: {'; and '.join(reasons)}. Recommended: keep the "
        "rate, or find one with kerasbn.find_learning_rate. To raise it all the same, pass `factor`.",
    )


def normalizations(model: keras.Model) -> list[keras.Layer]:
    """The layers in `model` that normalize."""
    return [layer for layer, _ in layers_in(model) if isinstance(layer, NORMALIZATIONS)]


def check_normalized(model: keras.Model, where: object) -> None:
    """Raises ValueError if no layer of `model` normalizes: what follows is for a network that is normalized."""
    if normalizations(model):
        return
    kinds = sorted({type(layer).__name__ for layer in _parts(model) if layer.weights})
    raise ValueError(
        "Argument `model` must have a layer that can be normalized: a Dense or a convolution with a nonlinearity, "
        "other than the output layer. A higher rate without dropout is for normalized networks only. Received: "
        f"{model.name!r} with where={where!r} and layers of these kinds: {', '.join(kinds) or 'none with weights'}. "
        "Recurrent layers, attention and custom layers are not normalized inside: put kerasbn.BatchNorm between them "
        "yourself, or pass where=None if the model is normalized in its own way."
    )


def _parts(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _parts(layer)
        else:
            yield layer


def _scales_gradients(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether a step is a multiple of gradients."""
    return isinstance(optimizer, keras.optimizers.SGD)
