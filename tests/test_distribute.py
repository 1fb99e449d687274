"""Whole Keras models over replicas: `fit` with batches that do not divide gives what one device gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from kerasbn.distribute import JoinedLoss, LossScaleOptimizer, MirroredStrategy
from tests.crossing import crossed

RANDOM = np.random.default_rng(0)
X = (RANDOM.normal(size=(22, 6)) * 2 + 5).astype("float32")
Y = (X[:, :2] - 5) / 2


@pytest.fixture(scope="module")
def strategy():
    return MirroredStrategy(["CPU:0", "CPU:1"])


def model(loss=None, policy="float64", optimizer=None, activation="relu", **settings):
    keras.utils.set_random_seed(1)
    shared = keras.layers.Dense(6, dtype=policy)
    norm = BatchNorm(synchronized=True, activation=activation, dtype=policy, **settings)
    inputs = keras.Input((6,))
    x = norm(shared(inputs))
    x = norm(shared(x))  # a layer that is called twice: two pairs of collectives, both move its statistics
    outputs = keras.layers.Dense(2, dtype="float64")(BatchNorm(synchronized=True, dtype=policy)(x))
    found = keras.Model(inputs, outputs)
    found.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), loss or JoinedLoss(mse()), metrics=["mae"])
    return found


def mse(**settings):
    return keras.losses.MeanSquaredError(**settings, dtype="float64")


def same_weights(found, wanted, limit=1e-9):
    for weight, of_one in zip(found.weights, wanted.weights, strict=True):
        np.testing.assert_allclose(weight, of_one, atol=limit, rtol=limit, err_msg=weight.path)


@pytest.fixture
def both(strategy):
    """The same model on one device and on two replicas."""

    def make(**settings):
        one = model(**settings)
        with strategy.scope():
            two = model(**settings)
        same_weights(two, one, 0)
        return one, two

    return make


@pytest.mark.parametrize(
    "batch_size", [8, 7, *(pytest.param(size, marks=pytest.mark.slow) for size in (3, 1))], ids="batch {}".format
)
def test_fit_is_that_of_one_device(both, batch_size):
    """22 samples: shards of 4, 4 and 3; of 4 and 3, in the end of 1 and 0; of 2 and 1; and of 1 and 0."""
    one, two = both()
    settings = {
        "batch_size": batch_size,
        "epochs": 2,
        "shuffle": False,
        "verbose": 0,
        "validation_data": (X[:5], Y[:5]),
    }
    wanted, found = (m.fit(X, Y, **settings).history for m in (one, two))
    same_weights(two, one)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(two.evaluate(X, Y, batch_size=7, verbose=0), one.evaluate(X, Y, verbose=0), rtol=1e-5)
    np.testing.assert_allclose(two.predict(X, batch_size=7, verbose=0), one.predict(X, verbose=0), atol=1e-5)


@pytest.mark.parametrize(
    ("clipping", "loss_scale"),
    crossed([{"clipnorm": 0.05}, {"clipvalue": 0.01}, {"global_clipnorm": 0.05}], [False, True]),
)
def test_clipping_is_that_of_the_joined_gradient(both, strategy, clipping, loss_scale):
    """Each step is clipped. With shards of 4 and 3 samples the gradients of the replicas differ in size, too."""
    one, two = both()
    for m in (one, two):
        with m.distribute_strategy.scope():
            optimizer = keras.optimizers.SGD(0.5, momentum=0.9, **clipping)
            m.compile(LossScaleOptimizer(optimizer) if loss_scale else optimizer, JoinedLoss(mse()))
        m.fit(X, Y, batch_size=7, epochs=2, shuffle=False, verbose=0)
        settings = m.optimizer.inner_optimizer.get_config() if loss_scale else m.optimizer.get_config()
        assert settings | clipping == settings  # what is set during a step is undone
    same_weights(two, one)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_clipping_sparse_gradients_and_in_half_of_the_weights(strategy):
    """Those of an embedding; and a weight that gets no gradient."""

    def make():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((3,), dtype="int32")
        x = keras.layers.Embedding(5, 4, dtype="float64")(inputs)
        m = keras.Model(inputs, keras.layers.Dense(2, dtype="float64")(keras.layers.Flatten()(x)))
        m.unused = keras.layers.Dense(1)
        m.unused.build((None, 2))
        m.compile(keras.optimizers.SGD(0.5, global_clipnorm=0.05), JoinedLoss(mse()))
        return m

    one = make()
    with strategy.scope():
        two = make()
    words = np.random.default_rng(0).integers(0, 5, (22, 3))
    for m in (one, two):
        m.fit(words, Y, batch_size=7, shuffle=False, verbose=0)
    same_weights(two, one)


def test_clipping_in_every_optimizer_of_a_model_of_the_users_own(strategy):
    class Two(keras.Model):
        """Trains the first layer with one optimizer and the second with another, as a GAN does."""

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            first, second = self.layers[1].trainable_weights, self.layers[2].trainable_weights
            gradients = tape.gradient(loss, first + second)
            self.other.apply(gradients[:2], first)
            self.optimizer.apply(gradients[2:], second)
            return {"loss": loss}

    def make():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((6,))
        layers = keras.layers.Dense(3, dtype="float64"), keras.layers.Dense(2, dtype="float64")
        m = Two(inputs, layers[1](layers[0](inputs)))
        m.other = keras.optimizers.SGD(0.5, clipvalue=0.01)
        m.compile(keras.optimizers.Adam(0.1, clipnorm=0.01), JoinedLoss(mse()))
        return m

    one = make()
    with strategy.scope():
        two = make()
    for m in (one, two):
        m.fit(X, Y, batch_size=7, shuffle=False, verbose=0)
    same_weights(two, one)


def test_compiled_or_built_outside_of_the_scope_is_an_error(strategy):
    """Each replica would count each step, and a schedule would run at twice its speed."""
    with strategy.scope():
        m = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    for optimizer in ("sgd", LossScaleOptimizer(keras.optimizers.SGD())):
        m.compile(optimizer, "mse")
        before = m.get_weights()
        with pytest.raises(ValueError, match=r"optimizer .* must be made inside of `strategy.scope\(\)`.*2 replicas"):
            m.fit(X, Y, batch_size=4, verbose=0)
        for a, b in zip(m.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)
    m.evaluate(X, Y, batch_size=4, verbose=0)  # which counts no steps
    m.predict(X, batch_size=4, verbose=0)
    outside = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)], name="outside")
    with strategy.scope():
        outside.compile("sgd", "mse")
        with pytest.raises(ValueError, match=r"The model 'outside' must be made inside.*Received: 'outside/dense"):
            outside.fit(X, Y, batch_size=4, verbose=0)
        m.compile("sgd", "mse", run_eagerly=True)
    m.fit(X, Y, batch_size=11, verbose=0)
    assert m.optimizer.iterations.numpy() == 2
    alone = MirroredStrategy(["CPU:0"])
    with alone.scope():
        m = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    m.compile("sgd", "mse")
    m.fit(X, Y, batch_size=11, verbose=0)
    assert m.optimizer.iterations.numpy() == 2  # one replica counts once


@pytest.mark.parametrize(
    ("option", "settings"),
    [
        ("gradient_accumulation_steps=2", {"gradient_accumulation_steps": 2}),
        ("ema_overwrite_frequency=3", {"use_ema": True, "ema_overwrite_frequency": 3}),
    ],
)
def test_options_that_keras_cannot_run_on_replicas_are_refused_by_name(strategy, option, settings):
    with strategy.scope():
        m = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
        m.compile(keras.optimizers.SGD(0.01, **settings), "mse")
    with pytest.raises(ValueError, match=f"must be None on several replicas.*Received: {option}"):
        m.fit(X, Y, batch_size=4, verbose=0)


def test_averages_of_weights_go_into_the_weights_at_the_end(both):
    """As the error about `ema_overwrite_frequency` advises."""
    one, two = both()
    for m in (one, two):
        with m.distribute_strategy.scope():
            m.compile(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5), JoinedLoss(mse()))
        m.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    same_weights(two, one)


def test_without_the_joined_loss_a_small_shard_weighs_more(both):
    """Why there is a JoinedLoss: this is what Keras does, and what the test above would see."""
    one, two = both(loss=mse())
    for m in (one, two):
        m.fit(X[:3], Y[:3], batch_size=3, verbose=0)
    assert max(np.abs(a - b).max() for a, b in zip(one.get_weights(), two.get_weights(), strict=True)) > 1e-3


def test_several_steps_an_execution(both):
    one, two = both()
    for m in (one, two):
        with m.distribute_strategy.scope():
            m.compile(keras.optimizers.SGD(0.05), JoinedLoss(mse()), steps_per_execution=3)
        m.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    same_weights(two, one)


def test_train_on_batch(strategy, both):
    """Keras gives the whole batch to every replica: the joined batch holds it twice, and has its moments."""
    one, two = both()
    for m in (one, two):
        for _ in range(3):
            m.train_on_batch(X, Y)
    same_weights(two, one)


def test_a_custom_loop(strategy, both):
    one, two = both()
    one.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    data = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices((X, Y)).batch(8))

    @tf.function(autograph=False)
    def step(x, y):
        def replica(x, y):
            with tf.GradientTape() as tape:
                loss = two.compute_loss(x, y, two(x, training=True))
            weights = two.trainable_variables
            two.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

        strategy.run(replica, args=(x, y))

    for x, y in data:
        step(x, y)
    same_weights(two, one)


def test_mixed_precision_with_a_loss_scale(both):
    one, two = both(policy="mixed_float16")
    for m in (one, two):
        with m.distribute_strategy.scope():
            m.compile(LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=64), JoinedLoss(mse()))
        m.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        assert m.optimizer.inner_optimizer.iterations.numpy() == 6  # none was skipped
    same_weights(two, one, 5e-3)


def test_gradients_that_overflow_on_one_replica_are_skipped_by_all(strategy):
    """On the second one, which Keras's optimizer does not look at."""
    with strategy.scope():
        m = keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones", dtype="mixed_float16")]
        )
        m.compile(LossScaleOptimizer(keras.optimizers.SGD(1e-3)), JoinedLoss(mse()))
    m.optimizer.build(m.trainable_variables)
    before, scale = m.get_weights(), m.optimizer.dynamic_scale.numpy()
    m.fit(np.array([[0.0], [200.0]]), np.zeros((2, 1)), batch_size=2, shuffle=False, verbose=0)
    for weight, old in zip(m.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert m.optimizer.dynamic_scale.numpy() == scale / 2


@pytest.mark.parametrize("synchronized", [False, True])
def test_a_bad_batch_is_seen_by_all_and_skipped_by_all(strategy, synchronized):
    """A NaN on one replica: in the logs; no weight, slot or statistic of either replica holds it afterwards."""
    with strategy.scope():
        keras.utils.set_random_seed(0)
        m = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(4), BatchNorm(synchronized=synchronized), keras.layers.Dense(2)]
        )
        m.compile(LossScaleOptimizer(keras.optimizers.SGD(0.05, momentum=0.9)), JoinedLoss(mse()))
    m.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    before, steps = m.get_weights(), m.optimizer.inner_optimizer.iterations.numpy()
    bad = X[:8].copy()
    bad[7, 0] = np.nan
    logs = m.fit(bad, Y[:8], batch_size=8, shuffle=False, verbose=0).history
    assert np.isnan(logs["loss"]).all()
    assert m.optimizer.inner_optimizer.iterations.numpy() == steps
    statistics = {w.path for w in m.non_trainable_weights}
    for weight, old in zip(m.weights, before, strict=True):
        replicas = strategy.experimental_local_results(weight.value)
        assert len(replicas) == 2
        for replica in replicas:
            assert np.isfinite(replica).all(), weight.path
            if synchronized or weight.path not in statistics:
                np.testing.assert_array_equal(replica, old, err_msg=weight.path)
    assert np.isfinite(m.fit(X, Y, batch_size=8, verbose=0).history["loss"]).all()


