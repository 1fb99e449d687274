"""Sums that stay accurate over a hundred thousand rows, with XLA and without.

XLA:CPU and Eigen add rows one after another into one float32. Over 1e5 rows of nearly equal values every addition then
rounds the same way, and the mean is off by up to 1e-3 of itself. Here rows are first added in `LANES` parallel lanes,
twice, so that no accumulator takes more than N/256 terms; the error stays near 1e-7. It is written as a sum of slices
because XLA merges a reduction of a reduction into the one long loop that is to be avoided.
"""

from collections.abc import Sequence

import tensorflow as tf

LANES = 16
STAGES = 2


def accurate_sum(x: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """``sum(x)`` over `axes`, which stay as size 1. An empty sum is 0.

    Args:
        x: Floating-point tensor of any rank.
        axes: The axes to add over, not negative.

    Returns:
        Tensor of the same rank and dtype.
    """
    for axis in axes:
        x = _sum_along(x, axis)
    return x


def _sum_along(x: tf.Tensor, axis: int) -> tf.Tensor:
    total = tf.zeros([], x.dtype)
    for _ in range(STAGES):
        size = x.shape[axis]
        if size is not None and size < 2 * LANES:
            break
        rows = tf.shape(x)[axis] // LANES if size is None else size // LANES
        rest = _slice(x, axis, LANES * rows, None)
        total += tf.reduce_sum(rest, axis, keepdims=True)
        x = tf.add_n([_slice(x, axis, lane * rows, (lane + 1) * rows) for lane in range(LANES)])
    return total + tf.reduce_sum(x, axis, keepdims=True)


def _slice(x: tf.Tensor, axis: int, start: tf.Tensor | int, stop: tf.Tensor | int | None) -> tf.Tensor:
    return x[(slice(None),) * axis + (slice(start, stop),)]
