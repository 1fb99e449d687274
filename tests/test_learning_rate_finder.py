"""The sweep finds what is known, and leaves no trace: every variable and random state is compared bit by bit."""

import dataclasses
import random
import re
import sys

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.optimizers import SGD, Adam, schedules
from sklearn.datasets import load_digits

from kerasbn import BatchNorm, find_learning_rate, recalibrate
from kerasbn.callbacks import LearningRateAcceleration, PopulationStatistics
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


@pytest.mark.parametrize("how", [{}, {"steps_per_execution": 3}], ids=["one step", "steps_per_execution"])
def test_a_generator_that_ends_ends_the_sweep(how):
    """It was gone on with from the two batches that Keras had read before training."""

    def batches(number):
        for i in range(number):
            yield ONE[:4], ONE[:4] * (1 + i % 3 / 10)

    settings = {"lowest": 0.001, "highest": 0.03, "rates": 12}
    all_of_them = find_learning_rate(quadratic(**how), batches(39), **settings)
    assert not all_of_them.ran_out and len(all_of_them.losses) == 12
    few = find_learning_rate(quadratic(**how), batches(21 if how else 7), **settings)
    assert few.ran_out and len(few.losses) == 6 and few.diverged is None
    np.testing.assert_array_equal(few.losses, all_of_them.losses[:6])
    assert "The data ended there, before all rates were tried" in str(few)
    with pytest.raises(ValueError, match=r"at least 3.*Received: 2 for model.*as the data ended.*give more data"):
        find_learning_rate(quadratic(), batches(3), **settings)


def test_a_generator_for_a_model_that_is_not_built_loses_no_batch():
    def run(build_first):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([layers.Dense(2)])
        model.compile("sgd", "mse")
        if build_first:
            model.build((None, 6))
        return find_learning_rate(
            model, ((X[i : i + 8], Y[i : i + 8]) for i in range(0, 56, 8)), **SWEEP | {"rates": 9}
        )

    once, again = run(False), run(True)
    assert once.ran_out and len(once.losses) == 6
    np.testing.assert_array_equal(once.rates, again.rates)
    assert np.isfinite(once.losses).all()


def test_a_dataset_that_gives_its_batches_once_ends_the_sweep():
    generator = ((X[:8], Y[:8]) for _ in range(7))
    signature = tuple(tf.TensorSpec((8, n), tf.float32) for n in (6, 2))
    data = tf.data.Dataset.from_generator(lambda: generator, output_signature=signature)
    with pytest.warns(UserWarning, match="ran out of data"):
        curve = find_learning_rate(built(), data, **SWEEP | {"rates": 12})
    assert curve.ran_out and len(curve.losses) == 6


class Autoencoder(keras.Model):
    """Made of parts that its `train_step` calls, as in Keras's examples."""

    def __init__(self, shape=(6,)):
        super().__init__()
        inputs = [keras.Input(shape)] if shape else []
        self.encoder = keras.Sequential([*inputs, layers.Dense(3), BatchNorm()], name="encoder")
        self.decoder = keras.Sequential([keras.Input((3,)), layers.Dense(6)], name="decoder")

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.decoder(self.encoder(x, training=True)) - x) ** 2)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True)
        )
        return {"loss": loss}


def test_a_model_of_parts():
    """With a `train_step` and no `call` it was refused by a bare NotImplementedError, or told to be called."""
    model = Autoencoder()
    model.compile(SGD(0.01))
    before = model.get_weights()
    curve = find_learning_rate(model, (X, Y), **SWEEP)
    assert len(curve.losses) == 5 and len(set(curve.losses)) == 5
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    backoff = LearningRateAcceleration(2.0, on_divergence="backoff")
    logs = model.fit(X, Y, epochs=1, callbacks=[backoff], verbose=0).history
    assert logs["acceleration_factor"] == [2.0] and np.isfinite(logs["loss"]).all()

    with pytest.raises(ValueError, match=r"can be called.*Autoencoder, which has no `call`.*'encoder' or 'decoder'"):
        model.fit(X, Y, callbacks=[PopulationStatistics(X)], verbose=0)
    recalibrate(model.encoder, X)

    unbuilt = Autoencoder(shape=None)
    unbuilt.compile(SGD(0.01))
    for use in (
        lambda: find_learning_rate(unbuilt, (X, Y), **SWEEP),
        lambda: unbuilt.fit(X, Y, callbacks=[LearningRateAcceleration(on_divergence="backoff")], verbose=0),
    ):
        with pytest.raises(
            ValueError, match=r"must be built before training.*Build its parts: give each a keras.Input"
        ):
            use()


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


def test_text_is_a_short_table_with_one_suggested_rate_and_the_reason():
    """It was three arrays."""
    curve = made([3.0, 3.0, 2.9, 2.0, 1.5, 1.0, 1.1, 1.3, 2.0, 2.5], diverged=2.0)
    assert curve.suggested == curve.valley
    other = dataclasses.replace(curve, name="other", diverged=None, ran_out=True)
    text = str(dataclasses.replace(curve, compared=(other,)))
    assert text.count("Suggested: 0.022, the valley: the loss falls from 3 to 1") == 2
    assert re.search(r"^largest stable +0\.1 +1\.1$", text, re.M)
    assert "Above 0.1 it rises again." in " ".join(text.split())
    assert "made: 10 learning rates from 0.001 to 1; the loss diverged at 2." in text
    assert "other: 10 learning rates from 0.001 to 1. The data ended there" in text
    assert len(str(curve).splitlines()) < 10 and max(map(len, text.splitlines())) <= 120
    assert "higher rates may do as well" in str(made([3.0, 2.5, 2.0, 1.5, 1.0]))
    assert repr(curve) == "<LearningRateCurve 'made': 10 learning rates, suggested: 0.022>"


@pytest.mark.parametrize("width", [0.0, 0.5, 1.0, 3.0, 8.0])
def test_no_rate_is_suggested_on_a_flat_noisy_curve(width):
    rates = np.logspace(-6, 1, 100)
    for seed in range(30):
        losses = 2.3 + 0.1 * np.random.default_rng(seed).normal(size=100)
        flat = LearningRateCurve("flat", rates, losses, smooth(losses, width))
        assert flat.suggested is None and "No rate is suggested" in str(flat) and "suggested: none" in repr(flat)
        falling = losses - np.clip(np.linspace(-1, 3, 100), 0, 1)
        assert LearningRateCurve("falling", rates, falling, smooth(falling, width)).suggested is not None
    legend = [text.get_text() for text in flat.plot().get_legend().get_texts()]
    assert legend == ["flat"]
    rising = made([1.0, 1.0, 1.1, 1.2, 5.0])
    assert rising.suggested is None
    made([1.0, 1.0, 1.0]).plot()  # nothing to scale by
    matplotlib.pyplot.close("all")


def test_labels_of_the_plot_do_not_overprint():
    """Networks that diverge at about the same rate."""
    losses = [3.0, 3.0, 2.9, 2.0, 1.5, 1.0, 1.1]
    others = tuple(made(losses, diverged=rate) for rate in (1.5, 1.7, 1.6))
    ax = made(losses, diverged=1.6, compared=others).plot(labels=list("abcd"))
    ax.figure.canvas.draw()
    texts = [*ax.texts, *ax.get_legend().get_texts()]
    boxes = [text.get_window_extent() for text in texts]
    assert sum(text.get_text() == "diverged" for text in texts) == 4
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    matplotlib.pyplot.close("all")


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
