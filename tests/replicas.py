"""One training step on several replicas, and what its graph holds."""

import tensorflow as tf


def per_replica(strategy, values):
    """A value for each replica; `None` for `None`."""
    if values is None:
        return None
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(values[context.replica_id_in_sync_group])
    )


def train_step(strategy, layer, shards, dys, masks=None):
    """Lists with a value for each replica: y, the gradient of x, the summed ones of the parameters, all statistics."""

    @tf.function(autograph=False)
    def step(x, dy, mask):
        def replica(x, dy, mask):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True, mask=mask)
            parameters = [weight.value for weight in layer.trainable_weights]
            dx, *gradients = tape.gradient(y, [x, *parameters], tf.cast(dy, y.dtype))
            total = tf.distribute.get_replica_context().all_reduce("SUM", gradients) if gradients else []
            return y, dx, total, [weight + 0 for weight in layer.non_trainable_weights]

        return strategy.run(replica, args=(x, dy, mask))

    found = step(*(per_replica(strategy, values) for values in (shards, dys, masks)))
    return tf.nest.map_structure(strategy.experimental_local_results, found)


def collectives(function) -> int:
    """How many collective operations a call of a `tf.function` runs, on all its devices together."""
    graph = function.get_concrete_function().graph.as_graph_def()
    library = {inner.signature.name: inner.node_def for inner in graph.library.function}

    def count(nodes):
        total = 0
        for node in nodes:
            total += node.op.startswith(("CollectiveReduce", "CollectiveGather", "CollectiveAllToAll", "Nccl"))
            total += sum(count(library[value.func.name]) for value in node.attr.values() if value.func.name in library)
        return total

    return count(graph.node)
