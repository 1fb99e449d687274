"""Configurations within configurations: cells in recurrent layers, layers in wrappers, regularizers in all of them."""

from collections.abc import Callable
from typing import Any

#: From the name of an object's class (empty if it is not one of Keras's own), its configuration and where it is, to a
#: new configuration.
Edit = Callable[[str, dict[str, Any], tuple[str, ...]], dict[str, Any]]


def edited(config: dict[str, Any], edit: Edit, owner: type | None = None) -> dict[str, Any]:
    """`config` with `edit` applied to it and, before that, to the configuration of each object within.

    Args:
        config: The configuration of an object, or a dictionary of serialized ones.
        edit: What to do. Where an object is, it gets to know as the arguments that lead to it: `("layer",
            "kernel_regularizer")` in a `Bidirectional`.
        owner: The class that `config` belongs to.
    """
    return _edited(owner.__module__ if owner else "", owner.__name__ if owner else "", config, edit, ())


def replaced(value: Any, replace: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A configuration with `replace` applied to each serialized object in it, after those within that."""
    if isinstance(value, list | tuple):
        return type(value)(replaced(item, replace) for item in value)
    if not isinstance(value, dict):
        return value
    value = {name: replaced(item, replace) for name, item in value.items()}
    return replace(value) if _is_object(value) else value


def _is_object(value: dict[str, Any]) -> bool:
    return {"class_name", "config"} <= value.keys() and isinstance(value["config"], dict)


def _edited(module: str, class_name: str, config: dict[str, Any], edit: Edit, path: tuple[str, ...]) -> dict[str, Any]:
    def within(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(within(item, (*path, str(index))) for index, item in enumerate(value))
        if not isinstance(value, dict):
            return value
        if not _is_object(value):
            return {name: within(item, (*path, name)) for name, item in value.items()}
        return {**value, "config": _edited(value.get("module") or "", value["class_name"], value["config"], edit, path)}

    config = {name: within(value, (*path, name)) for name, value in config.items()}
    return edit(class_name if module.split(".")[0] == "keras" else "", config, path)
