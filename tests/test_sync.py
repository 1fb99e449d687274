"""Replicas on logical CPUs against one device on the joined batch. Collectives of GPUs are not tested here."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from tests import reference
from tests.crossing import crossed
from tests.replicas import collectives, train_step

CHANNELS = 3


@pytest.fixture(scope="module")
def four():
    # TensorFlow's collectives of CPUs cannot have groups of two sizes in one process.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(4)], cross_device_ops=reduction)


def run(strategy, shards, dys, masks=None, synchronized=True, momentum=0.0, **settings):
    """One training step: each replica's output and input gradient, summed gradients of gamma and beta, statistics."""
    with strategy.scope():
        layer = BatchNorm(synchronized=synchronized, momentum=momentum, **settings)
        layer.build((None, *shards[0].shape[1:]))
    y, dx, gradients, statistics = train_step(strategy, layer, shards, dys, masks)
    return y, dx, *gradients, *statistics[:2]


@pytest.mark.parametrize(
    ("sizes", "masked", "mean", "jit_compile"),
    crossed([(4, 4), (6, 2), (5, 0), (5, 3)], [False, True], [0.0, 1e4], [False, True]),
)
def test_equals_one_device_on_the_joined_batch(strategy, sizes, masked, mean, jit_compile):
    random = np.random.default_rng(0)
    shape = (sum(sizes), 5, CHANNELS)
    x = (random.normal(size=shape) + mean).astype("float32")
    dy = random.normal(size=shape).astype("float32")
    mask = random.random(shape[:-1]) < 0.7 if masked else None
    if masked:
        x[~mask] = mean + 100  # would be seen in every statistic
        dy[~mask] = 0  # as a masked loss has it
    cuts = [sizes[0]]
    masks = None if mask is None else np.split(mask, cuts)
    y, dx, dgamma, dbeta, means, variances = run(
        strategy, np.split(x, cuts), np.split(dy, cuts), masks, jit_compile=jit_compile
    )

    wide = None if mask is None else mask[..., None]
    n = reference.algorithm_1(x, 1.0, 0.0, 1e-3, (0, 1), wide)
    wanted = reference.backward(x.astype("float64"), 1.0, dy.astype("float64"), 1e-3, (0, 1), wide)
    counted = slice(None) if mask is None else mask
    np.testing.assert_allclose(np.concatenate(y)[counted], n.y[counted], atol=1e-5)
    np.testing.assert_allclose(np.concatenate(dx)[counted], wanted[0][counted], atol=1e-5)
    for found, gradient in ((dgamma, wanted[1]), (dbeta, wanted[2])):
        for replica in found:
            np.testing.assert_allclose(replica, gradient.ravel(), rtol=1e-5, atol=1e-5)
    for replica in range(2):
        np.testing.assert_allclose(means[replica], n.mu.ravel(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(variances[replica], n.sigma2.ravel(), rtol=1e-5)


def test_renorm_and_per_activation_axes(strategy):
    random = np.random.default_rng(0)
    x = random.normal(size=(8, 5, CHANNELS)).astype("float32") + 3
    for settings in ({"renorm": True}, {"axis": (1, 2)}, {"unbiased": True}):
        one = BatchNorm(momentum=0.0, **settings)
        wanted = one(x, training=True)
        y, _, _, _, means, variances = run(strategy, np.split(x, [6]), np.split(np.ones_like(x), [6]), **settings)
        np.testing.assert_allclose(np.concatenate(y), wanted, atol=1e-5)
        np.testing.assert_allclose(means[1], one.moving_mean, rtol=1e-5)
        np.testing.assert_allclose(variances[1], one.moving_variance, rtol=1e-4)


def test_globally_empty_batch_moves_nothing(strategy):
    empty = np.zeros((0, 5, CHANNELS), "float32")
    y, dx, dgamma, _, means, variances = run(strategy, [empty, empty], [empty, empty])
    assert y[0].shape == dx[1].shape == (0, 5, CHANNELS)
    np.testing.assert_array_equal(dgamma[0], np.zeros(CHANNELS))
    np.testing.assert_array_equal(means[0], np.zeros(CHANNELS))
    np.testing.assert_array_equal(variances[1], np.ones(CHANNELS))


COUNTED = [
    ({}, 2),
    ({"renorm": True}, 2),
    ({"momentum": None, "unbiased": True}, 2),
    ({"activation": "relu"}, 2),
    ({"jit_compile": False}, 2),
    ({"sync_group_size": 1}, 3),  # one more: the groups' statistics become one
    ({"synchronized": False}, 1),
    ({"synchronized": False, "virtual_batch_size": 2}, 1),
]


@pytest.mark.parametrize(("counted", "masked", "layers"), crossed(COUNTED, [False, True], [1, 3]))
def test_one_collective_forward_and_one_backward(strategy, counted, masked, layers):
    """Counted in the graph that runs, not in the code that made it."""
    settings, collectives_of_a_layer = counted
    with strategy.scope():
        stack = [BatchNorm(**({"synchronized": True} | settings)) for _ in range(layers)]
        for layer in stack:
            layer.build((None, 2, CHANNELS))

    @tf.function(autograph=False)
    def step():
        def replica():
            x = y = tf.random.normal([4, 2, CHANNELS])
            mask = tf.random.normal([4, 2]) > 0 if masked else None
            with tf.GradientTape() as tape:
                tape.watch(x)
                for layer in stack:
                    y = layer(y, training=True, mask=mask)
            return tape.gradient(y, x)

        return strategy.run(replica)

    assert collectives(step) == collectives_of_a_layer * layers * strategy.num_replicas_in_sync


@pytest.mark.parametrize("group_size", [None, 1])
def test_inference_has_no_collective(strategy, group_size):
    with strategy.scope():
        layer = BatchNorm(synchronized=True, sync_group_size=group_size)
        layer.build((None, CHANNELS))
    step = tf.function(lambda: strategy.run(lambda: layer(tf.ones([4, CHANNELS]), training=False)), autograph=False)
    assert collectives(step) == 0


def test_second_order_through_the_collective(strategy):
    x = np.random.default_rng(0).normal(size=(8, CHANNELS)).astype("float32")
    layer_settings = {"momentum": 0.0}

    def penalty(layer, x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = layer(x, training=True)
            gradient = inner.gradient(y, x, tf.sin(3 * tf.stop_gradient(y)))
        return outer.gradient(gradient, x, tf.cos(tf.stop_gradient(x)))

    wanted = penalty(BatchNorm(**layer_settings), tf.constant(x))
    with strategy.scope():
        layer = BatchNorm(synchronized=True, **layer_settings)
        layer.build(x.shape)
    shards = np.split(x, 2)
    values = strategy.experimental_distribute_values_from_function(
        lambda c: tf.constant(shards[c.replica_id_in_sync_group])
    )
    found = tf.function(lambda v: strategy.run(lambda x: penalty(layer, x), args=(v,)))(values)
    np.testing.assert_allclose(np.concatenate(strategy.experimental_local_results(found)), wanted, atol=1e-4)


@pytest.mark.parametrize("synchronized", [False, True])
def test_fit(strategy, synchronized):
    random = np.random.default_rng(0)
    x = random.normal(size=(240, 6)).astype("float32") * 3 + 50
    y = (x[:, :1] > 50).astype("float32")
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((6,)), BatchNorm(momentum=0.8, synchronized=synchronized), keras.layers.Dense(1)]
        )
        model.compile(keras.optimizers.SGD(0.1), "mse")
    losses = model.fit(x, y, batch_size=32, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    np.testing.assert_allclose(model.layers[0].moving_mean, x.mean(0), atol=1.5)
    assert np.isfinite(model.evaluate(x, y, verbose=0))


@pytest.mark.parametrize(
    ("settings", "bad"),
    crossed([{}, {"renorm": True}, {"momentum": None}, {"virtual_batch_size": 2}], [np.nan, np.inf, 1e30]),
)
def test_a_bad_value_on_one_replica_stays_out_of_the_statistics(strategy, settings, bad):
    """Its channel moves on no replica, if they join, and by the other replica only, if they do not; others move."""
    x = np.random.default_rng(0).normal(size=(8, CHANNELS)).astype("float32")
    spoiled = x.copy()
    spoiled[6, 0] = bad
    synchronized = "virtual_batch_size" not in settings
    good = run(strategy, np.split(x, 2), np.split(x, 2), synchronized=synchronized, **({"momentum": 0.5} | settings))
    found = run(
        strategy, np.split(spoiled, 2), np.split(x, 2), synchronized=synchronized, **({"momentum": 0.5} | settings)
    )
    for statistic, of_good in zip(found[-2:], good[-2:], strict=True):
        np.testing.assert_array_equal(statistic[0], statistic[1])
        assert np.isfinite(statistic).all()
        np.testing.assert_allclose(statistic[0][1:], of_good[0][1:], rtol=1e-6)
    if not np.isfinite(bad):
        assert not np.isfinite(found[0][1][:, 0]).all()  # the output says what happened
    if synchronized:
        assert float(found[-2][0][0]) == 0 and float(found[-1][0][0]) == pytest.approx(1, abs=1e-6)


def test_without_a_strategy_synchronized_changes_nothing():
    x = np.random.default_rng(0).normal(size=(8, CHANNELS)).astype("float32")
    np.testing.assert_array_equal(BatchNorm(synchronized=True)(x, training=True), BatchNorm()(x, training=True))


@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_groups_of_replicas(four, group_size):
    """Each group as one device on the group's joined batch; the moving statistics are the mean over the groups."""
    x, dy = np.random.default_rng(0).normal(size=(2, 19, CHANNELS)).astype("float32")
    x *= np.linspace(1, 5, 19)[:, None]
    x = x.astype("float32")
    cuts = [3, 9, 10]
    y, dx, dgamma, dbeta, means, variances = run(
        four, np.split(x, cuts), np.split(dy, cuts), sync_group_size=group_size
    )
    ends = [0, *cuts, len(x)]
    groups = [slice(ends[i], ends[i + group_size]) for i in range(0, 4, group_size)]
    found = [reference.algorithm_1(x[g], 1.0, 0.0, 1e-3, (0,)) for g in groups]
    wanted = [reference.backward(x[g].astype("float64"), 1.0, dy[g].astype("float64"), 1e-3, (0,)) for g in groups]
    np.testing.assert_allclose(np.concatenate(y), np.concatenate([n.y for n in found]), atol=1e-5)
    np.testing.assert_allclose(np.concatenate(dx), np.concatenate([w[0] for w in wanted]), atol=1e-5)
    np.testing.assert_allclose(dgamma[0], sum(w[1] for w in wanted).ravel(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dbeta[3], sum(w[2] for w in wanted).ravel(), rtol=1e-5, atol=1e-5)
    shares = np.array([group_size] * len(groups))[:, None] / 4
    for replica in range(4):
        np.testing.assert_allclose(means[replica], (shares * [n.mu[0] for n in found]).sum(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(variances[replica], (shares * [n.sigma2[0] for n in found]).sum(0), rtol=1e-5)


def test_group_size_must_divide_the_replicas(four):
    x = np.ones((8, CHANNELS), "float32")
    with pytest.raises(ValueError, match=r"`sync_group_size` must divide.*4: be one of \[1, 2, 4\].*sync_group_size=3"):
        run(four, np.split(x, 4), np.split(x, 4), sync_group_size=3)


def test_group_size_needs_synchronized():
    with pytest.raises(ValueError, match=r"must be None unless `synchronized` is True.*sync_group_size=2"):
        BatchNorm(sync_group_size=2)


UNSYNCHRONIZED = [{}, {"momentum": None}, {"renorm": True}, {"virtual_batch_size": 2}, {"unbiased": True}]


@pytest.mark.parametrize(("settings", "sizes"), crossed(UNSYNCHRONIZED, [(4, 4), (7, 2), (5, 0)]))
def test_replicas_that_normalize_apart_do_not_drift(strategy, sizes, settings):
    """Both hold the mean of what each would have alone; one without data has no part in it."""
    x = np.random.default_rng(0).normal(size=(sum(sizes), CHANNELS)).astype("float32") * 2 + 3
    shards = np.split(x, [sizes[0]])
    settings = {"momentum": 0.7} | settings
    *_, means, variances = run(strategy, shards, shards, synchronized=False, **settings)
    alone = [BatchNorm(**settings) for shard in shards if len(shard)]
    for layer, shard in zip(alone, shards, strict=False):
        layer(shard, training=True)
    np.testing.assert_array_equal(means[0], means[1])
    np.testing.assert_array_equal(variances[0], variances[1])
    np.testing.assert_allclose(means[0], np.mean([layer.moving_mean for layer in alone], 0), rtol=1e-5)
    if settings.get("renorm"):
        stddev = np.mean([layer.moving_stddev for layer in alone], 0)
        np.testing.assert_allclose(variances[0], stddev**2 - 1e-3, rtol=1e-4)
    else:
        np.testing.assert_allclose(variances[0], np.mean([layer.moving_variance for layer in alone], 0), rtol=1e-5)


def test_what_is_saved_is_what_every_replica_has(strategy, tmp_path):
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32") * np.linspace(1, 9, 64)[:, None]
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), BatchNorm(momentum=0.5), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    model.fit(x, x[:, :1], batch_size=16, epochs=2, shuffle=False, verbose=0)
    layer = model.layers[0]
    read = tf.function(lambda: strategy.run(lambda: (layer.moving_mean + 0, layer.moving_variance + 0)))
    model.save(tmp_path / "model.keras")
    saved = keras.models.load_model(tmp_path / "model.keras").layers[0]
    for value, weight in zip(read(), (saved.moving_mean, saved.moving_variance), strict=True):
        for replica in strategy.experimental_local_results(value):
            np.testing.assert_array_equal(replica, weight)
