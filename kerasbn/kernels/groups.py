"""Virtual batches: groups of consecutive samples, each normalized as a batch (Hoffer, Hubara & Soudry 2017, Alg. 1)."""

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

from kerasbn.kernels.xla import inside_xla

T = TypeVar("T")


def by_groups(
    function: Callable[[tf.Tensor, tf.Tensor | None], tuple[tf.Tensor, T]],
    x: tf.Tensor,
    mask: tf.Tensor | None,
    size: int,
) -> tuple[tf.Tensor, T]:
    """``function(x, mask)`` of `x` seen as ``[groups, size, ...]``, its result seen as before again.

    The remainder of a batch that does not divide is a smaller group: the batch is filled up with values that a mask
    leaves out. A graph that does not know the size of the batch has a branch for it. XLA knows the size when it
    compiles, and makes nothing of a filling of no values.

    Args:
        function: Of x ``[groups, size, ...]`` and a mask of the same axes without the last one, or `None`; returns a
            tensor of the shape of x and tensors that receive no gradient. It may be called in a branch, so it must only
            compute.
        x: Of shape ``[batch, ...]``.
        mask: Broadcasts to the shape of `x` without the last axis, or `None`.
        size: Samples in a group.

    Returns:
        Tensor of the shape of `x`, and what else `function` returned.
    """
    if x.shape[0] is None and mask is not None and mask.shape[0] not in (None, 1):
        x = tf.ensure_shape(x, [mask.shape[0], *x.shape[1:]])

    def whole(x=x, mask=mask):
        if mask is not None:
            mask = _group(tf.broadcast_to(mask, tf.shape(x)[:-1]), size)
        y, more = function(_group(x, size), mask)
        y = tf.reshape(y, tf.shape(x))
        y.set_shape(x.shape)
        return y, more

    def filled_up():
        batch = tf.shape(x)[0]
        missing = -batch % size
        counts = tf.ones(tf.shape(x)[:-1], "bool") if mask is None else tf.broadcast_to(mask, tf.shape(x)[:-1])
        filled, counts = (tf.pad(t, [[0, missing]] + [[0, 0]] * (len(t.shape) - 1)) for t in (x, counts))
        filled.set_shape([None, *x.shape[1:]])
        y, more = whole(filled, counts)
        y = y[:batch]
        y.set_shape(x.shape)
        return y, more

    if x.shape[0] is not None:
        return filled_up() if x.shape[0] % size else whole()
    if inside_xla():
        return filled_up()

    def branch(groups: Callable[[], tuple[tf.Tensor, T]]) -> tuple[tf.Tensor, T]:
        # The gradient of a branch goes through all that the branch returns.
        y, more = groups()
        return y, tf.nest.map_structure(lambda t: None if t is None else tf.stop_gradient(t), more)

    return tf.cond(tf.shape(x)[0] % size == 0, lambda: branch(whole), lambda: branch(filled_up))


def _group(t: tf.Tensor, size: int) -> tf.Tensor:
    grouped = tf.reshape(t, tf.concat([[-1, size], tf.shape(t)[1:]], 0))
    grouped.set_shape([None, size, *t.shape[1:]])
    return grouped
