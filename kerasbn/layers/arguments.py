"""What a normalization layer checks of its arguments: each error names the argument, what is allowed and what came."""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import tensorflow as tf

T = TypeVar("T")


def one_of(name: str, value: T, allowed: Sequence[T]) -> T:
    """`value`, if it is one of `allowed`."""
    if value not in allowed:
        raise ValueError(
            f"Argument `{name}` must be one of {', '.join(map(repr, allowed))}. Received: {name}={value!r}."
        )
    return value


def number(name: str, value: Any, lowest: float, highest: float = float("inf")) -> float:
    """`value` as a float from `lowest` to `highest`."""
    allowed = f" not below {lowest:g}" if highest == math.inf else f" from {lowest:g} to {highest:g}"
    try:
        parsed = float(value)
    except (TypeError, ValueError):
        parsed = math.nan
    if not lowest <= parsed <= highest:
        allowed = "" if lowest == -math.inf else allowed
        raise ValueError(f"Argument `{name}` must be a number{allowed}. Received: {name}={value!r}.")
    return parsed


def count(name: str, value: Any, lowest: int = 0, allowed: str = "") -> int:
    """`value` as an integer from `lowest` on."""
    try:
        parsed = operator.index(value)
    except TypeError:
        parsed = lowest - 1
    if parsed < lowest or isinstance(value, bool):
        raise ValueError(
            f"Argument `{name}` must be an integer not below {lowest}{allowed}. Received: {name}={value!r}."
        )
    return parsed


def optional_count(name: str, value: Any) -> int | None:
    """`value` as an integer from 1 on, or `None`."""
    return None if value is None else count(name, value, 1, ", or None")


def parse_clipping(clipping: Mapping[str, float] | None) -> dict[str, float]:
    """`renorm_clipping` as a dictionary, its bounds in order."""
    keys = ("rmax", "rmin", "dmax")
    if clipping is not None and not (isinstance(clipping, Mapping) and set(clipping) <= set(keys)):
        raise ValueError(
            f"Received invalid keys for `renorm_clipping` argument: {clipping}. Supported values: {list(keys)}."
        )
    given = {key: value for key, value in (clipping or {}).items() if value is not None}
    bounds = {key: number(f"renorm_clipping[{key!r}]", value, -math.inf) for key, value in given.items()}
    if bounds.get("rmin", 0) > bounds.get("rmax", float("inf")):
        raise ValueError(
            "rmax should be greater than rmin in the `renorm_clipping` argument. "
            f"Received: rmax={bounds['rmax']}, rmin={bounds.get('rmin', 0)}."
        )
    if bounds.get("dmax", 0) < 0:
        raise ValueError(
            f"dmax should be non-negative in the `renorm_clipping` argument. Received: dmax={bounds['dmax']}."
        )
    return bounds


def parse_inputs(inputs: Any, number_dtype: str) -> tf.Tensor:
    """`inputs` as a dense floating-point tensor; integers and booleans become numbers of `number_dtype`."""
    if isinstance(inputs, tf.SparseTensor | tf.RaggedTensor):
        raise ValueError(
            f"Argument `inputs` must be a dense tensor. Received: a {type(inputs).__name__} of shape {inputs.shape}. "
            "Convert it first, a ragged tensor with `.to_tensor()` and a mask, a sparse one with `tf.sparse.to_dense`."
        )
    x = tf.convert_to_tensor(inputs)
    if x.dtype.is_floating:
        return x
    if x.dtype.is_integer or x.dtype.is_bool:
        return tf.cast(x, number_dtype)
    raise ValueError(
        f"Argument `inputs` must hold real numbers. Received: dtype {x.dtype.name}, shape {x.shape}. "
        "Normalize real and imaginary parts apart, and encode strings first."
    )


