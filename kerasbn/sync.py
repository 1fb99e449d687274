"""Moments over replicas: the only file with collectives.

XLA cannot compile a collective of several CPU replicas, so what is here stays between kernels and never inside one.
Every collective is an all-reduce, the one that every strategy has. Where replicas must see each other's values, each
writes its own into a slot of a larger tensor, and the slots are added.
"""

from collections.abc import Sequence

import tensorflow as tf

from kerasbn.kernels.xla import inside_xla
from kerasbn.moments import Moments, merge


def merge_over_replicas(moments: Moments, group_size: int | None = None) -> Moments:
    """The moments of the joined batch of all replicas, or of groups of them, in one collective.

    The parts merge by count (`kerasbn.moments.merge`), so that shards may be unequal or empty.

    Args:
        moments: Of the batch of this replica.
        group_size: How many consecutive replicas join their batches; `None` for all.

    Returns:
        The same `Moments` on all replicas of a group; those given where there is one replica.

    Raises:
        ValueError: `group_size` does not divide the replicas, or the strategy or the context has none to join.
            In a graph in the cross-replica context `tf.errors.InvalidArgumentError`, when it runs.
    """
    _check_that_replicas_can_join()
    context = _several_replicas()
    if context is None:
        return moments
    size = _checked(group_size, context)
    count = tf.broadcast_to(moments.count, tf.shape(moments.center))
    replica = context.replica_id_in_sync_group
    parts = _sum_of_slots(tf.stack([count, *moments[1:]]), replica, context.num_replicas_in_sync, context)
    first = replica // size * size
    return merge(Moments(*tf.unstack(parts[first : first + size], axis=1)))


def sum_over_replicas(x: tf.Tensor, group_size: int | None = None) -> tf.Tensor:
    """The sum of `x` over all replicas, or over groups of them, in one collective; see `merge_over_replicas`."""
    context = _several_replicas()
    if context is None:
        return x
    size = _checked(group_size, context)
    group, groups = context.replica_id_in_sync_group // size, context.num_replicas_in_sync // size
    return (
        context.all_reduce(tf.distribute.ReduceOp.SUM, x)
        if groups == 1
        else _sum_of_slots(x, group, groups, context)[group]
    )


def mean_over_replicas(values: Sequence[tf.Tensor], count: tf.Tensor) -> list[tf.Tensor]:
    """The mean of each value over the replicas on which something counts, in one collective.

    Args:
        values: Tensors of one shape and dtype.
        count: Of that shape. A replica has no part in the means where it is 0; where it is on all, values stay.

    Returns:
        The same tensors on all replicas, in the same order; those given where there is one replica.
    """
    context = _several_replicas()
    if context is None:
        return list(values)
    packed = tf.stack(values)
    share = tf.cast(count > 0, packed.dtype)
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.concat([packed * share, share[tf.newaxis]], 0))
    *sums, replicas = tf.unstack(total, len(values) + 1)
    return [
        tf.where(replicas > 0, tf.math.divide_no_nan(added, replicas), value)
        for value, added in zip(values, sums, strict=True)
    ]


def check_not_in_xla(strategy: tf.distribute.Strategy) -> None:
    """Raises ValueError inside of one XLA program if `strategy` has several replicas on CPUs."""
    replicas, device = strategy.num_replicas_in_sync, strategy.extended.worker_devices[0]
    if replicas > 1 and "CPU" in device and inside_xla():
        raise ValueError(
            "Argument `jit_compile` of compile() and of the tf.function around a step must not be True for several "
            f"replicas on CPUs, whose collectives XLA cannot compile. Received: jit_compile=True and {replicas} "
            "replicas. Set jit_compile='auto' or False there; kerasbn's layers compile their own kernels."
        )


def _several_replicas() -> tf.distribute.ReplicaContext | None:
    """The context of this replica, if it is one of several."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    check_not_in_xla(context.strategy)
    return context


def _check_that_replicas_can_join() -> None:
    strategy = tf.distribute.get_strategy()
    if isinstance(strategy, tf.distribute.experimental.ParameterServerStrategy):
        raise ValueError(
            "Argument `synchronized` must be False under ParameterServerStrategy, where workers do not wait for each "
            "other and have no joined batch. Received: synchronized=True. Use MirroredStrategy or "
            "MultiWorkerMirroredStrategy."
        )
    if strategy.num_replicas_in_sync > 1 and tf.distribute.in_cross_replica_context():
        message = (
            f"A layer with `synchronized=True` was called for training outside of the {strategy.num_replicas_in_sync} "
            "replicas of its strategy, in the cross-replica context. Call it within strategy.run(step, args=...), or "
            "train with Model.fit."
        )
        if tf.executing_eagerly():
            raise ValueError(message)
        # Keras traces a functional model here only to learn its shapes, which is right: an error for those who run it.
        tf.debugging.Assert(False, [message])


def _checked(group_size: int | None, context: tf.distribute.ReplicaContext) -> int:
    replicas = context.num_replicas_in_sync
    if group_size is None:
        return replicas
    if replicas % group_size:
        allowed = [size for size in range(1, replicas + 1) if replicas % size == 0]
        raise ValueError(
            f"Argument `sync_group_size` must divide the number of replicas, {replicas}: be one of {allowed}, or None "
            f"for all. Received: sync_group_size={group_size}."
        )
    return group_size


def _sum_of_slots(x: tf.Tensor, slot: int | tf.Tensor, slots: int, context: tf.distribute.ReplicaContext) -> tf.Tensor:
    """For each slot the sum of `x` over the replicas that have it, of shape ``[slots, ...]``."""
    own = tf.reshape(tf.range(slots) == slot, [-1] + [1] * len(x.shape))
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(own, x[tf.newaxis], tf.zeros([], x.dtype)))
