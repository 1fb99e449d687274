"""What is known of a batch: count, mean and spread, as one value that merges.

The mean is held as a sum of two numbers, ``center + offset``. ``center`` is near the data, so ``x - center`` is exact
or nearly so (Sterbenz); ``offset`` is the small rest that float32 could not have added to it. Whoever needs ``x -
mean`` computes ``(x - center) - offset`` and loses no digit, whatever the mean.
"""

from typing import NamedTuple

import tensorflow as tf

from kerasbn.kernels.xla import inside_xla


def anchor(x: tf.Tensor) -> tf.Tensor:
    """`x` or a number near it that every place that computes it agrees on.

    A compiler may compute ``x - total / n`` again where it is used, as one fused multiply-add that never rounds the
    quotient. Two such places then mean different centers, and at a mean of 1e6 sigma the difference is 3 % of a sigma
    (seen with XLA:CPU when a whole training step is one program). It cannot fuse across an operation on bits, so under
    XLA an anchor is `x` with the last bit of its mantissa cleared. TensorFlow computes each operation once and rounds
    its result: there `x` is an anchor, and TFLite and ONNX, which know no operations on bits, meet none.

    An anchor is a constant to derivatives: mean and variance do not depend on where the center lies.
    """
    x = tf.stop_gradient(x)
    if not (inside_xla() or tf.config.optimizer.get_jit()):
        return x
    bits = {tf.float32: tf.int32, tf.float64: tf.int64}[x.dtype]
    return tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, bits), tf.constant(-2, bits)), x.dtype)


class Moments(NamedTuple):
    """Count, mean and summed squared deviations of a batch, one number a channel.

    Formula: ``mean = center + offset``, ``m2 = sum((x - mean)^2)``. The fields broadcast against each other.

    Attributes:
        count: How many values were averaged, as a float. Masked values do not count.
        center: A point near the data, an `anchor`.
        offset: What is missing from `center` to the mean.
        m2: Sum of squared deviations from the mean, never negative.

    Example:
    >>> m = Moments(tf.constant(4.0), tf.constant(2.0), tf.constant(0.5), tf.constant(5.0))
    >>> float(m.mean), float(m.variance()), float(m.variance(unbiased=True))
    (2.5, 1.25, 1.6666666269302368)
    """

    count: tf.Tensor
    center: tf.Tensor
    offset: tf.Tensor
    m2: tf.Tensor

    @property
    def mean(self) -> tf.Tensor:
        """The mean in one number, as exact as its dtype allows; 0 where nothing was counted."""
        return self.center + self.offset

    def variance(self, unbiased: bool = False) -> tf.Tensor:
        """The variance: ``m2 / count`` (Alg. 1), or ``m2 / (count - 1)`` if `unbiased` (Alg. 2, line 10).

        A single value has variance 0 in both senses, and so has an empty batch: nothing is divided by zero.
        """
        if not unbiased:
            return tf.math.divide_no_nan(self.m2, self.count)
        return self.m2 / tf.maximum(self.count - 1, 1)


def merge(parts: Moments) -> Moments:
    """Merges moments of disjoint parts, stacked along the first axis, into those of their union.

    Formula (Chan, Golub & LeVeque 1983, eq. 2.1, for any number of parts), with ``n = sum(n_i)``:
    ``mean = sum(n_i mean_i) / n`` and ``m2 = sum(m2_i) + sum(n_i (mean_i - mean)^2)``.
    A part with count 0 is neutral, whatever its other fields hold. Means are compared relative to a common center, so
    that parts at mean 1e6 sigma merge without loss.

    Args:
        parts: `Moments` whose fields have shape ``(parts, ...)``.

    Returns:
        `Moments` of shape ``(...)``.

    Example:
    >>> both = merge(Moments(*map(tf.constant, ([1.0, 3.0], [4.0, 0.0], [0.0, 0.0], [0.0, 6.0]))))
    >>> float(both.mean), float(both.variance())
    (1.0, 4.5)
    """
    counted = parts.count > 0
    center, offset, m2 = (tf.where(counted, field, 0) for field in (parts.center, parts.offset, parts.m2))
    count = tf.reduce_sum(parts.count, 0)
    # Shares, not counts, are multiplied with the means: a product count * mean could overflow.
    share = tf.math.divide_no_nan(parts.count, count)
    new_center = anchor(tf.reduce_sum(share * center, 0))
    distance = (center - new_center) + offset
    new_offset = tf.reduce_sum(share * distance, 0)
    between = tf.reduce_sum(parts.count * tf.square(distance - new_offset), 0)
    return Moments(count, new_center, new_offset, tf.reduce_sum(m2, 0) + between)
