"""The call of a layer, taken over on the instance.

`call` is the public name by which everything calls a layer, `TimeDistributed` and other wrappers too.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from kerasbn.selection import layers_in


class TakenOver:
    """In place of ``layer.call``: runs what its class has, with another `training`.

    A class derived from Keras's or kerasbn's may have any signature, also without `training`.
    """

    def __init__(self, layer: keras.Layer) -> None:
        """Remembers whose call this is."""
        self.layer = layer
        self._signature = inspect.signature(type(layer).call)
        kinds = {parameter.kind: name for name, parameter in self._signature.parameters.items()}
        self._rest = kinds.get(inspect.Parameter.VAR_KEYWORD)

    def bound(self, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """The arguments of a call by the names that the layer's class has for them, defaults too."""
        bound = self._signature.bind(self.layer, *args, **kwargs)
        bound.apply_defaults()
        return bound

    def argument(self, bound: inspect.BoundArguments, name: str, default: Any = None) -> Any:
        """An argument of a call, or `default` if there is none of this name."""
        rest = bound.arguments[self._rest] if self._rest else {}
        return {**rest, **bound.arguments}.get(name, default)

    def run(self, bound: inspect.BoundArguments, training: bool | None) -> Any:
        """The result of a call, in training or inference mode as far as the class takes that; `None` for as it came."""
        if training is not None:
            if "training" in self._signature.parameters:
                bound.arguments["training"] = training
            elif self._rest:
                bound.arguments[self._rest]["training"] = training
        return type(self.layer).call(*bound.args, **bound.kwargs)


class InInferenceMode(TakenOver):
    """The call of a layer that stays in inference mode, whatever it is called with and whatever its class makes of it.

    A class may ask the one that it is derived from for training mode. That gives inference mode where `trainable` is
    `False`, so it is during the call. The flags of variables, which an optimizer looks at, are what they were after it.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer with ``training=False``."""
        undo = as_it_is(self.layer)
        try:
            self.layer.trainable = False
            return self.run(self.bound(*args, **kwargs), False)
        finally:
            undo(self.layer)


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
