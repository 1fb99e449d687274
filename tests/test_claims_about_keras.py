"""What the documents say about Keras, shown with the Keras that is installed.

Each test names the pages that say it. When a test fails after an update of Keras, the sentence is no longer true. Other
sentences about Keras have tests beside those of kerasbn: numbers in `tests/test_numbers.py`; the error at a large mean
in `docs/numerics.md`, whose code `tests/test_documents.py` runs; Keras's mean of means in `tests/test_distribute.py`.
"""

import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.multi_worker.cluster import ROOT, Cluster
from tests.replicas import per_replica

L = keras.layers
X = np.random.default_rng(0).normal(3.0, 2.0, size=(22, 4)).astype("float32")
Y = X[:, :2].copy()


def network(*layers, optimizer="sgd", **settings):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), *layers, L.Dense(2, name="logits")])
    model.compile(optimizer, "mse", **settings)
    return model


def called(layer, x, **arguments):
    layer.build(np.shape(x))
    return layer(x, **arguments)


# The layer: the table "Differences from Keras's layer" of docs/layer.md


@pytest.mark.parametrize(
    "arguments",
    [
        {"axis": (1, 2)},
        {"momentum": None},
        {"unbiased": True},
        {"activation": "relu"},
        {"virtual_batch_size": 32},
        {"jit_compile": "auto"},
        {"sync_group_size": 2},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_arguments_that_keras_lacks(arguments):
    """docs/layer.md, docs/comparison.md, docs/faq.md (`virtual_batch_size`), `kerasbn.to_keras`."""
    with pytest.raises((TypeError, ValueError)):
        called(L.BatchNormalization(**arguments), np.ones((4, 3, 5), "float32"), training=True)


def test_defaults():
    """docs/layer.md, docs/serving.md and docs/faq.md: momentum 0.99, epsilon 1e-3, a share of the old value."""
    layer = L.BatchNormalization()
    assert (layer.momentum, layer.epsilon, layer.axis) == (0.99, 1e-3, -1)
    called(layer, X, training=True)
    np.testing.assert_allclose(layer.moving_mean, 0.01 * X.mean(0), rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, 0.99 + 0.01 * X.var(0), rtol=1e-4)  # the biased variance


def test_an_epsilon_of_1e_3_makes_a_channel_of_that_variance_smaller_by_29_percent():
    """docs/serving.md."""
    x = (np.sqrt(1e-3) * np.array([[1.0], [-1.0]])).astype("float32")
    ours, theirs = (
        called(L.BatchNormalization(epsilon=epsilon), x, training=True).numpy()[0, 0] for epsilon in (1e-3, 1e-5)
    )
    assert 1 - ours / theirs == pytest.approx(0.29, abs=0.005)


def test_second_derivatives_are_wrong_unless_their_weights_sum_to_0():
    """docs/layer.md, docs/design.md: against finite differences in float64."""
    layer = L.BatchNormalization(dtype="float64")
    random = np.random.default_rng(0)
    x, dy, direction = (random.normal(size=(6, 2)) for _ in range(3))
    layer.build(x.shape)

    def gradient(x, dy):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(layer(x, training=True) * dy)
        return tape.gradient(y, x)

    def second(dy):
        z = tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(z)
            with tf.GradientTape() as inner:
                inner.watch(z)
                y = tf.reduce_sum(layer(z, training=True) * dy)
            along = tf.reduce_sum(inner.gradient(y, z) * direction)
        return outer.gradient(along, z).numpy()

    def wanted(dy):
        found = np.zeros_like(x)
        for place in np.ndindex(*x.shape):
            step = np.zeros_like(x)
            step[place] = 1e-5
            difference = gradient(x + step, dy) - gradient(x - step, dy)
            found[place] = np.sum(difference * direction) / 2e-5
        return found

    direction_of_sum_0 = direction - direction.mean(0)
    assert np.abs(second(dy) - wanted(dy)).max() > 1e-3
    direction = direction_of_sum_0
    np.testing.assert_allclose(second(dy), wanted(dy), atol=1e-6)


def test_an_empty_or_masked_batch_moves_the_statistics():
    """docs/layer.md: towards 0 or to NaN."""
    masked, empty = (L.BatchNormalization(moving_mean_initializer="ones") for _ in range(2))
    called(masked, X, training=True, mask=np.zeros(len(X), bool))
    assert np.all(masked.moving_mean < 1)
    called(empty, X[:0], training=True)
    assert not np.all(empty.moving_mean == 1)


def test_a_nan_under_a_mask_stays():
    """docs/layer.md: in the output and in the gradient of `gamma`."""
    layer, x = L.BatchNormalization(), X.copy()
    x[0] = np.nan
    layer.build(x.shape)
    with tf.GradientTape() as tape:
        y = layer(x, training=True, mask=np.arange(len(x)) > 0)
        loss = tf.reduce_sum(y[1:])
    assert np.isnan(y[0]).all() and np.isnan(tape.gradient(loss, layer.gamma.value)).all()


def test_a_mask_divides_by_a_little_too_much():
    """docs/testing.md: by the number of values plus 1e-7. At a mean of 1000 times sqrt(epsilon) that is seen."""
    x = np.full((4, 1, 2), 1000 * np.sqrt(1e-3))
    layer = L.BatchNormalization(dtype="float64", momentum=0.0)
    called(layer, x, training=True, mask=np.ones((4, 1), bool))
    np.testing.assert_allclose(layer.moving_mean, x[0, 0] * 4 / (4 + 1e-7), rtol=1e-12)


def test_a_nan_stays_in_the_moving_statistics():
    """docs/layer.md, docs/faq.md."""
    layer, bad = L.BatchNormalization(), X.copy()
    bad[0, 0] = np.nan
    called(layer, bad, training=True)
    for _ in range(3):
        layer(X, training=True)
    assert np.isnan(layer.moving_mean[0]) and np.isfinite(layer.moving_mean[1])


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_moving_statistics_in_half_precision_stop_moving(policy):
    """docs/layer.md, docs/faq.md: an update of 1 % of what is missing rounds to nothing."""
    layer = L.BatchNormalization(dtype=policy)
    x = tf.cast(X, policy)
    layer.build(x.shape)
    for _ in range(600):
        layer(x, training=True)
    assert layer.moving_mean.dtype == policy
    before = layer.moving_mean.numpy()
    layer(x, training=True)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), before)
    assert np.abs(before.astype("float32") - X.mean(0)).max() > 0.02


