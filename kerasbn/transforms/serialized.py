"""Configurations within configurations: cells in recurrent layers, layers in wrappers, regularizers in all of them."""

from collections.abc import Callable
from typing import Any

#: From the class name of one of Keras's own objects, its configuration and where it is, to a new configuration.
Edit = Callable[[str, dict[str, Any], tuple[str, ...]], dict[str, Any]]


def edited(module: str, class_name: str, config: dict[str, Any], edit: Edit, path: tuple[str, ...] = ()) -> Any:
    """`config`, the configuration of an object, with `edit` applied to it and to all of Keras's own objects within.

    Args:
        module: The module of the object's class; `edit` sees objects of Keras only.
        class_name: The name of its class.
        config: Its configuration.
        edit: What to do.
        path: The arguments that lead to the object: `("layer", "kernel_regularizer")` in a `Bidirectional`.
    """

    def within(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(within(item, (*path, str(index))) for index, item in enumerate(value))
        if isinstance(value, dict) and {"class_name", "config"} <= value.keys() and isinstance(value["config"], dict):
            inner = edited(value.get("module") or "", value["class_name"], value["config"], edit, path)
            return {**value, "config": inner}
        return value

    config = {name: within(value, (*path, name)) for name, value in config.items()}
    return edit(class_name, config, path) if module.split(".")[0] == "keras" else config