class TestJoinedLoss:
    """One device: it is the loss that it wraps."""

    @pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean", "mean_with_sample_weight"])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_equals_the_loss(self, reduction, weighted):
        weight = np.arange(22.0, dtype="float32") if weighted else None
        loss = mse(reduction=reduction)
        np.testing.assert_allclose(JoinedLoss(loss)(Y, X[:, :2], weight), loss(Y, X[:, :2], weight), rtol=1e-6)

    def test_masks_and_weights(self):
        """With a mask on the predictions, as an Embedding makes it."""
        inputs = keras.Input((4,))
        embedded = keras.layers.Embedding(9, 3, mask_zero=True)(inputs)
        m = keras.Model(inputs, embedded)
        ids = np.array([[1, 2, 0, 0], [3, 4, 5, 0]])
        target = np.ones((2, 4, 3), "float32")
        losses = []
        for wrap in (lambda loss: loss, JoinedLoss):
            m.compile(loss=wrap(mse()))
            losses.append(m.evaluate(ids, target, sample_weight=np.array([[1.0] * 4, [3.0] * 4]), verbose=0))
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)

    def test_empty_batch(self):
        assert float(JoinedLoss(mse())(Y[:0], X[:0, :2])) == 0

    def test_is_saved_with_the_model(self, tmp_path):
        m = model(loss=JoinedLoss(keras.losses.BinaryCrossentropy(from_logits=True)))
        m.fit(X, Y, verbose=0)
        m.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras").loss
        assert isinstance(loaded, JoinedLoss) and isinstance(loaded.loss, keras.losses.BinaryCrossentropy)
        assert loaded.name == m.loss.name
        np.testing.assert_array_equal(loaded(Y > 0, 9 * Y), m.loss(Y > 0, 9 * Y))