def test_frozen_is_inference_mode_and_there_is_no_other_flag():
    """docs/serving.md, docs/faq.md."""
    layer = L.BatchNormalization(trainable=False)
    called(layer, X, training=True)
    assert np.all(layer.moving_mean == 0) and not layer.trainable_weights


def test_training_false_of_a_functional_model_is_overridden_by_fit():
    """docs/faq.md."""
    backbone = keras.Sequential([keras.Input((4,)), L.BatchNormalization()])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2)(backbone(inputs, training=False)))
    model(X, training=True)
    assert np.all(backbone.layers[-1].moving_mean != 0)


def test_statistics_move_also_where_gradients_wait():
    """docs/faq.md: gradient accumulation."""
    layer = L.BatchNormalization()
    model = network(layer, optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    model.fit(X[:8], Y[:8], batch_size=8, verbose=0)
    assert np.all(layer.gamma == 1) and np.all(layer.moving_mean != 0)


# What is around the layer


def test_jit_compile_auto_compiles_nothing_on_a_cpu_and_under_a_strategy(strategy):
    """docs/faq.md."""
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a machine without accelerators is meant")
    assert not network().jit_compile
    with strategy.scope():
        assert not network().jit_compile


def test_exclusion_from_weight_decay_is_forgotten():
    """docs/faq.md, `kerasbn.transforms.scale_weight_decay`."""
    layer, optimizer = L.BatchNormalization(), keras.optimizers.AdamW(1e-3, weight_decay=0.1)
    layer.build((None, 4))
    optimizer.exclude_from_weight_decay(var_names=["gamma"])
    again = keras.optimizers.AdamW.from_config(optimizer.get_config())
    for one, decayed in ((optimizer, False), (again, True)):
        layer.gamma.assign(np.ones(4))
        one.apply([np.zeros(4, "float32")] * 2, [layer.gamma, layer.beta])
        assert np.any(layer.gamma != 1) == decayed


def test_clone_model_loses_trainable_and_unties_nested_models():
    """docs/design.md."""
    tied = L.Dense(4, name="tied")
    models = []
    for name in ("one", "other"):
        inputs = keras.Input((4,))
        models.append(keras.Model(inputs, tied(inputs), name=name))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, models[1](models[0](inputs)))
    models[0].trainable = False
    new = keras.models.clone_model(model)
    assert new.get_layer("one").get_layer("tied") is not new.get_layer("other").get_layer("tied")
    frozen = keras.Model(inputs, L.Dense(2)(inputs))
    frozen.trainable = False
    assert keras.models.clone_model(frozen).trainable


