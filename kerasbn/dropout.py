"""Where the dropout of a model is, and its rates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

Selection = str | Sequence[str] | Callable[[keras.Layer], bool] | None

#: Layers whose `rate` is one of dropout. It may mean anything in others.
WITH_RATE = (keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.AlphaDropout)


class DropoutRate:
    """One rate: an attribute of a layer, and the value that it had."""

    def __init__(self, layer: keras.Layer, attribute: str) -> None:
        """The rate as it is now."""
        self.layer, self.attribute = layer, attribute
        self.original = self.value

    @property
    def value(self) -> float:
        """The rate in force, from the next trace of the model on."""
        return getattr(self.layer, self.attribute)

    def lower(self, rate: float) -> bool:
        """Sets the rate to `rate`, but not above the original: a layer made without dropout has no seed.

        Returns whether that changed anything.
        """
        before, after = self.value, min(self.original, rate)
        setattr(self.layer, self.attribute, after)
        return before != after


def dropout_rates(model: keras.Layer, layers: Selection = None, noise: bool = False) -> list[DropoutRate]:
    """The rates above 0 in `model` and all layers in it.

    Args:
        model: The model, or a layer.
        layers: Which: `None` for all; a name or several; or a function of a layer that says whether it is meant. A
            layer stands for all in it, and one that is meant has its `rate`, `dropout` and `recurrent_dropout` taken
            for rates of dropout whatever its class.
        noise: Whether the standard deviations of `GaussianNoise` are meant too.

    Raises:
        ValueError: If `layers` names a layer that is not there.
    """
    meant = _predicate(layers)
    rates, names = [], set()
    for layer, within in _layers_in(model, meant, False, set()):
        names.add(layer.name)
        if within or layers is None:
            rates += [DropoutRate(layer, name) for name in _attributes(layer, explicit=within, noise=noise)]
    if layers is not None and not callable(layers):
        missing = sorted({layers} - names if isinstance(layers, str) else set(layers) - names)
        if missing:
            there = sorted({rate.layer.name for rate in dropout_rates(model, noise=noise)})
            raise ValueError(
                f"Argument `layers` must name layers of the model. Received: layers={layers!r}; "
                f"there is no {missing[0]!r}. Layers with dropout are {there}."
            )
    return rates


def _predicate(layers: Selection) -> Callable[[keras.Layer], bool]:
    if layers is None:
        return lambda layer: False
    if callable(layers):
        return layers
    names = {layers} if isinstance(layers, str) else set(layers)
    return lambda layer: layer.name in names


def _layers_in(
    value: Any, meant: Callable[[keras.Layer], bool], within: bool, seen: set[tuple[int, bool]]
) -> Iterator[tuple[keras.Layer, bool]]:
    """The layers in attributes, lists and dictionaries, and whether they or one around them are meant.

    Each comes once, but one that is shared may come twice: on a way through a layer that is meant, and on another.
    """
    within = within or (isinstance(value, keras.Layer) and meant(value))
    if (id(value), within) in seen:
        return
    seen.add((id(value), within))
    if isinstance(value, keras.Layer):
        yield value, within
        inner = vars(value).values()
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple | set):
        inner = value
    else:
        return
    for each in list(inner):
        yield from _layers_in(each, meant, within, seen)


def _attributes(layer: keras.Layer, explicit: bool, noise: bool) -> Iterator[str]:
    """The attributes that hold a rate above 0. Properties, as of an RNN, show one that its cell holds."""
    names = {"dropout", "recurrent_dropout"}
    if explicit or isinstance(layer, WITH_RATE):
        names.add("rate")
    if noise and isinstance(layer, keras.layers.GaussianNoise):
        names.add("stddev")
    for name in sorted(names & vars(layer).keys()):
        value = getattr(layer, name)
        if isinstance(value, int | float) and value > 0:
            yield name
