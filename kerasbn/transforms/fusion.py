"""Which activations can go into the normalization that they follow."""

from collections.abc import Callable, Sequence, Set
from typing import Any

import keras

from kerasbn.layers.batch_norm import FUSED_ACTIVATIONS
from kerasbn.transforms.flow import Call, by_operation


class Fusion:
    """What is fused with what.

    Attributes:
        activations: By the id of a normalization layer, the activation that it gets.
        absorbed: The ids of the operations that are gone.
    """

    def __init__(self, calls: Sequence[Call], meant: Set[int]) -> None:
        """Decides it for the normalizations whose ids are `meant`.

        An operation goes only if all that comes to it comes from normalizations, of each of which all calls go to it
        and nowhere else.
        """
        calls_of = {id(operation): of_it for operation, of_it in by_operation(calls)}
        followers = {norm: _only_follower(calls_of[norm]) for norm in meant & calls_of.keys()}
        normalized = {
            id(user)
            for norm, operation in followers.items()
            if operation is not None
            for call in calls_of[norm]
            for user in call.users
        }
        self.activations: dict[int, Callable[..., Any]] = {}
        self.absorbed: set[int] = set()
        for norm, operation in followers.items():
            activation = _activation(operation)
            if activation and all(id(call) in normalized for call in calls_of[id(operation)]):
                self.activations[norm] = activation
                self.absorbed.add(id(operation))


def _only_follower(calls: Sequence[Call]) -> Any:
    """The operation that alone uses what these calls of a normalization give, if it can be computed there."""
    users = [user for call in calls for user in call.users]
    norm, operation = calls[0].operation, users[0].operation if users else None
    if len(users) != len(calls) or any(user.operation is not operation for user in users):
        return None
    # What a nested model gives stays what it is.
    if any(_model(call) != _model(user) for call, user in zip(calls, users, strict=True)):
        return None
    if getattr(norm, "activation", keras.activations.linear) is not keras.activations.linear:
        return None
    return operation if _activation(operation) is not None and _is_plain(operation, norm) else None


def _model(call: Call) -> str:
    return call.where.rpartition("/")[0]


def _is_plain(operation: Any, norm: keras.layers.Layer) -> bool:
    """Whether it does nothing besides, and in the same precision."""
    if not isinstance(operation, keras.layers.Layer):
        return True
    return operation.activity_regularizer is None and operation.dtype_policy == norm.dtype_policy


def _activation(operation: Any) -> Callable[..., Any] | None:
    """The activation that `operation` is, if it is one that kernels compute."""
    if isinstance(operation, keras.layers.Activation):
        return operation.activation if operation.activation in FUSED_ACTIVATIONS else None
    if isinstance(operation, keras.layers.ReLU):
        settings = (operation.negative_slope, operation.threshold, operation.max_value)
        return {(0, 0, None): keras.activations.relu, (0, 0, 6): keras.activations.relu6}.get(settings)
    if isinstance(operation, keras.layers.LeakyReLU):
        # A single precision copy of the slope, if it is one, is not what the function has.
        return keras.activations.leaky_relu if operation.negative_slope == 0.2 else None
    # Those of `keras.ops`.
    names = {"Relu": keras.activations.relu, "Relu6": keras.activations.relu6}
    return None if isinstance(operation, keras.layers.Layer) else names.get(type(operation).__name__)