def test_an_optimizer_gives_the_value_of_a_schedule():
    """docs/design.md."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert not isinstance(keras.optimizers.SGD(schedule).learning_rate, keras.optimizers.schedules.LearningRateSchedule)


def test_the_lower_bound_of_a_solarization_is_ignored():
    """`kerasbn.transforms.reduce_photometric_distortions`: the threshold is drawn from 0 upwards."""
    layer = L.Solarization(addition_factor=0.0, threshold_factor=(1.0, 1.0), value_range=(0.0, 1.0), seed=0)
    images = np.full((64, 2, 2, 3), 0.9, "float32")
    assert np.any(layer(images, training=True) < 0.5)  # inverted, though none is above 1


def test_einsum_dense_says_the_wrong_shape():
    """docs/testing.md: for an ellipsis of two axes or more their order is reversed."""
    layer = L.EinsumDense("...a,ab->...b", 2)
    layer.build((None, 5, 6, 3))
    assert layer(np.ones((4, 5, 6, 3), "float32")).shape == (4, 5, 6, 2)
    assert layer.compute_output_shape((None, 5, 6, 3))[1:] != (5, 6, 2)


def test_the_slope_of_leaky_relu_is_in_single_precision():
    """docs/testing.md."""
    assert float(tf.nn.leaky_relu(tf.constant(-1.0, "float64"), 0.1)) != -0.1


# Several replicas, under TensorFlow's own strategy: docs/distributed.md, docs/layer.md, docs/comparison.md


def distributed(strategy, layer, shards, masks=None, gradient=False):
    """A function that calls `layer` in training on the `shards`, and what it gave on each replica."""

    @tf.function(autograph=False)
    def step(x, mask):
        def replica(x, mask):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True, mask=mask)
            return tape.gradient(y, x, y) if gradient else y

        return strategy.run(replica, args=(x, mask))

    arguments = [per_replica(strategy, values) for values in (shards, masks)]
    return step, arguments, strategy.experimental_local_results(step(*arguments))


def synchronized(strategy, **settings):
    with strategy.scope():
        layer = L.BatchNormalization(synchronized=True, **settings)
        layer.build((None, 4))
    return layer


def test_synchronized_takes_three_collectives_forward_and_two_backward(strategy):
    layer = synchronized(strategy)
    counts = []
    for gradient in (False, True):
        step, arguments, _ = distributed(strategy, layer, [X[:4], X[4:8]], gradient=gradient)
        graph = step.get_concrete_function(*arguments).graph
        counts.append(sum(o.type.startswith("CollectiveReduce") for o in graph.get_operations()) / 2)
    assert counts == [3, 5]


def test_synchronized_weights_shards_by_their_size(strategy):
    layer = synchronized(strategy)
    _, _, y = distributed(strategy, layer, [X[:4], X[4:5]])
    joined = X[:5]
    wanted = (joined - joined.mean(0)) / np.sqrt(joined.var(0) + 1e-3)
    np.testing.assert_allclose(np.concatenate(y), wanted, atol=1e-4)


def test_synchronized_cancels_at_a_large_mean(strategy):
    x = (np.random.default_rng(0).normal(size=(64, 4)) + 1e4).astype("float32")
    _, _, y = distributed(strategy, synchronized(strategy), [x[:32], x[32:]])
    wide = x.astype("float64")
    assert np.abs(np.concatenate(y) - (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-3)).max() > 0.1


def test_synchronized_has_no_effect_with_a_mask(strategy):
    shards = [X[:4], X[4:8] + 100]
    _, _, y = distributed(strategy, synchronized(strategy), shards, [np.ones(4, bool)] * 2)
    for found, x in zip(y, shards, strict=True):
        np.testing.assert_allclose(found, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3), atol=1e-3)


def test_replicas_that_normalize_apart_keep_statistics_of_their_own(strategy, tmp_path):
    """docs/layer.md: one's are saved."""
    with strategy.scope():
        layer = L.BatchNormalization(momentum=0.0)
        layer.build((None, 4))
    distributed(strategy, layer, [X[:4], X[4:8]])
    first, second = layer.moving_mean.value.values
    np.testing.assert_allclose(first, X[:4].mean(0), rtol=1e-4)
    np.testing.assert_allclose(second, X[4:8].mean(0), rtol=1e-4)
    np.testing.assert_array_equal(layer.get_weights()[2], first)


