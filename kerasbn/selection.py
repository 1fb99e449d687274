"""Layers in a model at any depth, and which of them an argument `layers` means."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from kerasbn.arguments import a_model

#: `None` for all; a name or several; or a function of a layer that says whether it is meant. A layer stands for all in
#: it, also a nested model; a function is asked of the model itself, too, so it should look at the class as well.
#: What a monitor reads is meant otherwise: `kerasbn.monitors.probe.Layers`.
Selection = str | Sequence[str] | Callable[[keras.Layer], bool] | None


def layers_in(root: keras.Layer, layers: Selection = None) -> Iterator[tuple[keras.Layer, bool]]:
    """`root` and all layers in it, and whether `layers` names them or one around them; with `None` none is named.

    Each comes once, but one that is shared may come twice: on a way through a layer that is meant, and on another.
    """
    return _layers_in(root, _predicate(layers), False, set())


def check_names(layers: Selection, there: Iterable[str], kind: str, of_kind: Iterable[str]) -> None:
    """Raises ValueError if `layers` names one that is not `there`; the error lists those `of_kind`."""
    if layers is None or callable(layers):
        return
    names = {layers} if isinstance(layers, str) else set(layers)
    missing = sorted(names - set(there))
    if missing:
        raise ValueError(
            f"Argument `layers` must name layers of the model. Received: layers={layers!r}; "
            f"there is no {missing[0]!r}. {kind} are {sorted(set(of_kind))}."
        )


def batch_norms(model: keras.Layer, layers: Selection = None) -> list[keras.layers.BatchNormalization]:
    """The batch normalizations in `model`, Keras's and those of its subclasses; with `layers` those that are meant.

    Raises:
        ValueError: If there is none; if `layers` names a layer that is not there.
    """
    found: dict[int, keras.layers.BatchNormalization] = {}
    a_model(model, kind=keras.Layer)
    names, of_kind = set(), set()
    for layer, within in layers_in(model, layers):
        names.add(layer.name)
        if isinstance(layer, keras.layers.BatchNormalization):
            of_kind.add(layer.name)
            if within or layers is None:
                found[id(layer)] = layer
    check_names(layers, names, "Batch normalizations", of_kind)
    if not of_kind:
        raise ValueError(
            "Argument `model` must have a BatchNormalization in it, of Keras or kerasbn. "
            f"Received: {model.name!r}, which has none. kerasbn.batch_normalize puts them in."
        )
    if not found:
        raise ValueError(
            f"Argument `layers` must mean at least one batch normalization. Received: layers={layers!r}, which means "
            f"none of {sorted(of_kind)}."
        )
    return list(found.values())


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
