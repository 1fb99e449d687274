"""The rate is raised in the step and nowhere else: models end where those with a raised optimizer end, to the bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.callbacks import BackupAndRestore, LearningRateScheduler, ReduceLROnPlateau, TerminateOnNaN
from keras.optimizers import SGD, Adam, schedules

from kerasbn.callbacks import LearningRateAcceleration
from kerasbn.schedules import Accelerated, accelerated_epochs
from kerasbn.snapshot import Snapshot
from tests.crossing import first_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 6)).astype("float32")
Y = (X @ RANDOM.normal(size=(6, 2))).astype("float32")
RATE, FACTOR = 2.0**-7, 4.0  # The product is exact.
HOW = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "xla, steps_per_execution": {"steps_per_execution": 2, "jit_compile": True},
}


def built(optimizer, **how):
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(4),
        keras.layers.BatchNormalization(momentum=0.8),
        keras.layers.ReLU(),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(optimizer, "mse", **how)
    return model


def fitted(model, *callbacks, epochs=3, **settings):
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0, **settings}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **settings).history


def assert_equal_state(a, b, but_for=()):
    for u, v in zip(a.variables + a.optimizer.variables, b.variables + b.optimizer.variables, strict=True):
        if u.name not in ("learning_rate", *but_for):
            np.testing.assert_array_equal(u.numpy(), v.numpy(), err_msg=u.path)


def decaying(rate=RATE):
    return schedules.ExponentialDecay(rate, 24, 0.5, staircase=True)


def accumulating(rate):
    return Adam(rate, gradient_accumulation_steps=2)


def scaling(rate):
    return keras.optimizers.LossScaleOptimizer(SGD(rate, momentum=0.5), initial_scale=8.0)


def several(rate):
    """Two optimizers in one."""
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("Keras has it from 3.15 on")
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(SGD(rate), {".*dense.*": SGD(rate, momentum=0.5)})
    )


OPTIMIZERS = [accumulating, scaling, several]


@pytest.mark.parametrize("how", HOW)
def test_number_and_schedule(how):
    for rate, raised in ((RATE, RATE * FACTOR), (decaying(), Accelerated(decaying(), FACTOR, 6.0))):
        model, expected = built(SGD(rate, momentum=0.9), **HOW[how]), built(SGD(raised, momentum=0.9), **HOW[how])
        history = fitted(model, LearningRateAcceleration(FACTOR, 6.0))
        assert history["loss"] == fitted(expected)["loss"]
        assert_equal_state(model, expected)
        assert float(model.optimizer.learning_rate) == (RATE if rate == RATE else float(rate(12)))  # put back
        assert history["accelerated_learning_rate"][-1] == float(expected.optimizer.learning_rate)


@pytest.mark.parametrize("optimizer", first_of(OPTIMIZERS))
def test_optimizers(optimizer):
    for rate, raised in ((RATE, RATE * FACTOR), (decaying(), Accelerated(decaying(), FACTOR, 6.0))):
        model, expected = built(optimizer(rate)), built(optimizer(raised))
        history = fitted(model, LearningRateAcceleration(FACTOR, 6.0), epochs=2)
        assert history["loss"] == fitted(expected, epochs=2)["loss"]
        assert_equal_state(model, expected)
        assert history["acceleration_factor"] == [FACTOR] * 2


def test_two_replicas(strategy):
    """With one step an execution: more fail on two CPUs in Keras itself."""
    for rate, raised in ((RATE, RATE * FACTOR), (decaying(), Accelerated(decaying(), FACTOR, 6.0))):
        with strategy.scope():
            model, expected = built(Adam(rate)), built(Adam(raised))
        losses = fitted(model, LearningRateAcceleration(FACTOR, 6.0), epochs=2)["loss"]
        np.testing.assert_allclose(losses, fitted(expected, epochs=2)["loss"], rtol=1e-6)  # summed in any order


def test_warm_up():
    """The factor rises over batches, also where gradients accumulate, and with a schedule as with a number."""

    for optimizer in (SGD, accumulating):
        histories = []
        for rate in (RATE, schedules.PiecewiseConstantDecay([1000], [RATE, RATE])):
            model = built(optimizer(rate))
            history = fitted(model, LearningRateAcceleration(5.0, warmup_steps=8))
            np.testing.assert_allclose(history["accelerated_learning_rate"], [3 * RATE, 5 * RATE, 5 * RATE])
            histories.append(history["loss"])
        np.testing.assert_allclose(*histories, rtol=1e-6)


def test_callbacks_that_set_the_rate_from_any_place():
    """They see the rate without the factor."""
    seen = []

    def scheduler():
        return LearningRateScheduler(lambda epoch, rate: seen.append(rate) or rate / (2 if epoch else 1))

    def plateau():
        return ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9, min_lr=RATE / 8)

    expected = built(SGD(RATE * FACTOR))
    losses = fitted(
        expected,
        LearningRateScheduler(lambda epoch, rate: rate / (2 if epoch else 1)),
        ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9, min_lr=RATE * FACTOR / 8),
    )["loss"]
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        callbacks = [scheduler(), plateau(), LearningRateAcceleration(FACTOR)]
        seen.clear()
        model = built(SGD(RATE))
        history = fitted(model, *(callbacks[i] for i in order))
        assert history["loss"] == losses
        assert seen == [RATE, RATE, RATE / 4]
        assert history["accelerated_learning_rate"][0] == RATE * FACTOR
        assert_equal_state(model, expected)


def test_epochs_of_a_scheduler_run_faster():
    given = []

    def relative(epoch, rate):
        given.append(epoch)
        return rate * 0.9 if epoch else rate

    for schedule, expected in ((relative, [0.9**6, 0.9**12]), (lambda epoch: 0.5**epoch, [0.5**6, 0.5**12])):
        faster = LearningRateScheduler(accelerated_epochs(schedule, 6.0))
        rates = fitted(built(SGD(1.0)), LearningRateAcceleration(1e-3), faster)["learning_rate"]
        np.testing.assert_allclose(rates, [1.0, *expected], rtol=1e-6)
    assert given == list(range(13))
    slower = accelerated_epochs(lambda epoch, rate: rate + epoch, 0.5)
    assert [slower(epoch, 7.0) for epoch in (1, 2, 3, 4)] == [7.0, 8.0, 7.0, 9.0]  # 7: no new epoch, the rate stays


@pytest.mark.parametrize("speedup", [0.5, 6.0])
def test_a_schedule_of_the_epoch_alone_does_not_depend_on_the_last_rate(speedup):
    """A new process resumes with whatever rate its optimizer has: slowed down, that was taken for the schedule's."""
    faster = accelerated_epochs(lambda epoch: 0.1 / (epoch + 1), speedup)
    assert [faster(epoch, 123.0) for epoch in range(4)] == [0.1 / (int(epoch * speedup) + 1) for epoch in range(4)]


