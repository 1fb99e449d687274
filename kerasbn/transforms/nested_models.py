"""Models in the configuration of a layer: a CNN that a `TimeDistributed` calls, or that a custom layer holds."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras

from kerasbn.transforms.graph import is_model

#: The name of what stands for a model in a configuration, until the layer is made from it.
REFERENCE = "kerasbn>NestedModel"

#: From a model to the one that takes its place; `None` while no model is rebuilt.
_rebuilt: ContextVar[Callable[[keras.Model], keras.Model] | None] = ContextVar("rebuilt", default=None)


@contextmanager
def rebuilding(rebuilt: Callable[[keras.Model], keras.Model]) -> Iterator[None]:
    """Within it, layers that are made from the `configuration` of others get the models that `rebuilt` gives."""
    token = _rebuilt.set(rebuilt)
    try:
        yield
    finally:
        _rebuilt.reset(token)


def models_in(layer: Any) -> list[keras.Model]:
    """The functional and Sequential models that `layer` holds, each once, without those in them."""
    found: list[keras.Model] = []
    seen: set[int] = set()

    def visit(value: Any) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if value is not layer and is_model(value):
            found.append(value)
        elif isinstance(value, keras.Layer):
            visit_all(vars(value).values())
        elif isinstance(value, Mapping):
            visit_all(value.values())
        elif isinstance(value, list | tuple):
            visit_all(value)

    def visit_all(values: Any) -> None:
        for value in list(values):
            visit(value)

    visit(layer)
    return found


def configuration(operation: Any) -> dict[str, Any]:
    """`operation.get_config()`. While a model is rebuilt, it has references in the place of the models in it.

    So what edits configurations leaves alone what is rebuilt anyway, and a model that is in several layers stays one.
    """
    config = operation.get_config()
    if _rebuilt.get() is None:
        return config
    models: dict[tuple[str, str], list[int]] = {}
    for number, model in enumerate(models_in(operation)):
        models.setdefault((type(model).__name__, model.name), []).append(number)

    def refer(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(refer, value))
        if not isinstance(value, dict):
            return value
        inner = value.get("config")
        numbers = models.get((value.get("class_name", ""), inner.get("name", ""))) if isinstance(inner, dict) else None
        if not numbers:
            return {key: refer(item) for key, item in value.items()}
        number = numbers.pop(0) if len(numbers) > 1 else numbers[0]  # those of one name come in their order
        return {"class_name": REFERENCE, "registered_name": REFERENCE, "module": None, "config": {"number": number}}

    return refer(config) if models else config


def references(operation: Any) -> dict[str, Any]:
    """The custom object with which Keras makes a layer from the `configuration` of `operation`."""
    rebuilt = _rebuilt.get()
    if rebuilt is None:
        return {}
    models = models_in(operation)
    # Keras asks the class of a serialized object to make it.
    from_config = staticmethod(lambda config: rebuilt(models[config["number"]]))
    return {REFERENCE: type("NestedModel", (), {"from_config": from_config})}
