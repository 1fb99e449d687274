"""The graph of a functional model, read from its configuration: Keras has no other public description of it.

A configuration lists the operations and, with each, its calls in order: "nodes", with the arguments of the call. A
tensor is named by where it comes from: operation, number of the call, number of the output.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras


class Source(NamedTuple):
    """Where a tensor comes from: the output number `output` of call number `call` of the operation `name`."""

    name: str
    call: int
    output: int


class Graph:
    """What a functional model computes: which operations it calls on what.

    Attributes:
        operations: The operations (layers, models, those of `keras.ops`) by name, inputs included.
        inputs: The structure of the model's inputs, with a `Source` in place of each tensor.
        outputs: The same of the outputs.
        rest: What else the model's constructor takes: `name`, `trainable`, arguments of the model's own class.
    """

    def __init__(self, model: keras.Model) -> None:
        """Reads the graph of `model`.

        Raises:
            ValueError: If `model` is not a functional model.
        """
        config = model.get_config() if hasattr(model, "operations") else {}
        if not {"layers", "input_layers", "output_layers"} <= config.keys():
            raise ValueError(
                "Argument `model` must be made of functional and Sequential models, whose graph Keras knows. Received: "
                f"{model.name!r} of class {type(model).__name__}, whose configuration has no graph, as its `call` or "
                "its constructor is Python code. Build it with the functional API. If it has inputs and outputs, hand "
                "in keras.Model(model.inputs, model.outputs)."
            )
        self.operations = {operation.name: operation for operation in model.operations}
        self._calls = {entry["name"]: entry["inbound_nodes"] for entry in config.pop("layers")}
        self.inputs = self._structure(config.pop("input_layers"))
        self.outputs = self._structure(config.pop("output_layers"))
        self.rest = config

    def _structure(self, value: Any) -> Any:
        """The structure of inputs or outputs with a `Source` for each tensor."""
        if isinstance(value, dict):
            return {key: self._structure(item) for key, item in value.items()}
        if len(value) == 3 and isinstance(value[0], str):
            name, call, output = value
            # Here, and only here, Keras counts the calls of a functional model from 1.
            return Source(name, call - hasattr(self.operations[name], "operations"), output)
        return type(value)(self._structure(item) for item in value)

    def calls(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Each call, as name of the operation, number of the call and arguments, after those that it depends on.

        An operation that is called several times may depend on others in between.
        """
        done: set[tuple[str, int]] = {(name, 0) for name, calls in self._calls.items() if not calls}
        waiting = [(name, number, call) for name, calls in self._calls.items() for number, call in enumerate(calls)]
        while waiting:
            later = []
            for name, number, call in waiting:
                if all((source.name, source.call) in done for source in sources(call)):
                    done.add((name, number))
                    yield name, number, call
                else:
                    later.append((name, number, call))
            waiting = later


def is_model(operation: Any) -> bool:
    """Whether `operation` is a model that is rebuilt from what it is made of; others are layers like any other."""
    if isinstance(operation, keras.Sequential):
        return True
    if not isinstance(operation, keras.Model):
        return False
    try:
        Graph(operation)
    except ValueError:
        return False
    return True


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def sources(arguments: Any) -> list[Source]:
    """The tensors in the serialized arguments of a call, in the order in which Keras flattens them."""
    if _is_tensor(arguments):
        return [Source(*arguments["config"]["keras_history"])]
    if isinstance(arguments, dict):
        return [source for key in sorted(arguments) for source in sources(arguments[key])]
    if isinstance(arguments, list | tuple):
        return [source for item in arguments for source in sources(item)]
    return []


def revive(arguments: Any, tensor: Callable[[Source], Any]) -> Any:
    """Serialized arguments as values again, each tensor as what `tensor` gives for its source."""
    if _is_tensor(arguments):
        return tensor(Source(*arguments["config"]["keras_history"]))
    if isinstance(arguments, list | tuple):
        return type(arguments)(revive(item, tensor) for item in arguments)
    if isinstance(arguments, dict) and "class_name" not in arguments:
        return {key: revive(item, tensor) for key, item in arguments.items()}
    return keras.saving.deserialize_keras_object(arguments)
