"""Moving averages of what batches are normalized with (Ioffe & Szegedy 2015, Sec. 3.1; Ioffe 2017, Alg. 1)."""

from typing import NamedTuple

import tensorflow as tf

from kerasbn.moments import Moments


class MovingStatistics(NamedTuple):
    """The moving statistics that a layer has, all of the shape of its weights; `None` for those that it has not.

    `batches` is how many batches counted so far, where the momentum is `None`.
    """

    moving_mean: tf.Tensor
    moving_variance: tf.Tensor | None = None
    moving_stddev: tf.Tensor | None = None
    renorm_mean: tf.Tensor | None = None
    renorm_stddev: tf.Tensor | None = None
    batches: tf.Tensor | None = None


class Moved(NamedTuple):
    """Moving statistics after a batch, and how many batches counted in it: none, one, or some of its groups."""

    statistics: MovingStatistics
    counted: tf.Tensor


class Update(NamedTuple):
    """How they move, the same for every batch.

    Attributes:
        momentum: The share of the old value, or `None` for the plain average of all batches so far.
        renorm_momentum: That of the statistics of batch renormalization, or `None` without it.
        epsilon: Added to a variance before its root is taken.
        unbiased: Whether the moving variance takes the unbiased variance of the batch.
        groups: Whether the moments are those of groups, by which the averages move one after the other.
    """

    momentum: float | None
    renorm_momentum: float | None
    epsilon: float
    unbiased: bool
    groups: bool


def move(moments: Moments, moving: MovingStatistics, *, update: Update) -> Moved:
    """Moves each statistic towards the batch, or one group after the other, where values count.

    A channel that is not finite does not count: one bad batch, whose step a loss scale skips, would stay in the
    statistics for ever.

    Args:
        moments: Of the batch; of groups along the first axis.
        moving: The statistics.
        update: How they move.

    Returns:
        The new values of all statistics but `batches`, of the shape of the weights.
    """
    dtype, shape = moments.center.dtype, tf.shape(moving.moving_mean)
    if update.groups:
        shape = tf.concat([[-1], shape], 0)
    mean, variance = (tf.reshape(value, shape) for value in (moments.mean, moments.variance(update.unbiased)))
    # The first term is 0 / 0 where nothing was counted.
    counted = tf.math.is_finite(tf.reshape(moments.m2 / moments.count + moments.mean, shape))
    batches = tf.cast(counted, dtype)

    def moved(old: tf.Tensor, value: tf.Tensor, rate: tf.Tensor | float) -> tf.Tensor:
        old, rate = tf.cast(old, dtype), tf.convert_to_tensor(rate, dtype)
        if update.groups:
            return move_in_turn(old[tf.newaxis], tf.where(counted, value, 0), rate * batches)[0]
        # In this form a rate of 1 forgets the old value altogether.
        return tf.where(counted, old * (1 - rate) + value * rate, old)

    rate: tf.Tensor | float
    if update.momentum is None:
        before = tf.cast(moving.batches, dtype)
        rate = 1 / tf.maximum(before + (tf.cumsum(batches) if update.groups else batches), 1)
    else:
        rate = 1 - update.momentum
    total = tf.reduce_sum(batches, 0) if update.groups else batches
    new_mean = moved(moving.moving_mean, mean, rate)
    if update.renorm_momentum is None:
        return Moved(MovingStatistics(new_mean, moved(moving.moving_variance, variance, rate)), total)
    # With renorm the standard deviation is averaged, as in the paper, and the variance follows from it.
    new_stddev = moved(moving.moving_stddev, tf.sqrt(variance + update.epsilon), rate)
    biased = tf.sqrt(tf.reshape(moments.variance(), shape) + update.epsilon)
    slow = 1 - update.renorm_momentum
    renorm = moved(moving.renorm_mean, mean, slow), moved(moving.renorm_stddev, biased, slow)
    return Moved(MovingStatistics(new_mean, None, new_stddev, *renorm), total)


def move_in_turn(moving: tf.Tensor, values: tf.Tensor, rates: tf.Tensor) -> tf.Tensor:
    """Moves an average towards the value of one group after the other.

    Formula (Hoffer et al. 2017, Alg. 1), for each group in order: ``moving = (1 - rate) moving + rate value``; in one
    expression, group g has the share ``rate_g prod_{h > g} (1 - rate_h)``.

    Args:
        moving: Of shape ``[1, ...]``.
        values: One for each group, of shape ``[groups, ...]``.
        rates: As `values`.

    Returns:
        Tensor of the shape of `moving`.
    """
    stays = 1 - rates
    share = rates * tf.math.cumprod(stays, axis=0, exclusive=True, reverse=True)
    return moving * tf.reduce_prod(stays, 0, keepdims=True) + tf.reduce_sum(share * values, 0, keepdims=True)
