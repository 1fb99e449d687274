"""Output layers: those after which no other layer multiplies with a matrix."""

from collections.abc import Sequence
from typing import Any

import keras

from kerasbn.layer_kinds import LINEAR
from kerasbn.layers.affine import Affine
from kerasbn.selection import layers_in
from kerasbn.transforms.flow import Call, by_operation, repeated_model

#: Layers that multiply with learned matrices, among other things.
WITH_KERNEL = (
    *LINEAR,
    keras.layers.Bidirectional,
    keras.layers.EinsumDense,
    keras.layers.GroupQueryAttention,
    keras.layers.MultiHeadAttention,
    keras.layers.RNN,
)

#: Layers that may have weights with several axes and yet treat each value apart.
WITHOUT_KERNEL = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.PReLU,
    Affine,
)


def output_layers(calls: Sequence[Call]) -> set[int]:
    """The ids of operations after which no layer with a kernel comes, on the way from one of their calls to an output.

    Args:
        calls: All calls of a model, as `trace` gives them.
    """
    with_kernel = {id(operation) for operation, _ in by_operation(calls) if _has_kernel(operation)}
    found: set[int] = set()
    for output in calls[-1].inputs:
        on_the_way, todo = set(), [output]
        while todo:
            call = todo.pop()
            if id(call) not in on_the_way:
                on_the_way.add(id(call))
                todo += call.inputs
        hidden: set[int] = set()
        for call in reversed([call for call in calls if id(call) in on_the_way]):
            users = [user for user in call.users if id(user) in on_the_way]
            if any(id(user) in hidden or id(user.operation) in with_kernel for user in users):
                hidden.add(id(call))
            else:
                found.add(id(call.operation))
    return found


def _has_kernel(operation: Any) -> bool:
    """Whether `operation` multiplies with a matrix that is learned, itself or in a layer within."""
    if not isinstance(operation, keras.layers.Layer) or repeated_model(operation):  # whose layers have their calls
        return False
    layers = [layer for layer, _ in layers_in(operation)]
    if any(isinstance(layer, WITH_KERNEL) for layer in layers):  # built or not
        return True
    others = {id(weight) for layer in layers if isinstance(layer, WITHOUT_KERNEL) for weight in layer.weights}
    return any(len(weight.shape) > 1 and id(weight) not in others for weight in operation.weights)