@pytest.mark.parametrize("rate", [RATE, decaying()], ids=["number", "schedule"])
def test_fit_again_and_without(rate):
    """The factor is there once, whether the callback is the same or a new one, and gone without it."""
    raised = RATE * FACTOR if rate == RATE else Accelerated(rate, FACTOR, 6.0)
    model, expected, plain = built(SGD(rate)), built(SGD(raised)), built(SGD(rate))
    same = LearningRateAcceleration(FACTOR, 6.0)
    for acceleration in (same, same, LearningRateAcceleration(FACTOR, 6.0)):
        assert fitted(model, acceleration, epochs=1)["loss"] == fitted(expected, epochs=1)["loss"]
    plain.set_weights(model.get_weights())
    plain.optimizer.iterations.assign(12)
    assert fitted(model)["loss"] == fitted(plain)["loss"]


def test_a_step_of_a_schedule_is_traced_once():
    traces = []

    class Counting(keras.Sequential):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    model = Counting([keras.Input((6,)), keras.layers.Dense(2)])
    model.compile(SGD(decaying()), "mse")
    acceleration = LearningRateAcceleration()
    for _ in range(3):
        fitted(model, acceleration)
    count = len(traces)
    model.optimizer.learning_rate = decaying(RATE / 2)  # seen by the next fit
    history = fitted(model, acceleration)
    assert len(traces) == 2 * count
    assert history["accelerated_learning_rate"][-1] == 5.0 * float(decaying(RATE / 2)(48 * 6))


