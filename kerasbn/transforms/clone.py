"""New layers like given ones, or like a part of them: of their class and configuration, with none of their weights."""

import types
from collections.abc import Container, Iterable
from typing import Any

import keras

from kerasbn.transforms.nested_models import configuration, references


def clone(operation: Any, config: dict[str, Any] | None = None) -> Any:
    """A new operation (a layer, or one of `keras.ops`) of the same class.

    What the configuration only names, such as a function of the user's own as activation, is taken from `operation`
    itself: it need not be registered with Keras. A `Lambda` keeps its very function, which Keras would store as byte
    code that no longer knows the names of its module.

    Args:
        operation: What to copy.
        config: A configuration to use instead of ``configuration(operation)``.
    """
    original = configuration(operation)
    config = original if config is None else config
    # Of a Lambda nothing is loaded here but what runs already.
    trust = {"safe_mode": False} if isinstance(operation, keras.layers.Lambda) else {}
    with keras.saving.custom_object_scope(custom_objects([operation]) | references(operation)):
        new = type(operation).from_config(_unbuilt(config), **trust)
    for attribute, value in vars(operation).items():
        argument = attribute.lstrip("_")
        if isinstance(value, types.FunctionType) and argument in original and original[argument] == config[argument]:
            setattr(new, attribute, value)
    return new


def activation_layer(layer: keras.layers.Layer, name: str) -> keras.layers.Layer:
    """The `activation` of `layer` as a layer of its own."""
    if isinstance(layer.activation, keras.layers.Layer):
        return clone(layer.activation, layer.activation.get_config() | {"name": name})
    return keras.layers.Activation(layer.activation, name=name, dtype=layer.dtype_policy)


def inner_layer(layer: Any) -> Any:
    """The layer that computes: `layer` itself, or the one that it calls at each time step."""
    return layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer


def free_name(name: str, taken: Container[str]) -> str:
    """`name`, or a longer one that is not `taken`."""
    while name in taken:
        name += "_1"
    return name


def _unbuilt(config: Any) -> Any:
    """`config` without the shapes that layers in it were built with: those around them build them, and name weights."""
    if isinstance(config, dict):
        return {name: _unbuilt(value) for name, value in config.items() if name != "build_config"}
    return type(config)(map(_unbuilt, config)) if type(config) in (list, tuple) else config


def custom_objects(roots: Iterable[Any], without: type | tuple[type, ...] = ()) -> dict[str, Any]:
    """Classes and functions, by the names that configurations know them by, that `roots` hold and that are not Keras's.

    Args:
        roots: Layers, optimizers and so on, or lists or dictionaries of them.
        without: A class, or several, whose instances are not looked into.

    Raises:
        ValueError: If two of them have the same name, so that a configuration does not say which one is meant.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    todo = list(roots)
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, without):
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, list | tuple | set):
            todo.extend(value)  # `+=` fails with the tuples that TensorFlow wraps, as in a LossScaleOptimizer
        elif isinstance(value, types.FunctionType):
            _add(found, value)
        elif hasattr(value, "get_config") and not isinstance(value, type):
            _add(found, type(value))
            # Keras wraps methods and stores them on the instance: what the class has as well is no argument.
            todo += [v for name, v in getattr(value, "__dict__", {}).items() if not hasattr(type(value), name)]
    return found


def _add(found: dict[str, Any], custom: Any) -> None:
    name = keras.saving.get_registered_name(custom)
    if custom.__module__.split(".")[0] == "keras":
        return
    if found.setdefault(name, custom) is not custom:
        raise ValueError(
            f"Two custom objects have the name {name!r}, {found[name]} and {custom}: a configuration that names one "
            "could mean either. Rename one, or register both with `keras.saving.register_keras_serializable(package)`."
        )
