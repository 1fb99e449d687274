"""Moments over replicas: the only file that knows `tf.distribute`.

XLA cannot compile a collective of several CPU replicas, so what is here stays between kernels and never inside one.
"""

import tensorflow as tf

from kerasbn.moments import Moments, merge


def merge_over_replicas(moments: Moments) -> Moments:
    """The moments of the joined batch of all replicas, in one collective; those given where there is one replica.

    Every replica writes its moments into a slot of its own and the slots are added: an all-reduce is the one
    collective that every strategy has. The parts then merge by count (`kerasbn.moments.merge`), so that shards may be
    unequal or empty.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return moments
    count = tf.broadcast_to(moments.count, tf.shape(moments.center))
    packed = tf.stack([count, *moments[1:]])
    slots = tf.range(context.num_replicas_in_sync) == context.replica_id_in_sync_group
    slots = tf.reshape(slots, [-1] + [1] * len(packed.shape))
    parts = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(slots, packed[tf.newaxis], 0))
    return merge(Moments(*tf.unstack(parts, axis=1)))


def sum_over_replicas(x: tf.Tensor) -> tf.Tensor:
    """The sum of `x` over all replicas, in one collective; `x` itself where there is one replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_reduce(tf.distribute.ReduceOp.SUM, x)
