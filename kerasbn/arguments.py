"""Checks of arguments that are needed outside of the layers; those of the layers are in `layers/arguments.py`."""

from typing import Any

import keras

from kerasbn.layers.arguments import count, number

__all__ = ["a_model", "built", "count", "has_variables", "positive", "with_call", "without_call"]


def positive(name: str, value: Any) -> float:
    """`value` as a finite float above 0."""
    try:
        parsed = number(name, value, 0)
    except ValueError:
        parsed = 0.0
    if not 0 < parsed < float("inf"):
        raise ValueError(f"Argument `{name}` must be a finite number above 0. Received: {name}={value!r}.")
    return parsed


def a_model(value: Any, kind: type = keras.Model) -> Any:
    """`value`, if it is a Keras model, or of another `kind`."""
    if not isinstance(value, kind):
        raise TypeError(
            f"Argument `model` must be a keras.Model. Received: {_shown(value)}. A file is loaded with "
            "keras.saving.load_model, and layers become a model in keras.Sequential."
        )
    return value


def with_call(model: Any) -> Any:
    """`model`, if it can be called: one that is made of parts may have a `train_step` and no `call`."""
    if without_call(a_model(model)):
        parts = [name for name, part in vars(model).items() if isinstance(part, keras.Model)]
        such = f", such as its {' or '.join(map(repr, parts))}" if parts else ""
        raise ValueError(
            f"Argument `model` must be a model that can be called. Received: {model.name!r} of class "
            f"{type(model).__name__}, which has no `call`. Hand in the inner model that is meant{such}; callbacks have "
            "an argument `model` for it."
        )
    return model


def _shown(value: Any) -> str:
    what = f"the class {value.__name__}" if isinstance(value, type) else f"an object of class {type(value).__name__}"
    return repr(value) if value is None or isinstance(value, str) else what


def built(model: Any) -> Any:
    """`model`, if it is one that has its variables."""
    if not has_variables(model):
        advice = "Build its parts: give each" if without_call(model) else "Give it"
        raise ValueError(
            "The model must be built before training, so that all that is in it is known. "
            f"Received: {model.name!r}, which is not. {advice} a keras.Input, or call it on a batch of data."
        )
    return model


def has_variables(model: Any) -> bool:
    """Whether `model` is built, or made of parts that are, which its `train_step` calls in place of itself."""
    return a_model(model).built or (without_call(model) and bool(model.layers) and all(map(_is_built, model.layers)))


def without_call(model: keras.Model) -> bool:
    """Whether `model` is made of parts for its `train_step`, as a GAN is, and cannot be called itself."""
    return type(model).call is keras.Model.call and "call" not in vars(model)


def _is_built(layer: keras.Layer) -> bool:
    return layer.built and all(map(_is_built, getattr(layer, "layers", ())))
