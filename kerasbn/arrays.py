"""Checks of the arrays that examples come in."""

import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def arrays(name: str, value: Any) -> Any:
    """`value`, arrays in any structure, as NumPy arrays in that structure, with tuples for lists.

    Keras's readers of data know no lists within a batch.

    Args:
        name: Of the argument.
        value: Arrays of numbers with examples on the first axis, as many in each, one at least.

    Raises:
        ValueError: If it is anything else. Complex numbers are refused, too: Keras drops their imaginary parts.
    """
    found = keras.tree.map_structure(lambda each: _numbers(name, each), value, none_is_leaf=True)
    sizes = [len(array) for array in keras.tree.flatten(found)]
    if not sizes:
        raise ValueError(f"Argument `{name}` must hold an array. Received: {value!r}.")
    if len(set(sizes)) > 1 or 0 in sizes:
        raise ValueError(
            f"Argument `{name}` must give at least one batch, and each array as many examples. Received: arrays of "
            f"{', '.join(map(str, sizes))} examples."
        )
    return _without_lists(found)


def examples(name: str, value: Any) -> Any:
    """`value`, if it may be what a model takes: tensors of any kind, and arrays of real numbers or text.

    Raises:
        ValueError: If it is not, or without an example.
    """
    for each in keras.tree.flatten(value):
        if hasattr(each, "toarray") or np.asarray(() if _is_tensor(each) else each).dtype.kind in "Oc":
            raise ValueError(
                f"Argument `{name}` must hold arrays of real numbers, or tensors. Received: {_shown(each)}"
                f"{f' with dtype {each.dtype}' if hasattr(each, 'dtype') else ''}. Convert it first."
            )
        if hasattr(each, "shape") and each.shape and each.shape[0] == 0:
            raise ValueError(f"Argument `{name}` must hold at least one example. Received: shape {tuple(each.shape)}.")
    return value


def batches_or(allowed: str, data: Any) -> Any:
    """`data`, if they can give batches; what can is left to Keras.

    Args:
        allowed: What else than that is allowed.
        data: What is neither that nor, perhaps, anything that gives batches.

    Raises:
        TypeError: If they are nothing of the kind.
    """
    if data is None or isinstance(data, str | bytes | numbers.Number):
        raise TypeError(
            f"Argument `data` must be {allowed}, or what gives batches: a tf.data.Dataset, a PyDataset, a generator. "
            f"Received: {data!r}."
        )
    return data


def _is_tensor(value: Any) -> bool:
    return isinstance(value, tf.Tensor | tf.RaggedTensor | tf.SparseTensor)


def is_real(dtype: np.dtype) -> bool:
    """Whether values of `dtype` are real numbers or booleans, of half precision, too (NumPy says bfloat16 is "V")."""
    return dtype.kind in "biuf" or (
        dtype.kind == "V" and dtype.names is None and dtype.name != f"void{dtype.itemsize * 8}"
    )


def _numbers(name: str, value: Any) -> np.ndarray:
    if isinstance(value, tf.RaggedTensor | tf.SparseTensor) or hasattr(value, "toarray"):
        raise ValueError(
            f"Argument `{name}` must hold dense arrays. Received: a {type(value).__name__} of shape {value.shape}. "
            "Make it dense first, or give a tf.data.Dataset."
        )
    array = np.asarray(value)
    if not is_real(array.dtype):
        raise ValueError(
            f"Argument `{name}` must hold real numbers. Received: {_shown(value)}, with dtype {array.dtype}. Convert "
            "it first; what the model turns into numbers itself can come from a tf.data.Dataset."
        )
    if array.ndim == 0:
        raise ValueError(
            f"Argument `{name}` must hold arrays with the examples on their first axis. Received: {_shown(value)}, a "
            "single number. Lists are for models with several inputs: make an array of a list of numbers, by "
            "np.asarray."
        )
    return array


def _without_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_lists(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_without_lists, value))
    return value


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