def test_a_schedule_is_evaluated_in_the_traced_step_only():
    """To assign `optimizer.learning_rate` evaluates the schedule: twice a step, that took longer than the step."""
    eager = []

    @keras.saving.register_keras_serializable("tests")
    class Counting(schedules.ExponentialDecay):
        def __call__(self, step):
            eager.append(tf.executing_eagerly())
            return super().__call__(step)

    def evaluations(backoff, epochs):
        acceleration = LearningRateAcceleration(warmup_steps=6, on_divergence=backoff)
        model = built(SGD(Counting(RATE, 24, 0.5)))
        fitted(model, acceleration, epochs=1)
        eager.clear()
        fitted(model, acceleration, epochs=1, batch_size=32 // epochs)
        return sum(eager)

    for backoff in (None, "backoff"):
        assert evaluations(backoff, 16) == evaluations(backoff, 2)


@pytest.mark.parametrize("backoff", [None, "backoff"])
def test_a_number_is_multiplied_in_the_traced_step_only(backoff, monkeypatch):
    """Between steps nothing is computed, and no value is waited for."""
    eager = []
    assign = keras.Variable.assign

    def counted(variable, value):
        eager.append(tf.executing_eagerly())
        return assign(variable, value)

    model, acceleration = built(SGD(RATE)), LearningRateAcceleration(warmup_steps=6, on_divergence=backoff)
    fitted(model, acceleration, epochs=1)
    monkeypatch.setattr(keras.Variable, "assign", counted)
    numbers = []
    for batch_size in (2, 16):
        eager.clear()
        fitted(model, acceleration, epochs=1, batch_size=batch_size)
        numbers.append(sum(eager))
    assert numbers[0] == numbers[1]


def test_a_new_callback_finds_the_step_that_was_traced():
    traces = []

    class Counting(keras.Sequential):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    for rate in (RATE, decaying()):
        model = Counting([keras.Input((6,)), keras.layers.Dense(2)])
        model.compile(SGD(rate), "mse")
        traces.clear()
        fitted(model, LearningRateAcceleration(2.0), epochs=1)
        first = len(traces)
        logs = fitted(model, LearningRateAcceleration(4.0), epochs=1)
        assert logs["acceleration_factor"] == [4.0] and len(traces) == first
        fitted(model, LearningRateAcceleration(4.0, warmup_steps=3), epochs=1)
        assert len(traces) == 2 * first


def test_a_step_that_does_not_call_train_step_is_refused():
    class Own(keras.Sequential):
        def make_train_function(self, force=False):
            self.train_function = self.train_function or (lambda iterator: {"loss": float(len(next(iterator)))})

    model = Own([keras.Input((6,)), keras.layers.Dense(2)], name="mine")
    model.compile("sgd", "mse")
    with pytest.raises(RuntimeError, match=r"must call `train_step`.*'mine'.*make_train_function"):
        fitted(model, LearningRateAcceleration())


class Interruption(keras.callbacks.Callback):
    def __init__(self, epoch, batch, where):
        super().__init__()
        self.at, self.where = (epoch, batch), where

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at and self.where == "before the step":
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at and self.where == "after the step":
            raise KeyboardInterrupt


def interrupted(optimizer, folder, callbacks, save_freq="epoch"):
    """Two processes: one that is interrupted in epoch 2, and one that goes on to epoch 4."""
    with pytest.raises(KeyboardInterrupt):
        backup = BackupAndRestore(folder, save_freq=save_freq)
        fitted(built(optimizer()), *callbacks(backup), Interruption(2, 1, "after the step"), epochs=4)
    assert folder.exists()
    model = built(optimizer())
    fitted(model, *callbacks(BackupAndRestore(folder, save_freq=save_freq)), epochs=4)
    return model


@pytest.mark.parametrize("rate", first_of([decaying(), RATE]), ids=["schedule", "number"])
def test_resumes_as_if_undisturbed(rate, tmp_path):
    def acceleration():
        return LearningRateAcceleration(FACTOR, warmup_steps=6)

    undisturbed = built(Adam(rate))
    fitted(undisturbed, acceleration(), epochs=4)
    for name, callbacks in (
        ("before", lambda backup: [backup, acceleration()]),
        ("after", lambda backup: [acceleration(), backup]),
    ):
        assert_equal_state(interrupted(lambda: Adam(rate), tmp_path / name, callbacks), undisturbed)


def test_resumes_within_an_epoch_as_without_it(tmp_path):
    """Keras goes back to the beginning of the epoch, with the weights of the last backup."""
    expected = interrupted(lambda: Adam(RATE * FACTOR), tmp_path / "expected", lambda backup: [backup], save_freq=2)
    model = interrupted(
        lambda: Adam(RATE), tmp_path / "model", lambda backup: [LearningRateAcceleration(FACTOR), backup], save_freq=2
    )
    assert_equal_state(model, expected)


@pytest.mark.parametrize(
    ("rate", "where"),
    [(RATE, "before the step"), (RATE, "in the step"), (decaying(), "in the step"), (decaying(), "after the step")],
)
def test_training_that_raises_leaves_the_rate_as_given(rate, where):
    model, plain = built(SGD(rate)), built(SGD(rate))
    acceleration = LearningRateAcceleration(FACTOR)
    if where == "in the step":
        x = np.where(np.arange(32)[:, None] == 8, np.nan, X)
        data = tf.data.Dataset.from_tensor_slices((x, Y)).map(lambda x, y: (tf.debugging.check_numerics(x, "x"), y))
        with pytest.raises(tf.errors.InvalidArgumentError):
            model.fit(data.batch(8), callbacks=[acceleration], shuffle=False, verbose=0)
    else:
        with pytest.raises(KeyboardInterrupt):
            fitted(model, Interruption(0, 1, where), acceleration)
    assert float(model.optimizer.learning_rate) == RATE
    plain.set_weights(model.get_weights())
    plain.optimizer.iterations.assign(model.optimizer.iterations)
    assert fitted(model)["loss"] == fitted(plain)["loss"]  # The plain step again.


class Raising(keras.callbacks.Callback):
    """Raises in one method, the second time that it is called."""

    def __init__(self, method):
        super().__init__()
        self.calls = 0
        setattr(self, method, self.interrupt)

    def interrupt(self, *args, **kwargs):
        self.calls += 1
        if self.calls == 2 or self.at_once:
            raise KeyboardInterrupt

    at_once = False


POINTS = [
    f"on_{what}_{when}" for what in ("train", "epoch", "train_batch", "test", "test_batch") for when in ("begin", "end")
]


@pytest.mark.parametrize(
    ("rate", "order", "points"),
    [
        pytest.param(RATE, 1, ["on_train_batch_begin"], id="number, before the step"),
        pytest.param(decaying(), 1, ["on_train_batch_begin"], id="schedule, before the step"),
        pytest.param(RATE, 1, POINTS, id="number, anywhere", marks=pytest.mark.slow),
        pytest.param(decaying(), -1, POINTS, id="schedule, anywhere", marks=pytest.mark.slow),
    ],
)
def test_wherever_fit_is_left_the_next_steps_are_plain(rate, order, points):
    """The next `fit` and `train_on_batch`, whichever comes; and with another acceleration the factor is there once."""
    model = built(SGD(rate))
    plain = built(SGD(rate))
    x, y = X[:8], Y[:8]
    for point in points:
        for following in ("fit", "train_on_batch", "accelerated"):
            raising = Raising(point)
            raising.at_once = "train_begin" in point or "train_end" in point
            with pytest.raises(KeyboardInterrupt):
                fitted(model, *[LearningRateAcceleration(100.0), raising][::order], validation_data=(X, Y))
            assert model.train_function is not None
            plain.set_weights(model.get_weights())
            plain.optimizer.iterations.assign(model.optimizer.iterations)
            for each in (model, plain):
                each.reset_metrics()
                if following == "fit":
                    each.fit(x, y, verbose=0)
                elif following == "train_on_batch":
                    each.train_on_batch(x, y)
                else:
                    each.fit(x, y, verbose=0, callbacks=[LearningRateAcceleration(2.0)])
            assert_equal_state(model, plain)
            assert "make_train_function" not in vars(model) and "train_step" not in vars(model)


def test_a_fit_within_a_fit():
    """Between the announcement of a step and the step."""

    class Within(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.train_on_batch(X[:8], Y[:8])

    model, expected = built(SGD(RATE)), built(SGD(RATE))
    fitted(model, LearningRateAcceleration(FACTOR), Within(), epochs=1)
    fitted(expected, Within(), LearningRateAcceleration(FACTOR), epochs=1)
    assert int(model.optimizer.iterations) == int(expected.optimizer.iterations) == 8
    assert "make_train_function" not in vars(model)


# Divergence


def diverging(rate=RATE, **how):
    """A network without normalization, which does not stand the raised rates."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(64, activation="relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(2)])
    model.compile(SGD(rate, momentum=0.9), "mse", **how)
    return model


def test_divergence_without_backoff():
    assert not np.isfinite(fitted(diverging(0.02), LearningRateAcceleration(128.0), epochs=4)["loss"][-1])


@pytest.mark.parametrize(
    ("rate", "how"),
    [
        pytest.param(0.02, "xla, steps_per_execution", marks=pytest.mark.slow),
        (schedules.ExponentialDecay(0.02, 1000, 0.5), "graph"),
    ],
)
def test_backoff(rate, how):
    model = diverging(rate, **HOW[how])
    untrained = model.evaluate(X, Y, verbose=0)
    backoff = LearningRateAcceleration(128.0, on_divergence="backoff", snapshot_steps=8, backoff=4.0, explosion=1.0)
    history = fitted(model, TerminateOnNaN(), backoff, epochs=12)
    assert len(history["loss"]) == 12 and np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < untrained
    assert sum(history["divergences"]) == len(backoff.divergences) > 0
    assert backoff.factor == 128.0 / 4.0 ** len(backoff.divergences) == history["acceleration_factor"][-1]
    assert [event.factor for event in backoff.divergences][-1] == backoff.factor
    assert all(np.isfinite(v.numpy()).all() for v in model.variables + model.optimizer.variables)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.02, rel=0.1)


def test_backoff_on_two_replicas(strategy):
    with strategy.scope():
        model = diverging(0.02)
    backoff = LearningRateAcceleration(128.0, on_divergence="backoff", snapshot_steps=2, backoff=4.0)
    history = fitted(model, backoff, epochs=4)
    assert len(backoff.divergences) > 0 and np.isfinite(history["loss"]).all()


class Poison(keras.layers.Layer):
    """Multiplies the training loss of one batch, counted from 0, by a number."""

    def __init__(self, batch, factor):
        super().__init__()
        self.batch, self.factor = batch, factor

    def build(self, shape):
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if not training:
            return x
        self.seen.assign_add(1.0)
        return x * tf.where(self.seen == self.batch + 1.0, self.factor, 1.0)


class Steps(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logs, self.weights = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(dict(logs))
        self.weights.append([v.numpy() for v in self.model.variables + self.model.optimizer.variables])


@pytest.mark.parametrize("factor", [float("nan"), 100.0])
def test_backoff_restores_the_older_snapshot(factor):
    keras.utils.set_random_seed(1)
    poison = Poison(9, factor)
    dropout = keras.layers.Dropout(0.5)
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), dropout, keras.layers.Dense(2), poison]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(Adam(RATE), "mse")
    steps = Steps()
    backoff = LearningRateAcceleration(4.0, on_divergence="backoff", snapshot_steps=3, explosion=5.0)
    # Snapshots before any step and after 3, 6 and 9 steps; the tenth diverges.
    fitted(model, ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9), backoff, steps, epochs=4)
    first, second = backoff.divergences[0], backoff.divergences[1:]
    assert (first.epoch, first.step, first.factor) == (2, 1, 2.0)
    for variable, before, after in zip(
        model.variables + model.optimizer.variables, steps.weights[5], steps.weights[9], strict=True
    ):
        if variable is model.optimizer.learning_rate:
            assert after == RATE / 2  # What ReduceLROnPlateau has done stays done.
        else:
            np.testing.assert_array_equal(before, after, err_msg=variable.path)
    assert steps.logs[9]["divergences"] == 1 and "divergences" not in steps.logs[8]
    assert steps.logs[9]["loss"] == steps.logs[8]["loss"]
    # The layer counts on from the snapshot, so the batch comes again; and was it not as bad, the run would have ended.
    assert [(event.epoch, event.step) for event in second] == [(3, 1)]


def test_a_divergence_in_the_first_step_of_a_second_fit_does_not_report_the_first_fit():
    model, steps = built(SGD(RATE)), Steps()
    backoff = LearningRateAcceleration(on_divergence="backoff")
    fitted(model, backoff, steps, epochs=1)
    model.fit(np.nan * X, Y, callbacks=[backoff, steps], batch_size=32, verbose=0)
    assert np.isnan(steps.logs[-1]["loss"]) and steps.logs[-1]["divergences"] == 1
    assert np.isfinite(steps.logs[-2]["loss"]) and all(np.isfinite(v).all() for v in steps.weights[-1])


def test_infinite_weights_are_no_healthy_state():
    """The loss may not show what is wrong with the weights."""

    class Overflow(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2 and not done:
                done.append(self.model.layers[-1].unused.assign(np.inf))

    class Unused(keras.layers.Layer):
        def build(self, shape):
            self.unused = self.add_weight(shape=(), trainable=False)
            self.mask = self.add_weight(shape=(), trainable=False, initializer=lambda *_, **__: -np.inf)

        def call(self, x):
            return x

    done = []
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2), Unused()])
    model.compile("sgd", "mse")
    backoff = LearningRateAcceleration(on_divergence="backoff", snapshot_steps=1)
    fitted(model, Overflow(), backoff, epochs=1)
    assert len(backoff.divergences) == 1
    assert np.isfinite(model.layers[-1].unused.numpy()) and np.isneginf(model.layers[-1].mask.numpy())


def test_backoff_ends_with_an_error_and_a_healthy_model():
    model = diverging(0.02)
    backoff = LearningRateAcceleration(2.0**20, on_divergence="backoff", max_backoffs=3, snapshot_steps=1)
    with pytest.raises(FloatingPointError, match=r"factor 131072.*3 times before, and max_backoffs=3.*smaller"):
        fitted(model, backoff, epochs=10)
    assert len(backoff.divergences) == 3 and float(model.optimizer.learning_rate) == np.float32(0.02)
    assert all(np.isfinite(v.numpy()).all() for v in model.variables + model.optimizer.variables)
    backoff.factor = 1.0
    assert np.isfinite(fitted(model, backoff, epochs=2)["loss"]).all()


def test_the_end_of_backoff_says_which_state_the_model_has():
    """Before there is a healthy one it said that the model had it."""
    model = built(SGD(RATE))
    before = model.get_weights()
    early = LearningRateAcceleration(on_divergence="backoff", max_backoffs=0)
    with pytest.raises(FloatingPointError, match=r"state from before the first step.*NaN.*Otherwise begin") as raised:
        model.fit(np.nan * X, Y, callbacks=[early], batch_size=8, verbose=0)
    assert "last healthy" not in str(raised.value)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)

    x = np.where(np.arange(32)[:, None] < 24, X, np.nan)
    for steps, state in ((1, "last healthy state"), (2, "from before the first step")):  # 24 rows: three steps
        late = LearningRateAcceleration(on_divergence="backoff", max_backoffs=0, snapshot_steps=steps)
        with pytest.raises(FloatingPointError, match=state):
            model.fit(x, Y, callbacks=[late], batch_size=8, shuffle=False, verbose=0)


def test_backoff_needs_a_loss():
    class Silent(keras.Sequential):
        def train_step(self, data):
            return {"error": super().train_step(data)["loss"]}

    model = Silent([keras.Input((6,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"must report its loss.*\['error'\].*train_step"):
        fitted(model, LearningRateAcceleration(on_divergence="backoff"))


def test_backoff_needs_a_model_that_is_built():
    model = keras.Sequential([keras.layers.Dense(2)], name="raw")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"must be built before training.*Received: 'raw'.*keras.Input"):
        fitted(model, LearningRateAcceleration(on_divergence="backoff"))
    fitted(model, LearningRateAcceleration(), epochs=1)  # needs none


# Arguments, serialization


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 0}, r"`factor` must be a finite number above 0. Received: factor=0"),
        ({"factor": "fast"}, r"`factor`.*Received: factor='fast'"),
        ({"decay_speedup": -1}, r"`decay_speedup`.*Received: decay_speedup=-1"),
        ({"decay_speedup": float("inf")}, r"`decay_speedup`.*Received: decay_speedup=inf"),
        ({"warmup_steps": -1}, r"`warmup_steps` must be an integer not below 0. Received: warmup_steps=-1"),
        ({"warmup_steps": 1.5}, r"`warmup_steps`.*1.5"),
        ({"on_divergence": "stop"}, r"`on_divergence` must be one of None, 'backoff'. Received: on_divergence='stop'"),
        ({"backoff": 1.0}, r"`backoff` must be above 1.*Received: backoff=1.0"),
        ({"explosion": 0}, r"`explosion`.*Received: explosion=0"),
        ({"snapshot_steps": 0}, r"`snapshot_steps` must be an integer not below 1. Received: snapshot_steps=0"),
        ({"max_backoffs": True}, r"`max_backoffs`.*Received: max_backoffs=True"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LearningRateAcceleration(**arguments)


def test_rates_that_cannot_be_read():
    class Unregistered(schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

    def constant():
        return 0.1

    for rate in (Unregistered(), constant):
        model = built(SGD(rate))
        with pytest.raises(TypeError, match=r"must be a number or a LearningRateSchedule.*register_keras_serializable"):
            fitted(model, LearningRateAcceleration())
        assert float(model.optimizer.learning_rate) == np.float32(0.1)


def test_accelerated_arguments():
    with pytest.raises(TypeError, match=r"`schedule` must be.*Received: schedule=0.1. A number has no decay"):
        Accelerated(0.1)
    for name in ("factor", "decay_speedup"):
        with pytest.raises(ValueError, match=rf"`{name}`.*Received: {name}=-1"):
            Accelerated(decaying(), **{name: -1})
    with pytest.raises(ValueError, match=r"`warmup_steps`.*Received: warmup_steps=-1"):
        Accelerated(decaying(), warmup_steps=-1)
    with pytest.raises(ValueError, match=r"`decay_speedup`"):
        accelerated_epochs(lambda epoch: 0.1, 0)


def test_accelerated_schedules_are_saved_with_the_model(tmp_path):
    schedule = Accelerated(decaying(), 3.0, 6.0, 10)
    steps = [0, 4, 5, 9, 100, 2_000_000_000]
    expected = [min(1 + 2 * s / 10, 3) * float(decaying()(s * 6.0)) for s in steps]
    np.testing.assert_allclose([float(schedule(s)) for s in steps], expected, rtol=1e-6)
    model = built(Adam(schedule))
    fitted(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    config = loaded.optimizer.get_config()["learning_rate"]
    assert config["registered_name"] == "kerasbn>Accelerated"
    assert config == keras.optimizers.schedules.serialize(schedule)
    assert fitted(loaded)["loss"] == fitted(model)["loss"]


def test_an_accelerated_schedule_is_not_accelerated_again():
    model, expected = built(SGD(Accelerated(decaying(), 2.0, 3.0))), built(SGD(Accelerated(decaying(), FACTOR, 6.0)))
    assert fitted(model, LearningRateAcceleration(FACTOR, 6.0))["loss"] == fitted(expected)["loss"]
    assert float(model.optimizer.learning_rate) == float(Accelerated(decaying(), 2.0, 3.0)(12))


def test_weights_in_bfloat16_that_are_not_finite_are_found():
    variable = keras.Variable([1.0, float("nan"), float("inf")], dtype="bfloat16")
    numbers = keras.Variable([1, 2], dtype="int32")
    assert Snapshot([variable, numbers], tf.distribute.get_strategy()).non_finite() == 2


# Schedules that end


def rate_by_epoch(schedule, epochs, batches, **how):
    """Of epochs of so many steps."""
    model = built(SGD(schedule))
    x, y = np.resize(X, (batches, 6)), np.resize(Y, (batches, 2))
    acceleration = LearningRateAcceleration(5.0, **how)
    logs = model.fit(x, y, batch_size=1, epochs=epochs, callbacks=[acceleration], verbose=0)
    return logs.history["accelerated_learning_rate"]


def test_a_cosine_decay_keeps_its_length():
    """6 times as fast, it was 0 from a sixth of the training on."""
    given = schedules.CosineDecay(0.01, 60)
    expected = [5 * float(given(10 * epoch)) for epoch in range(1, 7)]
    np.testing.assert_allclose(rate_by_epoch(given, 6, 10), expected, rtol=1e-5, atol=1e-9)


def test_a_cosine_decay_has_the_length_that_is_given():
    given = schedules.CosineDecay(0.0, 50, warmup_target=0.01, warmup_steps=10)
    expected = [5 * float(given(step)) for step in (5, 10, 10 + 5 * 50 / 20, 10 + 10 * 50 / 20)]
    np.testing.assert_allclose(rate_by_epoch(given, 4, 5, steps=30), expected, rtol=1e-5)


@pytest.mark.parametrize(("epochs", "steps", "step"), [(8, 10, 60), (1, 80, 80)])
def test_training_on_at_nearly_0_is_said_once(epochs, steps, step):
    with pytest.warns(UserWarning, match=rf"nearly 0 from step 60 on, where CosineDecay ends.*step {step} ") as warned:
        rate_by_epoch(schedules.CosineDecay(0.01, 60), epochs, steps)
    assert len(warned) == 1


def test_a_training_as_long_as_its_schedule_is_not_warned_of():
    """Warnings are errors here. Nor where one step more follows from rounding."""
    rate_by_epoch(schedules.CosineDecay(0.01, 60), 6, 10)
    rate_by_epoch(schedules.CosineDecay(0.01, 60, alpha=0.1), 7, 10)
    rate_by_epoch(schedules.CosineDecay(0.01, 119), 1, 120)
