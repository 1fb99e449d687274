"""How affine maps pass layers that lie between a normalization and a linear layer."""

from typing import Any

import keras
import numpy as np

from kerasbn.layer_kinds import (
    AVERAGE_POOLING,
    CROPPING,
    GLOBAL_AVERAGE_POOLING,
    GLOBAL_MAX_POOLING,
    MAX_POOLING,
    NOISE,
    UPSAMPLING,
    ZERO_PADDING,
)
from kerasbn.transforms.affine_map import AffineMap, Refused

#: What gives its values on as they are, in inference.
UNCHANGED = {keras.layers.ActivityRegularization, keras.layers.Identity, *NOISE}

#: What gives means of values of a channel, weighted with a sum of 1, or some of them.
AVERAGING = {*AVERAGE_POOLING, *CROPPING, *UPSAMPLING}

#: What gives the largest of some values of a channel: it passes if no factor turns it into the smallest.
MAXIMA = {*MAX_POOLING, *GLOBAL_MAX_POOLING}

GLOBAL = {*GLOBAL_AVERAGE_POOLING, *GLOBAL_MAX_POOLING}
PADDING = {*ZERO_PADDING}

#: Interpolations whose weights sum to 1 at the border, too.
INTERPOLATIONS = ("nearest", "bilinear")


def backward(layer: Any, affine: AffineMap) -> list[AffineMap]:
    """The maps of the inputs of `layer` that do to its result what `affine` would do.

    Raises:
        Refused: If there are none.
    """
    if type(layer) is keras.layers.Add:
        if len({tuple(shape) for shape in _shapes(layer, "input")}) > 1:
            raise Refused(f"{layer.name} adds tensors of different shapes")
        scaled = AffineMap.of(affine.scale, np.zeros_like(affine.offset))
        return [affine] + [scaled] * (len(_shapes(layer, "input")) - 1)
    if type(layer) is keras.layers.Concatenate:
        return _parts(layer, affine)
    return [_through(layer, affine, "before")]


def forward(layer: Any, affine: AffineMap) -> AffineMap:
    """The map of the result of `layer` that does what `affine` does to its input.

    Raises:
        Refused: If there is none.
    """
    return _through(layer, affine, "behind")


def _through(layer: Any, affine: AffineMap, side: str) -> AffineMap:
    """What `affine` is on the other side of `layer`, the one `"before"` it or `"behind"` it."""
    kind = type(layer)
    if kind in UNCHANGED or (kind is keras.layers.Activation and layer.activation is keras.activations.linear):
        return affine
    if kind in MAXIMA and (affine.scale < 0).any():
        raise Refused(f"{layer.name} ({kind.__name__}) is {side} it, which a factor below 0 turns into a minimum")
    if kind in PADDING and affine.offset.any():
        raise Refused(f"{layer.name} pads with zeros, which an offset would have to move")
    if kind in GLOBAL:
        return _through_global_pooling(layer, affine, side)
    if kind in AVERAGING | MAXIMA | PADDING and getattr(layer, "interpolation", "nearest") in INTERPOLATIONS:
        axis = channel_axis(layer)
        affine.channels(axis, affine.values.shape[1:][axis])  # else places are mixed that it treats differently
        return affine
    # A channels-first Flatten brings the channels to the end.
    if kind is keras.layers.Reshape or (kind is keras.layers.Flatten and channel_axis(layer) == -1):
        return _through_reshape(layer, affine, side)
    raise Refused(f"{layer.name} ({kind.__name__}) is {side} it")


def channel_axis(layer: keras.layers.Layer) -> int:
    """The axis of the channels, in tensors of the rank of the layer's input."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def _through_global_pooling(layer: keras.layers.Layer, affine: AffineMap, side: str) -> AffineMap:
    inside = layer.input_spec.ndim, channel_axis(layer)
    outside = inside if layer.keepdims else (2, -1)
    (_, axis), (rank, new_axis) = (outside, inside) if side == "before" else (inside, outside)
    shape = [1] * rank
    shape[new_axis] = -1
    return AffineMap(affine.channels(axis, affine.values.shape[1:][axis]).reshape(2, *shape))


def _through_reshape(layer: keras.layers.Layer, affine: AffineMap, side: str) -> AffineMap:
    (before,), (after,) = _shapes(layer, "input"), _shapes(layer, "output")
    if None in (*before[1:], *after[1:]):
        raise Refused(f"{layer.name} ({type(layer).__name__}) has a shape that is not known")
    if side == "before":
        before, after = after, before
    outer = affine.values.shape[:2]  # scale and offset, batch
    values = np.broadcast_to(affine.values, outer + before[1:]).reshape(outer + after[1:])
    for axis in range(2, values.ndim):  # what turns out to be the same along an axis is so by channel
        first = values.take([0], axis)
        if (values == first).all():
            values = first
    return AffineMap(values)


def _parts(layer: keras.layers.Concatenate, affine: AffineMap) -> list[AffineMap]:
    shapes, axis = _shapes(layer, "input"), layer.axis % (affine.values.ndim - 1)
    if affine.values.shape[1 + axis] == 1:
        return [affine] * len(shapes)
    sizes = [shape[axis] for shape in shapes]
    if None in sizes:
        raise Refused(f"{layer.name} (Concatenate) has a shape that is not known")
    return [AffineMap(part) for part in np.split(affine.values, np.cumsum(sizes)[:-1], 1 + axis)]


def _shapes(layer: keras.layers.Layer, which: str) -> list[tuple[Any, ...]]:
    """The shapes of the tensors in `layer.input` or `layer.output`, which Keras gives if they are always the same."""
    try:
        return [tensor.shape for tensor in keras.tree.flatten(getattr(layer, which))]
    except (AttributeError, ValueError):
        raise Refused(f"{layer.name} ({type(layer).__name__}) is called several times") from None
