"""Every case on two and three replicas, with shards of different sizes, against one device on the joined batch."""

import numpy as np
import pytest
import tensorflow as tf

from tests.cases import CASES, CORE, train
from tests.crossing import crossed
from tests.replicas import train_step


@pytest.fixture(scope="module")
def three():
    # TensorFlow's collectives of CPUs cannot have groups of two sizes in one process: this strategy adds without.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(3)], cross_device_ops=reduction)


def cuts(case, replicas):
    """The axis to cut along, and where: the first shard is the largest, the last one smallest, maybe empty."""
    axis = case.axes[0]
    # Virtual batches are those of one device if none is cut.
    unit = case.settings.get("virtual_batch_size", 1)
    units = -(-case.shape[axis] // unit)
    shares = {2: [0.7], 3: [0.5, 0.9]}[replicas]
    return axis, [min(int(np.ceil(units * share)) * unit, case.shape[axis]) for share in shares]


def compare(case, strategy, jit_compile):
    replicas = strategy.num_replicas_in_sync
    apart = "virtual_batch_size" in case.settings
    settings = {} if apart else {"synchronized": True, "sync_group_size": None}
    one = case.layer(jit_compile=jit_compile)
    wanted = train(one, case.x, case.dy, case.mask)
    with strategy.scope():
        layer = case.layer(jit_compile=jit_compile, **settings)
    axis, at = cuts(case, replicas)
    x, dy = np.split(case.x, at, axis), np.split(case.dy, at, axis)
    assert len({part.shape for part in x}) > 1
    masks = None if case.mask is None else np.split(case.mask, at, axis)
    y, dx, gradients, statistics = train_step(strategy, layer, x, dy, masks)

    def same(found, wanted):
        wanted = np.asarray(wanted)
        limit = (1e-12 if case.dtype == "float64" else 1e-5) * max(1, np.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, rtol=0, atol=limit)

    same(np.concatenate(y, axis), wanted[0])
    same(np.concatenate(dx, axis), wanted[1])
    for gradient, of_one in zip(gradients, wanted[2:], strict=True):
        for replica in gradient:
            same(replica, of_one)
    for statistic, of_one in zip(statistics, one.non_trainable_weights, strict=True):
        for replica in statistic:
            # Virtual batches move the statistics one after the other: each replica by its own, then their mean.
            same(replica, statistic[0] if apart else of_one)


@pytest.mark.parametrize(("case", "replicas"), crossed(CASES, ["two, compiled", "three, uncompiled"], core=CORE))
def test_shards(case, replicas, strategy, three):
    if replicas == "two, compiled":
        compare(case, strategy, jit_compile=True)
    else:
        compare(case, three, jit_compile=False)


@pytest.mark.parametrize("training", [False, None, True])
def test_inference_and_frozen_layers_join_nothing(strategy, training):
    """They normalize with the moving statistics, which are the same on all replicas, and move nothing."""
    case = CASES[0]
    one = case.layer()
    one.trainable = False
    wanted = one(case.x, training=training)
    with strategy.scope():
        layer = case.layer(synchronized=True)
        layer.trainable = training is not True
    shards = np.split(case.x, [5])
    found = tf.function(
        lambda: strategy.run(
            lambda: layer(
                tf.switch_case(
                    tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, "int32"),
                    [lambda: tf.constant(shards[0]), lambda: tf.constant(shards[1])],
                ),
                training=training,
            )
        ),
        autograph=False,
    )
    y = strategy.experimental_local_results(found())
    np.testing.assert_allclose(np.concatenate(y), wanted, atol=1e-6)
    for weight, of_one in zip(layer.weights, one.weights, strict=True):
        np.testing.assert_array_equal(weight, of_one)


@pytest.mark.parametrize(("dtype", "rounding"), [("mixed_float16", 2**-10), ("mixed_bfloat16", 2**-7)])
def test_half_precision(dtype, rounding, strategy):
    """Shards in half precision join in float32: what differs from one device is the rounding of y and dx."""
    case = next(case for case in CASES if case.name == "sequence")
    one = case.layer(dtype=dtype)
    x, dy = tf.cast(case.x, one.compute_dtype), tf.cast(case.dy, one.compute_dtype)
    wanted = train(one, x, dy)
    with strategy.scope():
        layer = case.layer(dtype=dtype, synchronized=True)
    y, dx, _, statistics = train_step(strategy, layer, [x[:3], x[3:]], [dy[:3], dy[3:]])
    for found, of_one in ((y, wanted[0]), (dx, wanted[1])):
        joined = tf.cast(tf.concat(found, 0), "float32")
        np.testing.assert_allclose(joined, tf.cast(of_one, "float32"), rtol=2 * rounding, atol=2 * rounding)
    for statistic, of_one in zip(statistics, one.non_trainable_weights, strict=True):
        np.testing.assert_allclose(statistic[1], of_one, rtol=1e-5, atol=1e-5)
