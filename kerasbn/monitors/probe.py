"""What goes through the layers of a model for a fixed batch of examples."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasbn.arguments import built, with_call
from kerasbn.arrays import examples
from kerasbn.layers.arguments import one_of
from kerasbn.snapshot import RandomState, Snapshot
from kerasbn.transforms.graph import Graph

#: Which layers: names, or a function that says whether a layer is meant. Those of the model itself, as it is in its
#: graph that values are read; and always some, as those of all would be too many. `kerasbn.selection.Selection`, which
#: has the same name as an argument, is of layers at any depth, and may be `None`.
Layers = Sequence[str] | Callable[[keras.layers.Layer], bool]


class Probe:
    """Reads inputs or outputs of layers for a fixed batch; nothing else happens to the model.

    Args:
        model: A built functional or Sequential model.
        x: What the model takes.
        layers: Names of layers, or a function; of the model itself, not of models nested in it.
        of: `"input"` or `"output"` of the layers.
        training: Whether the model is called as in training, with the statistics of the batch. Moving statistics,
            dropout's seeds and the random state are put back.

    Attributes:
        names: The names of the layers, in the order of the model.

    Raises:
        ValueError: If an argument is out of its range, if a layer is not there or is called several times, or if the
            model is not functional or Sequential.
    """

    def __init__(self, model: Any, x: Any, layers: Layers, of: str, training: bool) -> None:
        """Finds the layers; see the class."""
        found = chosen(model, layers, of)
        examples("x", x)
        self.names = list(found)
        part = keras.Model(ends(model)[0], list(found.values()))
        self._model, self._x, self._training = model, x, training
        self._call = tf.function(lambda x: part(x, training=training), autograph=False)

    def read(self) -> dict[str, np.ndarray]:
        """For each layer its values, ``[examples, ..., channels]``, in the order of `names`."""
        if not self._training:
            return self._values()
        random_state = RandomState()
        state = Snapshot(self._model.non_trainable_variables, self._model.distribute_strategy)
        try:
            return self._values()
        finally:
            state.restore()
            random_state.restore()

    def _values(self) -> dict[str, np.ndarray]:
        values = self._call(self._x)
        return {name: value.numpy() for name, value in zip(self.names, keras.tree.flatten(values), strict=True)}


def ends(model: Any) -> tuple[Any, Any]:
    """The structures of symbolic tensors that `model` takes and gives."""
    return (model.inputs[0], model.outputs[0]) if isinstance(model, keras.Sequential) else (model.input, model.output)


def channels(values: np.ndarray) -> np.ndarray:
    """Values as samples of their channels, ``[values, channels]``, in float64."""
    return values.reshape(-1, values.shape[-1]).astype("float64")


def chosen(model: Any, layers: Layers, of: str) -> dict[str, Any]:
    """The chosen layers by name, with the symbolic tensor that is their input or output, in the order of the model.

    Raises:
        ValueError: As `Probe` does.
    """
    one_of("of", of, ("input", "output"))
    if not getattr(built(with_call(model)), "inputs", None):
        raise ValueError(
            "The model must be functional or Sequential, so that the values in it can be had. Received: "
            f"{model.name!r} of class {type(model).__name__}. Build it with the functional API, or hand in an inner "
            "model that is; callbacks have an argument `model` for it."
        )
    if callable(layers):
        found = [layer for layer in model.layers if layers(layer)]
    else:
        names = [layers] if isinstance(layers, str) else list(layers)
        missing = set(names) - {layer.name for layer in model.layers}
        if missing:
            raise ValueError(
                f"Argument `layers` must name layers of the model. Received: {sorted(missing)}, which are not among "
                f"{[layer.name for layer in model.layers]}."
            )
        found = [layer for layer in model.layers if layer.name in names]
    if not found:
        raise ValueError(f"Argument `layers` must choose one layer at least. Received: {layers!r}, which chooses none.")
    calls = [] if isinstance(model, keras.Sequential) else [name for name, _, _ in Graph(model).calls()]
    several = [layer.name for layer in found if calls.count(layer.name) > 1]
    if several:
        raise ValueError(
            f"Argument `layers` must choose layers that are called once. Received: {several}, called several times. "
            "Put an Identity layer where you mean, and choose that."
        )
    return {layer.name: getattr(layer, of) for layer in found}
