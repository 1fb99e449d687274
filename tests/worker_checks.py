"""Run by each of several workers (test_multi_worker.py): what only they can see. Fails with an assertion."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from kerasbn import BatchNorm, recalibrate
from kerasbn.distribute import JoinedLoss, LossScaleOptimizer, MultiWorkerMirroredStrategy
from tests import reference
from tests.replicas import collectives

CHANNELS = 3


def shards(strategy):
    """Of all workers, and which of them is this one's: the last is empty."""
    workers = strategy.num_replicas_in_sync
    x = np.random.default_rng(0).normal(size=(9, CHANNELS)).astype("float32") * 3 + 100
    cuts = [6, 9][: workers - 1] if workers == 3 else [9]
    return x, np.split(x, cuts), strategy.cluster_resolver.task_id


def gathered(strategy, value):
    """A value of each worker, one under the other."""
    value = tf.convert_to_tensor(value)[tf.newaxis]
    return strategy.gather(strategy.run(lambda: tf.identity(value)), axis=0).numpy()


def synchronized_equals_the_joined_batch(strategy):
    x, parts, own = shards(strategy)
    dy = np.sin(x)
    with strategy.scope():
        layer = BatchNorm(synchronized=True, momentum=0.0)
        layer.build((None, CHANNELS))
    own_dy = np.split(dy, np.cumsum([len(part) for part in parts])[:-1])[own]

    @tf.function(autograph=False)
    def step():
        def replica():
            value = tf.constant(parts[own])
            with tf.GradientTape() as tape:
                tape.watch(value)
                y = layer(value, training=True)
            return y, tape.gradient(y, value, own_dy)

        return strategy.run(replica)

    y, dx = step()
    n = reference.algorithm_1(x, 1.0, 0.0, 1e-3, (0,))
    wanted = reference.backward(x.astype("float64"), 1.0, dy.astype("float64"), 1e-3, (0,))[0]
    rows = slice(sum(map(len, parts[:own])), sum(map(len, parts[: own + 1])))
    np.testing.assert_allclose(y, n.y[rows], atol=1e-5)
    np.testing.assert_allclose(dx, wanted[rows], atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, n.mu[0], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, n.sigma2[0], rtol=1e-5)
    assert collectives(step) == 2


def unsynchronized_statistics_do_not_drift(strategy):
    _, parts, own = shards(strategy)
    with strategy.scope():
        layer = BatchNorm(momentum=0.5)
        layer.build((None, CHANNELS))
    step = tf.function(lambda: strategy.run(lambda: layer(tf.constant(parts[own]), training=True)), autograph=False)
    step()
    of_each = gathered(strategy, layer.moving_mean)
    assert (of_each == of_each[0]).all()
    wanted = np.mean([part.mean(0) / 2 for part in parts if len(part)], 0)
    np.testing.assert_allclose(of_each[0], wanted, rtol=1e-5)


def a_bad_batch_is_seen_and_skipped_by_all(strategy):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((CHANNELS,)), keras.layers.Dense(4), BatchNorm(), keras.layers.Dense(1)])
        optimizer = LossScaleOptimizer(keras.optimizers.SGD(0.05, momentum=0.9))
        model.compile(optimizer, JoinedLoss(keras.losses.MeanSquaredError()))
    x = np.random.default_rng(0).normal(size=(12, CHANNELS)).astype("float32")
    y = x[:, :1]
    fit = {"batch_size": 12, "shuffle": False, "verbose": 0}
    model.fit(x, y, **fit)
    before = [np.array(w) for w in model.trainable_variables + model.optimizer.inner_optimizer.variables]
    bad = x.copy()
    bad[0, 0] = np.nan  # a sample of one worker only
    assert np.isnan(model.fit(bad, y, **fit).history["loss"]).all()
    after = [np.array(w) for w in model.trainable_variables + model.optimizer.inner_optimizer.variables]
    for weight, old in zip(after, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    for weight in model.non_trainable_variables:
        assert weight.dtype == "uint32" or np.isfinite(gathered(strategy, weight)).all()
    assert np.isfinite(model.fit(x, y, **fit).history["loss"]).all()


def population_statistics_are_those_of_all_data(strategy):
    with strategy.scope():
        layer = BatchNorm()
        model = keras.Sequential([keras.Input((CHANNELS,)), layer])
    x = np.random.default_rng(0).normal(size=(25, CHANNELS)).astype("float32") * 3 + 100
    found = recalibrate(model, tf.data.Dataset.from_tensor_slices(x).batch(12))
    assert (found.samples, found.layers[0].values) == (25, 25)
    np.testing.assert_allclose(
        gathered(strategy, layer.moving_mean), [x.mean(0)] * strategy.num_replicas_in_sync, rtol=1e-6
    )
    np.testing.assert_allclose(layer.moving_variance, x.astype("float64").var(0, ddof=1), rtol=1e-5)


def main():
    strategy = MultiWorkerMirroredStrategy()
    for check in (
        synchronized_equals_the_joined_batch,
        unsynchronized_statistics_do_not_drift,
        a_bad_batch_is_seen_and_skipped_by_all,
        population_statistics_are_those_of_all_data,
    ):
        check(strategy)
        print(check.__name__, "holds", flush=True)


if __name__ == "__main__":
    main()
