"""The sweep finds what is known, and leaves no trace: every variable and random state is compared bit by bit."""

import random
import sys

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.optimizers import SGD, Adam, schedules
from sklearn.datasets import load_digits

from kerasbn import BatchNorm, find_learning_rate
from kerasbn.learning_rate_curve import LearningRateCurve, smooth

matplotlib.use("Agg")
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 6)).astype("float32")
Y = (X @ RANDOM.normal(size=(6, 2))).astype("float32")
SWEEP = {"rates": 5, "batch_size": 8, "highest": 1e-2}
HOW = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "xla, steps_per_execution": {"steps_per_execution": 3, "jit_compile": True},
}
OPTIMIZERS = {
    "number": lambda: SGD(0.01, momentum=0.9),
    "schedule": lambda: Adam(schedules.ExponentialDecay(0.01, 5, 0.5)),
    "accumulating": lambda: Adam(0.01, gradient_accumulation_steps=2),
    "averaging": lambda: SGD(0.01, use_ema=True),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(SGD(schedules.ExponentialDecay(0.01, 5, 0.5))),
}


class GlobalNoise(layers.Layer):
    """Draws from Keras's global random state."""

    def call(self, x, training=False):
        return x + 0.1 * keras.random.normal(tf.shape(x)) if training else x


def built(optimizer="number", noise=GlobalNoise, **how):
    keras.utils.set_random_seed(1)
    stack = [layers.Dense(8), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.3), noise()]
    model = keras.Sequential([keras.Input((6,)), *stack, layers.Dense(2)])
    model.compile(OPTIMIZERS[optimizer](), "mse", metrics=["mae"], **how)
    return model


def state(model):
    """All that there is, each replica's copy apart."""
    variables = model.variables + model.optimizer.variables + model.metrics_variables
    copies = [c for v in variables for c in model.distribute_strategy.experimental_local_results(v.value)]
    rate = model.optimizer.learning_rate
    return [c.numpy().tobytes() for c in copies] + [
        tf.identity(rate).numpy().tobytes(),
        model.optimizer.iterations.numpy(),
    ]


def global_state():
    return random.getstate(), [np.asarray(part).tobytes() for part in np.random.get_state()]


def trained(model):
    history = model.fit(X, Y, batch_size=8, epochs=2, verbose=0).history
    return history["loss"], history["mae"], state(model)


@pytest.mark.parametrize(
    ("optimizer", "how"),
    [
        *(pytest.param("number", how, marks=pytest.mark.slow) for how in HOW),
        *((name, "graph") for name in list(OPTIMIZERS)[1:]),
    ],
)
def test_leaves_no_trace(optimizer, how):
    """Before a training, within one, and for the training that follows, dropout, noise and shuffling included."""
    model = built(optimizer, **HOW[how])
    find_learning_rate(model, (X, Y), **SWEEP)
    after = trained(model)
    assert after == trained(built(optimizer, **HOW[how]))
    before, before_global, history = state(model), global_state(), model.history
    curve = find_learning_rate(model, (X, Y), **SWEEP)
    assert state(model) == before and global_state() == before_global and model.history is history
    assert len(curve.losses) == 5 and len(set(curve.losses)) == 5


def test_leaves_no_trace_on_two_replicas(strategy):
    for optimizer in ("number", "schedule"):
        with strategy.scope():
            model = built(optimizer, noise=layers.ReLU)  # Replicas cannot make Keras's global generator.
        model.fit(X[:16], Y[:16], batch_size=8, verbose=0)
        before = state(model)
        curve = find_learning_rate(model, (X, Y), **SWEEP)
        assert state(model) == before and len(curve.losses) == 5
        model.fit(X[:16], Y[:16], batch_size=8, verbose=0)


class Raising(keras.utils.PyDataset):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 3:
            raise self.error
        np.random.random(), random.random()
        return X[:8], Y[:8]