@pytest.mark.parametrize("layer", [L.BatchNormalization, L.LayerNormalization])
def test_fit_fails_if_the_first_batch_does_not_divide_and_not_if_the_last_one_does_not(strategy, layer):
    with strategy.scope():
        model = network(layer())
    model.fit(X[:7], Y[:7], batch_size=4, verbose=0)
    with strategy.scope():
        model = network(layer())
    with pytest.raises(Exception, match=r"shape|Shape|dimension|size"):
        model.fit(X[:7], Y[:7], batch_size=3, verbose=0)


def test_compiled_outside_of_the_scope_each_step_counts_once_a_replica(strategy):
    """docs/distributed.md; under kerasbn's strategies it is an error."""
    with strategy.scope():
        model = network()
    model.compile("sgd", "mse")
    model.fit(X[:8], Y[:8], batch_size=4, verbose=0)
    assert int(model.optimizer.iterations) == 4  # two steps


def test_clipping_is_that_of_each_replica(strategy):
    """docs/distributed.md. Two shares of norm 1 add up to 2 at most, and 0 where they are opposite."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), L.Dense(1, use_bias=False, kernel_initializer="zeros")])
        model.compile(keras.optimizers.SGD(1.0, clipnorm=1.0), "mse")
    x, y = np.ones((2, 1), "float32"), np.array([[100.0], [-1000.0]], "float32")
    model.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    assert model.layers[0].kernel.numpy() == 0  # on one device -1: the gradient of the joined batch is far from 0


@pytest.mark.parametrize(
    "settings", [{"gradient_accumulation_steps": 2}, {"use_ema": True, "ema_overwrite_frequency": 2}]
)
def test_options_that_fail_on_several_replicas(strategy, settings):
    with strategy.scope():
        model = network(optimizer=keras.optimizers.SGD(0.1, **settings))
    with pytest.raises(RuntimeError, match="merge_call"):
        model.fit(X[:8], Y[:8], batch_size=4, verbose=0)


def test_the_loss_scale_looks_at_the_first_replica_only(strategy):
    """docs/layer.md, docs/distributed.md, `kerasbn.distribute.LossScaleOptimizer`."""
    with strategy.scope():
        dense = L.Dense(1, kernel_initializer="ones", dtype="mixed_float16")
        model = keras.Sequential([keras.Input((1,)), dense])
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3)), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(np.array([[0.0], [200.0]]), np.zeros((2, 1)), batch_size=2, shuffle=False, verbose=0)
    assert not np.isfinite(dense.kernel).all()


@pytest.mark.slow
def test_several_steps_an_execution_fail_on_logical_cpus():
    """docs/distributed.md, `kerasbn.distribute.MirroredStrategy`: TensorFlow's collectives fail within loops."""
    command = [sys.executable, "-m", "tests.claims_on_replicas"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT, check=False)
    assert "works" not in done.stdout and "fails after" in done.stdout, done.stderr[-2000:]


@pytest.mark.slow
def test_fit_on_several_workers_fails_before_the_first_step(tmp_path):
    """docs/distributed.md, docs/layer.md, `kerasbn.distribute.MultiWorkerMirroredStrategy`."""
    with Cluster(2, ["worker"], tmp_path, module="tests.claims_on_replicas") as cluster:
        cluster.start_all()
        cluster.wait(timeout=200)
        logs = [cluster.log(index).read_text() for index in range(2)]
    assert all("fails after 0 steps" in log for log in logs), logs[0][-2000:]
