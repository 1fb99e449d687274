"""The call of a layer, taken over on the instance.

`call` is the public name by which everything calls a layer, `TimeDistributed` and other wrappers too.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from kerasbn.selection import layers_in


class TakenOver:
    """In place of ``layer.call``: runs what its class has, with another `training`."""

    def __init__(self, layer: keras.Layer) -> None:
        """Remembers whose call this is."""
        self.layer = layer
        self._signature = inspect.signature(type(layer).call)

    def bound(self, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """The arguments of a call by the names that the layer's class has for them, defaults too."""
        bound = self._signature.bind(self.layer, *args, **kwargs)
        bound.apply_defaults()
        return bound

    def run(self, bound: inspect.BoundArguments, training: bool) -> Any:
        """The result of a call, in training or inference mode."""
        bound.arguments["training"] = training
        return type(self.layer).call(*bound.args, **bound.kwargs)


class InInferenceMode(TakenOver):
    """The call of a layer that stays in inference mode, whatever it is called with."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer with ``training=False``."""
        return self.run(self.bound(*args, **kwargs), False)


def as_it_is(layer: keras.Layer) -> Callable[[keras.Layer], None]:
    """A function that gives `layer`, which it does not hold, the flags and the call that it has now."""
    flags = [inner.trainable for inner, _ in layers_in(layer)]
    of_variables = [(variable, variable.trainable) for variable in layer.variables]
    call = vars(layer).get("call")

    def undo(layer: keras.Layer) -> None:
        # A flag that is set on a layer is set on all in it: so from the outside in.
        for (inner, _), flag in zip(layers_in(layer), flags, strict=True):
            inner.trainable = flag
        for variable, flag in of_variables:
            variable.trainable = flag
        if call is not None:
            layer.call = call
        elif "call" in vars(layer):
            del layer.call

    return undo