def parse_mask(mask: Any, x: tf.Tensor) -> tf.Tensor:
    """`mask` as booleans that broadcast to the shape of `x` without its last axis."""
    mask = tf.cast(tf.convert_to_tensor(mask), "bool")
    expected = x.shape[:-1]
    fits = len(mask.shape) == len(expected) and all(
        m in (1, None) or n in (m, None) for m, n in zip(mask.shape, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            "The mask provided should be one dimension less than the inputs: of the shape of `inputs` without the last "
            f"axis, {expected}. Received: mask.shape={mask.shape}, inputs.shape={x.shape}."
        )
    return mask


def parse_axis(axis: int | Sequence[int]) -> int | list[int]:
    """`axis` as an integer or a list of integers.

    Raises:
        TypeError: If it is neither.
        ValueError: If it is an empty sequence.
    """
    try:
        if not isinstance(axis, Sequence) or isinstance(axis, str):
            return operator.index(axis)
        parsed = [operator.index(a) for a in axis]
    except TypeError:
        raise TypeError(
            "Argument `axis` must be an integer or a sequence of integers, the axes that keep their own statistics. "
            f"Received: axis={axis!r} of type {type(axis).__name__}."
        ) from None
    if not parsed:
        raise ValueError(
            f"Argument `axis` must name at least one axis. Received: axis={axis!r}. The default is axis=-1."
        )
    return parsed


def hint_at_tensorflow_2(axis: int | Sequence[int], virtual_batch_size: int | None) -> str:
    """What an axis out of range may come from: TensorFlow 2 counted the axis of groups, too, and wrote lists."""
    if virtual_batch_size is None or isinstance(axis, int):
        return ""
    return (
        " If this is from a file of TensorFlow 2, its layer stored `axis` one too high where it had "
        f"`virtual_batch_size`: replace axis by {[a - 1 for a in axis]} in the configuration."
    )


def resolve_axis(axis: int | Sequence[int], input_shape: Sequence[int | None], hint: str = "") -> list[int]:
    """The axes that `axis` names in `input_shape`, not negative and ascending.

    `hint` ends the error of an axis that is out of range.

    Raises:
        ValueError: If an axis is out of range or named twice, or if none is left to average over.
    """
    rank = len(input_shape)
    named = [axis] if isinstance(axis, int) else list(axis)
    if rank < 2:
        raise ValueError(
            "The layer needs an input of rank 2 or more, `(batch, ..., channels)`, to have something to average over. "
            f"Received: input_shape={tuple(input_shape)}. Add a batch axis, as in `x[tf.newaxis]`."
        )
    for a in named:
        if not -rank <= a < rank:
            raise ValueError(
                f"Argument `axis` must be between {-rank} and {rank - 1} for an input of rank {rank}. "
                f"Axis {a} is out of bounds for input shape {tuple(input_shape)}. Received: axis={axis!r}.{hint}"
            )
    kept = sorted({a % rank for a in named})
    if len(kept) < len(named):
        raise ValueError(
            "Argument `axis` must name each axis once. "
            f"Received: axis={axis!r} for input shape {tuple(input_shape)}, which is axes {kept}."
        )
    if len(kept) == rank:
        raise ValueError(
            "Argument `axis` must leave at least one axis to average over. "
            f"Received: axis={axis!r}, all axes of input shape {tuple(input_shape)}. Leave out the batch axis, 0."
        )
    return kept


def kept_sizes(axis: int | Sequence[int], input_shape: Sequence[int | None], hint: str = "") -> dict[int, int]:
    """The axes that `axis` names in `input_shape`, with their sizes; `hint` as for `resolve_axis`.

    Raises:
        ValueError: As `resolve_axis`, and if a size is not known.
    """
    sizes = {}
    for a in resolve_axis(axis, input_shape, hint):
        size = input_shape[a]
        if size is None:
            raise ValueError(
                "Argument `axis` must name axes of known size, as the weights have it. "
                f"Received: axis={axis!r}, but axis {a} of input shape {tuple(input_shape)} is None. "
                "Give the model's `Input` a size there."
            )
        sizes[a] = size
    return sizes