@pytest.mark.parametrize("optimizer", ["number", "schedule"])
def test_leaves_no_trace_when_it_raises(optimizer, monkeypatch):
    model = built(optimizer)
    trained(model)
    before, before_global, step = state(model), global_state(), model.train_function
    with pytest.raises((RuntimeError, tf.errors.OpError), match="no more"):
        find_learning_rate(model, Raising(RuntimeError("no more")), **SWEEP)
    assert state(model) == before and global_state() == before_global and model.train_function is step
    interrupted = []

    def interrupt(self):
        interrupted.append(1)
        if len(interrupted) == 4:
            raise KeyboardInterrupt
        return reset(self)

    reset = type(model).reset_metrics
    monkeypatch.setattr(type(model), "reset_metrics", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find_learning_rate(model, (X, Y), **SWEEP)
    assert state(model) == before and global_state() == before_global and model.train_function is step


def test_model_that_is_not_built():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([layers.Dense(8), BatchNorm(), layers.Dense(2)])
    model.compile(Adam(), "mse")
    assert len(find_learning_rate(model, (X, Y), **SWEEP).losses) == 5
    assert model.built and not any(v.numpy().any() for v in model.optimizer.variables if v.name != "learning_rate")
    np.testing.assert_array_equal(model.layers[1].moving_mean, np.zeros(8))


# What it finds


def quadratic(rate=0.1, **how):
    """Loss (w - 1)^2 from w = 0: stable below a rate of 1, and one step of 1/2 is Newton's."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(SGD(rate), "mse", **how)
    return model


ONE = np.ones((32, 1), "float32")


def expected_losses(rates, batches=1):
    w, losses = 0.0, []
    for rate in rates:
        for _ in range(batches):
            losses.append((w - 1) ** 2)
            w += rate * 2 * (1 - w)
    return np.array([*losses, (w - 1) ** 2])


@pytest.mark.parametrize("rate", [0.1, schedules.ExponentialDecay(0.1, 1, 0.5)], ids=["number", "schedule"])
def test_each_loss_follows_a_step_at_its_rate(rate):
    curve = find_learning_rate(quadratic(rate), (ONE, ONE), lowest=0.01, highest=0.3, rates=6, batch_size=4)
    np.testing.assert_allclose(curve.rates, np.geomspace(0.01, 0.3, 6))
    np.testing.assert_allclose(curve.losses, expected_losses(curve.rates)[1:], rtol=1e-4)
    assert curve.diverged is None and curve.name.startswith("sequential")


def test_steps_per_execution_and_accumulation_hold_a_rate():
    settings = {"lowest": 0.01, "highest": 0.3, "rates": 4, "batch_size": 4}
    curve = find_learning_rate(quadratic(steps_per_execution=2), (ONE, ONE), **settings)
    pairs = expected_losses(np.geomspace(0.01, 0.3, 4).repeat(2))
    np.testing.assert_allclose(curve.losses[:-1], pairs[2:8].reshape(3, 2).mean(1), rtol=1e-4)
    model = quadratic()
    model.compile(SGD(0.1, gradient_accumulation_steps=3), "mse")
    curve = find_learning_rate(model, (ONE, ONE), **settings)
    np.testing.assert_allclose(curve.losses, expected_losses(curve.rates)[1:], rtol=1e-4)


def test_divergence_ends_the_sweep():
    settings = {"lowest": 0.1, "highest": 1e4, "rates": 50, "batch_size": 4}
    curve = find_learning_rate(quadratic(), (ONE, 3 * ONE), **settings)
    losses = 9 * expected_losses(np.geomspace(0.1, 1e4, 50))
    end = int(np.argmax(losses > 9 * 4))
    assert curve.diverged == pytest.approx(np.geomspace(0.1, 1e4, 50)[end - 1]) and len(curve.losses) == end - 1
    explosive = find_learning_rate(quadratic(), (ONE, 3 * ONE), **settings, explosion=1e30)
    assert len(curve.losses) < len(explosive.losses) < 50 and np.isfinite(explosive.losses).all()
    with pytest.raises(ValueError, match=r"at least 3.*Received: 0.*diverged at 1e\+06. Begin with a smaller `lowest`"):
        find_learning_rate(quadratic(), (ONE, 3 * ONE), lowest=1e6, highest=1e9, batch_size=4)
    with pytest.raises(ValueError, match="`data` must give a loss that is finite before the first step"):
        find_learning_rate(quadratic(), (ONE, np.nan * ONE))


@pytest.mark.parametrize("kind", ["dataset", "PyDataset", "generator", "weights", "dictionary"])
def test_data(kind):
    def batches():
        while True:
            yield X[:8], Y[:8]

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return X[:8], Y[:8]

    model = built()
    if kind == "dictionary":
        inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((4,), name="b")}
        model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([inputs["a"], inputs["b"]])))
        model.compile("sgd", "mse")
    data = {
        "dataset": tf.data.Dataset.from_tensor_slices((X, Y)).batch(32),
        "PyDataset": Batches(),
        "generator": batches(),
        "weights": (X, Y, np.ones(64)),
        "dictionary": ({"a": X[:, :2], "b": X[:, 2:]}, Y),
    }[kind]
    assert len(find_learning_rate(model, data, **SWEEP).losses) == 5


def test_batches_of_arrays_depend_on_the_seed_only():
    first, same, other = (find_learning_rate(built(), (X, Y), **SWEEP, seed=seed).losses for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).all()
    few = find_learning_rate(built(), (X[:5], Y[:5]), **SWEEP)  # fewer than a batch
    assert len(few.losses) == 5


def test_compare_shows_that_normalization_stands_higher_rates():
    """Bjorck et al. (2018), in small."""

    digits = load_digits()
    data = (digits.data / 16, digits.target)

    def deep(normalized):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((64,))], name="normalized" if normalized else "plain")
        for _ in range(6):
            model.add(layers.Dense(50))
            if normalized:
                model.add(layers.BatchNormalization())
            model.add(layers.ReLU())
        model.add(layers.Dense(10, activation="softmax"))
        model.compile(SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
        model.optimizer.build(model.trainable_variables)
        return model

    plain, normalized = deep(False), deep(True)
    before = [state(plain), state(normalized)]
    curve = find_learning_rate(normalized, data, compare=[plain], lowest=1e-4, rates=50)
    assert [state(plain), state(normalized)] == before
    assert (curve.name, *(other.name for other in curve.compared)) == ("normalized", "plain")
    assert curve.compared[0].diverged < (curve.diverged or 10.0)
    assert curve.smoothed.min() < 1.0 < curve.compared[0].smoothed.min()
    ax = curve.plot(labels=["with", "without"])
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend[0] == "with" and legend[4] == "without" and legend[3].startswith("largest stable: ")
    assert ax.get_xscale() == "log" and any(text.get_text() == "diverged" for text in ax.texts)
    assert curve.plot(ax) is ax
    with pytest.raises(ValueError, match=r"`labels` must have a label for each of 2 curves. Received: \['one'\]"):
        curve.plot(labels=["one"])
    matplotlib.pyplot.close("all")


# The curve


def made(losses, **fields):
    losses = np.array(losses)
    return LearningRateCurve("made", np.logspace(-3, 0, len(losses)), losses, losses, **fields)


def test_what_is_read_from_a_curve():
    curve = made([3.0, 3.0, 2.9, 2.0, 1.5, 1.0, 1.1, 1.3, 2.0, 1.1])
    rates = curve.rates
    assert curve.steepest == rates[3]
    assert curve.valley == pytest.approx(rates[4])  # from rates[3] to rates[5]
    assert curve.largest_stable == rates[6]  # 1.2 is a tenth of the way back
    assert made([3.0, 2.0, 1.0]).largest_stable == 1.0
    flat = made([1.0, 1.1, 1.2, 5.0])
    assert flat.largest_stable == flat.steepest == flat.valley == flat.rates[0]


def test_smoothing_has_no_delay_and_keeps_lines():
    values = np.zeros(41)
    values[20] = 1.0
    smoothed = smooth(values, 2.0)
    assert np.argmax(smoothed) == 20 and smoothed.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(smoothed, smoothed[::-1])
    np.testing.assert_allclose(smooth(np.ones(5), 3.0), 1.0)
    np.testing.assert_array_equal(smooth(values, 0.0), values)


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        made([3.0, 2.0, 1.0]).plot()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lowest": 0}, r"`lowest` must be a finite number above 0. Received: lowest=0"),
        ({"lowest": 1.0, "highest": 0.1}, r"`highest` must be above `lowest`. Received: highest=0.1, lowest=1.0"),
        ({"rates": 2}, r"`rates` must be an integer not below 3. Received: rates=2"),
        ({"smoothing": -1}, r"`smoothing`.*Received: smoothing=-1"),
        ({"explosion": 0}, r"`explosion`.*Received: explosion=0"),
        ({"batch_size": 0}, r"`batch_size`.*Received: batch_size=0"),
        ({"compare": [keras.Sequential(name="raw")]}, r"`compare` must be compiled. Received: 'raw'"),
        ({"model": keras.Sequential(name="raw")}, r"`model` must be compiled. Received: 'raw'"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_learning_rate(**{"model": quadratic(), "data": (ONE, ONE)} | arguments)


def test_a_generator_has_no_batches_for_a_second_model():
    """The models that are compared were trained on what was left of it."""
    generator = ((ONE, ONE) for _ in range(99))
    with pytest.raises(TypeError, match=r"`data` must give its batches again for every training.*a generator.*Dataset"):
        find_learning_rate(quadratic(), generator, compare=[quadratic()], **SWEEP)
    assert len(find_learning_rate(quadratic(), generator, **SWEEP).losses) == 5
