"""Where the dropout of a model is, and its rates."""

from collections.abc import Iterator

import keras

from kerasbn.selection import Selection, check_names, layers_in

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
    rates, names, with_dropout = [], set(), set()
    for layer, within in layers_in(model, layers):
        names.add(layer.name)
        with_dropout |= {layer.name for _ in _attributes(layer, explicit=False, noise=noise)}
        if within or layers is None:
            rates += [DropoutRate(layer, name) for name in _attributes(layer, explicit=within, noise=noise)]
    check_names(layers, names, "Layers with dropout", with_dropout)
    return rates


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
