"""What the graph of a model says: what comes before each normalization."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from kerasbn.diagnosis.finding import Finding
from kerasbn.freezing import is_frozen
from kerasbn.layer_kinds import DROPOUT
from kerasbn.transforms.batch_normalization import LINEAR, is_nonlinear, rearranges
from kerasbn.transforms.clone import inner_layer
from kerasbn.transforms.flow import Call, by_operation, followers, trace


def check(model: Any) -> Iterator[Finding]:
    """The findings of all layers of a model whose graph Keras knows; none of another."""
    try:
        operations = by_operation(trace(model))
    except ValueError:
        return
    for operation, calls in operations:
        if not _normalizes(operation):
            continue
        before = [each for call in calls for each in _before(call, rearranges)]
        with_bias = [inner_layer(call.operation) for call in before if _has_useless_bias(call)]
        if before and len(with_bias) == len(before):
            largest = float(np.max([np.abs(layer.bias).max() for layer in with_bias]))
            yield Finding(
                "note",
                "bias before",
                operation.path,
                largest,
                f"The layer before has a bias, of up to {largest:.3g}, which the normalization subtracts again. Give "
                "it use_bias=False.",
            )
        if any(_is_nonlinear(call.operation) for call in before):
            yield Finding(
                "note",
                "after the nonlinearity",
                operation.path,
                1.0,
                "It normalizes what a nonlinearity gives. The paper puts it before (Sec. 3.2): compare the two.",
            )
        before = [each for call in calls for each in _before(call, _linear_or_rearranges)]
        rates = [call.operation.rate for call in before if isinstance(call.operation, DROPOUT)]
        rate = float(max(rates, default=0))
        if rate > 0:
            yield Finding(
                "warning",
                "dropout before",
                operation.path,
                rate,
                f"Dropout with a rate of {rate:g} before it changes the variance in training only, so that the moving "
                "variance is wrong in inference. Place dropout after the last normalization (Li et al. 2018).",
            )


def _normalizes(operation: Any) -> bool:
    """Whether `operation` normalizes with the batch in training."""
    return isinstance(operation, keras.layers.BatchNormalization) and not is_frozen(operation)


def _before(call: Call, passes: Callable[[Any], bool]) -> list[Call]:
    """The first calls that what `call` takes comes from, besides operations that it `passes`."""
    found, seen, todo = [], set(), list(call.inputs)
    while todo:
        before = todo.pop(0)
        if id(before) in seen:
            continue
        seen.add(id(before))
        if before.operation is not None and passes(before.operation):
            todo += before.inputs
        else:
            found.append(before)
    return found


def _has_useless_bias(call: Call) -> bool:
    """Whether `call` is of a linear layer with a bias, all of whose result is normalized."""
    layer = inner_layer(call.operation)
    if not isinstance(layer, LINEAR) or not layer.use_bias or layer.activation is not keras.activations.linear:
        return False
    return all(_normalizes(user.operation) for user in followers(call, rearranges))


def _is_nonlinear(operation: Any) -> bool:
    layer = inner_layer(operation)
    if isinstance(layer, LINEAR):
        return layer.activation is not keras.activations.linear
    return operation is not None and is_nonlinear(operation)


def _linear_or_rearranges(operation: Any) -> bool:
    return rearranges(operation) or isinstance(inner_layer(operation), LINEAR)
