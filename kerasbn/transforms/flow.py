"""Where values flow in a model: each call of each operation with those that use its result, through nested models."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

from kerasbn.arguments import a_model
from kerasbn.transforms.graph import Graph, Source, is_model, sources


class Call:
    """One call of an operation. That of a nested model is not one: those of its operations are, at each of its calls.

    A `TimeDistributed` around a model has two, before and after those of the model.

    Attributes:
        operation: What is called; `None` for the end, where the model's outputs go.
        where: The names of the models around it and of the operation.
        inputs: The calls whose results it takes, in order.
        users: The calls that take its result.
    """

    def __init__(self, operation: Any, where: str, inputs: Sequence["Call"] = ()) -> None:
        """A call that nothing uses yet."""
        self.operation = operation
        self.where = where
        self.inputs = list(inputs)
        self.users: list[Call] = []
        for used in self.inputs:
            used.users.append(self)


def trace(model: keras.Model) -> list[Call]:
    """All calls in `model`, after those whose results they use; last the end."""
    a_model(model)
    calls: list[Call] = []

    def call(operation: Any, where: str, inputs: list[Call]) -> Call:
        calls.append(Call(operation, where, inputs))
        return calls[-1]

    def run(model: keras.Model, prefix: str, inputs: Iterable[Call]) -> list[Call]:
        """Where the outputs of `model` come from."""

        def step(operation: Any, inputs: list[Call]) -> list[Call]:
            where = prefix + operation.name
            if is_model(operation):
                return run(operation, f"{where}/", inputs)
            inner = repeated_model(operation)
            if inner is not None:  # tensors have another rank within, so nothing passes its border
                within = run(inner, f"{where}/{inner.name}/", [call(operation, where, inputs)])
                return [call(operation, where, within)]
            return [call(operation, where, inputs)]

        if isinstance(model, keras.Sequential):
            results = list(itertools.islice(inputs, 1))
            for layer in model.layers:
                results = step(layer, results)
            return results
        graph = Graph(model)
        results_of = {(source.name, 0): [used] for source, used in zip(_flat(graph.inputs), inputs, strict=False)}

        def result(source: Source) -> Call:
            # A nested model has a result for each output. Those of a layer with several are one here.
            results = results_of[source.name, source.call]
            return results[min(source.output, len(results) - 1)]

        for name, number, arguments in graph.calls():
            results_of[name, number] = step(graph.operations[name], [result(s) for s in sources(arguments)])
        return [result(source) for source in _flat(graph.outputs)]

    start = Call(None, "input")
    call(None, "output", run(model, "", itertools.repeat(start)))
    return calls


def repeated_model(operation: Any) -> keras.Model | None:
    """The functional or Sequential model that a `TimeDistributed` calls at each step, if it does."""
    inner = operation
    while isinstance(inner, keras.layers.TimeDistributed):
        inner = inner.layer
    return inner if inner is not operation and is_model(inner) else None


def by_operation(calls: Iterable[Call]) -> list[tuple[Any, list[Call]]]:
    """The operations, each with all its calls."""
    found: dict[int, tuple[Any, list[Call]]] = {}
    for call in calls:
        if call.operation is not None:
            found.setdefault(id(call.operation), (call.operation, []))[1].append(call)
    return list(found.values())


def _flat(structure: Any) -> Iterator[Source]:
    """The tensors of a model's inputs or outputs, in the order in which Keras flattens them."""
    if isinstance(structure, Source):
        yield structure
    else:
        for item in [structure[key] for key in sorted(structure)] if isinstance(structure, dict) else structure:
            yield from _flat(item)


def followers(call: Call, passes: Callable[[Any], bool]) -> list[Call]:
    """The first calls that the result of `call` comes to besides operations that it `passes`."""
    found, seen, todo = [], set(), list(call.users)
    while todo:
        user = todo.pop(0)
        if id(user) in seen:
            continue
        seen.add(id(user))
        if passes(user.operation):
            todo += user.users
        else:
            found.append(user)
    return found
