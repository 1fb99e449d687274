"""`kerasbn.monitors`: against distributions whose distance is known, and that nothing of a training is changed."""

import csv
import inspect
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import kerasbn
from kerasbn import monitors
from kerasbn.callbacks import DropoutRemoval

L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 6, 6, 2)).astype("float32")
Y = np.arange(32) % 3


def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            L.Conv2D(4, 3, name="conv"),
            kerasbn.BatchNorm(name="bn"),
            L.Activation("sigmoid", name="sigmoid"),
            L.Dropout(0.3),
            L.GlobalAveragePooling2D(),
            L.Dense(3, name="last"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    return model


finite = st.floats(-10, 10)
positive = st.floats(0.1, 10)


@given(finite, positive, finite, positive)
def test_gaussian_kl_is_the_integral(mean_p, deviation_p, mean_q, deviation_q):
    p, q = stats.norm(mean_p, deviation_p), stats.norm(mean_q, deviation_q)
    x = np.linspace(mean_p - 12 * deviation_p, mean_p + 12 * deviation_p, 20001)
    expected = np.trapezoid(p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), x)
    found = monitors.gaussian_kl(mean_p, deviation_p**2, mean_q, deviation_q**2)
    assert float(found) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_gaussian_kl_of_constants():
    kl = monitors.gaussian_kl([0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0])
    assert kl.tolist() == [0, math.inf, math.inf]


def test_histogram_kl_comes_to_that_of_the_distributions():
    """A shift by one sigma, 1/2 nat for Gaussians. Bins lose some; samples of one distribution have a floor."""
    a, b, c = RANDOM.normal(size=(3, 200_000, 1))
    assert monitors.histogram_kl(a + 1, b, bins=256)[0] == pytest.approx(0.5, rel=0.03)
    floor = monitors.histogram_kl(b, c, bins=33)[0]
    assert 0 < floor < 3 * 16 * (2 / 200_000)
    assert monitors.histogram_kl(a, a).tolist() == [0.0]
    assert monitors.histogram_kl(np.zeros((5, 1)), np.zeros((9, 1))).tolist() == [0.0]


def test_histogram_kl_is_that_of_counted_values():
    """Counted by hand, channel by channel: values between the same quantiles, with ties, empty bins dropped."""
    p, q = RANDOM.normal(size=(60, 3)).round(1), np.maximum(RANDOM.normal(size=(40, 3)), 0.0)
    for a, b, found in zip(p.T, q.T, monitors.histogram_kl(p, q, bins=16), strict=True):
        edges = [-math.inf, *np.quantile([*a, *b], np.arange(1, 16) / 16), math.inf]
        bins = [[sum(low <= v < high for v in each) for each in (a, b)] for low, high in itertools.pairwise(edges)]
        filled = [counts for counts in bins if any(counts)]
        assert len(filled) < 16  # half of `q` is 0, the edge of several bins
        in_p, in_q = ([(counts[i] + 0.5) / (n + len(filled) / 2) for counts in filled] for i, n in enumerate((60, 40)))
        assert found == pytest.approx(sum(u * math.log(u / v) for u, v in zip(in_p, in_q, strict=True)))
    assert np.isnan(monitors.histogram_kl(p, np.full_like(q, np.nan))).all()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_wasserstein_is_that_of_scipy(n, m, seed):
    random = np.random.default_rng(seed)
    p, q = random.normal(size=(n, 2)), random.gamma(2.0, size=(m, 2))
    expected = [stats.wasserstein_distance(a, b) for a, b in zip(p.T, q.T, strict=True)]
    np.testing.assert_allclose(monitors.wasserstein(p, q), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("distance", [monitors.wasserstein, monitors.histogram_kl, monitors.covariate_shift])
def test_samples_of_other_channels_are_refused(distance):
    names = list(inspect.signature(distance).parameters)[:2]
    with pytest.raises(ValueError, match=rf"`{names[0]}` and `{names[1]}`.*same channels.*\(4, 2\) and \(4, 3\)"):
        distance(np.zeros((4, 2)), np.zeros((4, 3)))


@pytest.mark.parametrize("distance", [monitors.histogram_kl, monitors.covariate_shift])
@pytest.mark.parametrize("bins", [0, 1, -5, 2.5])
def test_bins_are_a_number_above_one(distance, bins):
    with pytest.raises(ValueError, match=f"`bins` must be an integer not below 2.*={bins}"):
        distance(np.zeros((4, 2)), np.zeros((4, 2)), bins=bins)


@given(st.floats(-5, 5), st.floats(0.2, 5), st.floats(1e-3, 1e3))
def test_a_shift_is_what_was_done_to_the_values(move, stretch, unit):
    x = np.linspace(-2.0, 3.0, 501)[:, None] * unit
    mean, deviation = x.mean(), x.std()
    now = (x - mean) * stretch + mean + move * deviation
    found = {name: float(value[0]) for name, value in monitors.covariate_shift(x, now).items()}
    assert found["mean"] == pytest.approx(abs(move), abs=1e-9)
    assert found["deviation"] == pytest.approx(abs(math.log(stretch)), abs=1e-9)
    kl = (stretch**2 + move**2 - 1) / 2 - math.log(stretch)
    assert found["gaussian_kl"] == pytest.approx(kl, rel=1e-6, abs=1e-9)
    distance = stats.wasserstein_distance(x[:, 0], now[:, 0])
    assert found["wasserstein"] == pytest.approx(distance / deviation, abs=1e-9)
    assert found["mean_absolute"] == pytest.approx(abs(move) * deviation, rel=1e-9, abs=1e-9 * unit)
    assert found["wasserstein_absolute"] == pytest.approx(distance, rel=1e-9, abs=1e-9 * unit)


def test_a_dead_channel_has_not_moved_and_one_that_wakes_has():
    dead, alive = np.zeros((9, 1)), np.linspace(0.0, 1.0, 9)[:, None]
    assert all(value.tolist() == [0.0] for value in monitors.covariate_shift(dead, dead).values())
    woken = monitors.covariate_shift(dead, alive)
    assert woken["gaussian_kl"].tolist() == woken["wasserstein"].tolist() == [math.inf]


def makers():
    return {
        "percentiles": lambda **kwargs: monitors.ActivationPercentiles(X, ["sigmoid"], **kwargs),
        "shift": lambda **kwargs: monitors.CovariateShift(X, ["sigmoid", "last"], **kwargs),
        "shift in training": lambda **kwargs: monitors.CovariateShift(X, ["sigmoid"], training=True, **kwargs),
        "activations": lambda **kwargs: monitors.ActivationStatistics(X, ["conv", "sigmoid"], **kwargs),
        "gradients": lambda **kwargs: monitors.GradientStatistics(X, Y, ["conv", "bn", "last"], **kwargs),
    }


@pytest.mark.parametrize("name", makers())
def test_training_is_the_same_with_and_without(name, tmp_path):
    """Weights, statistics, dropout, optimizer and metrics, to the bit; and what is measured goes to four places."""
    settings = {"batch_size": 8, "epochs": 2, "verbose": 0}
    alone = network()
    expected = alone.fit(X, Y, **settings).history
    watched = network()
    monitor = makers()[name](file=tmp_path / "out.csv", log_dir=tmp_path / "logs")
    history = watched.fit(X, Y, callbacks=[monitor], **settings).history
    assert {key: history[key] for key in expected} == expected
    for a, b in zip(
        alone.variables + alone.optimizer.variables, watched.variables + watched.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(a, b)

    assert [row["step"] for row in monitor.history] == [0, 4, 8]
    names = [key for key in monitor.history[0] if key != "step"]
    assert all(history[key] == [row[key] for row in monitor.history[1:]] for key in names)
    with open(tmp_path / "out.csv") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    np.testing.assert_equal(rows, monitor.history)
    (events,) = (tmp_path / "logs").iterdir()
    logged = {}
    for event in tf.data.TFRecordDataset(str(events)):
        for value in tf.compat.v1.Event.FromString(event.numpy()).summary.value:
            logged.setdefault(value.tag, []).append(float(tf.make_ndarray(value.tensor)))
    assert logged == {key: [pytest.approx(row[key], nan_ok=True) for row in monitor.history] for key in names}


def test_every_so_many_steps():
    monitor = monitors.ActivationPercentiles(X, ["sigmoid"], every=3)
    network().fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[monitor])
    assert [row["step"] for row in monitor.history] == [0, 3, 6, 9, 12, 15]
    model = network()
    model.compile("sgd", model.loss, steps_per_execution=4)
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[monitor])
    assert [row["step"] for row in monitor.history] == [0, 4, 8, 12, 16]


def rows_of(path):
    with open(path) as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("every", [None, 3])
def test_a_resumed_training_goes_on_as_if_it_had_not_ended(every, tmp_path):
    """It counted steps from 0 again, forgot the history and wrote over the file."""
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0}
    alone = monitors.ActivationPercentiles(X, ["sigmoid"], every=every, file=tmp_path / "alone.csv")
    network().fit(X, Y, epochs=3, callbacks=[alone], **settings)
    model, path = network(), tmp_path / "resumed.csv"
    monitor = monitors.ActivationPercentiles(X, ["sigmoid"], every=every, file=path)
    model.fit(X, Y, epochs=1, callbacks=[monitor], **settings)
    model.fit(X, Y, epochs=2, initial_epoch=1, callbacks=[monitor], **settings)
    assert monitor.history == alone.history[: len(monitor.history)] and rows_of(path) == monitor.history

    process = monitors.ActivationPercentiles(X, ["sigmoid"], every=every, file=path)  # a new one
    model.fit(X, Y, epochs=3, initial_epoch=2, callbacks=[process], **settings)
    assert process.history[0]["step"] == 8 and process.history[-1] == alone.history[-1]
    expected = alone.history if every is None else [row for row in alone.history if row["step"] < 8]
    assert rows_of(path) == (expected if every is None else expected + process.history)

    model.fit(X, Y, callbacks=[process], **settings)  # from epoch 0
    assert [row["step"] for row in process.history] == ([0, 4] if every is None else [0, 3])
    assert rows_of(path) == process.history


@pytest.mark.parametrize("place", [0, 1])
def test_an_epoch_that_was_interrupted_comes_again(place, tmp_path):
    """What was measured after the backup is taken back with it; before training means the weights of the backup."""

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 7:
                raise KeyboardInterrupt

    def fit(*callbacks):
        monitor = monitors.ActivationPercentiles(X, ["sigmoid"], every=1, file=tmp_path / "out.csv")
        watched = [keras.callbacks.BackupAndRestore(tmp_path / "backup")]
        watched.insert(place, monitor)
        network().fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[*watched, *callbacks])

    with pytest.raises(KeyboardInterrupt):
        fit(Interrupt())
    assert [row["step"] for row in rows_of(tmp_path / "out.csv")] == list(range(8))
    interrupted = rows_of(tmp_path / "out.csv")
    fit()
    rows = rows_of(tmp_path / "out.csv")
    assert [row["step"] for row in rows] == list(range(9)) and rows[:5] == interrupted[:5]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_of_unknown_length_go_on_from_the_last_row():
    monitor, model = monitors.ActivationPercentiles(X, ["sigmoid"]), network()
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).filter(lambda x, y: True)
    for epoch in range(2):
        model.fit(data, initial_epoch=epoch, epochs=epoch + 1, callbacks=[monitor], shuffle=False, verbose=0)
    assert [row["step"] for row in monitor.history] == [0, 4, 8]


def test_the_start_of_a_shift_is_that_of_the_first_training():
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0}
    alone, resumed = (monitors.CovariateShift(X, ["sigmoid"]) for _ in range(2))
    network().fit(X, Y, epochs=2, callbacks=[alone], **settings)
    model = network()
    for epoch in range(2):
        model.fit(X, Y, initial_epoch=epoch, epochs=epoch + 1, callbacks=[resumed], **settings)
    assert resumed.history == alone.history and len(resumed.channels) == 3
    assert resumed.history[-1]["shift/sigmoid/mean/start"] > 0


@pytest.mark.parametrize(
    "content", ["step,other\n0,1.0\n", "step,percentile/sigmoid/50\n0,a\n", "0,1,2\n3,4,5\n", "step\n1,2"]
)
def test_a_file_of_something_else_is_not_gone_on_with(content, tmp_path):
    path = tmp_path / "out.csv"
    path.write_text(content)
    model = network()
    with pytest.raises(ValueError, match=r"`file` must be one that this monitor wrote.*out\.csv"):
        monitor = monitors.ActivationPercentiles(X, ["sigmoid"], percentiles=[50], file=path)
        model.fit(X, Y, initial_epoch=1, epochs=2, callbacks=[monitor], verbose=0)
    assert path.read_text() == content and model.optimizer.iterations == 0


def test_percentiles_are_those_of_the_inputs():
    model = network()
    monitor = monitors.ActivationPercentiles(X, ["sigmoid"], percentiles=[0, 50, 100], unit=1)
    whole = monitors.ActivationPercentiles(X, lambda layer: layer.name == "sigmoid", of="output")
    model.fit(X, Y, verbose=0, callbacks=[monitor, whole])
    inputs = keras.Model(model.inputs[0], model.get_layer("bn").output)(X, training=False).numpy()
    expected = {f"percentile/sigmoid/{p}": np.percentile(inputs[..., 1], p) for p in (0, 50, 100)}
    assert monitor.history[-1] == {
        "step": 1,
        **{name: pytest.approx(value, rel=1e-5) for name, value in expected.items()},
    }
    outputs = 1 / (1 + np.exp(-inputs))
    assert whole.history[-1]["percentile/sigmoid/85"] == pytest.approx(np.percentile(outputs, 85), rel=1e-5)


def test_a_shift_in_training_has_the_moments_of_the_batch():
    """Behind a normalization values keep mean 0 and deviation 1 however the weights before it move."""

    class Stretch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            kernel = self.model.get_layer("conv").kernel
            kernel.assign(4 * kernel)

    monitor = monitors.CovariateShift(X, ["bn"], of="output", training=True)
    before = monitors.CovariateShift(X, ["bn"], training=True)
    model = network()
    model.optimizer.learning_rate = 0.0
    model.fit(X, Y, verbose=0, callbacks=[monitor, before, Stretch()])
    assert before.history[-1]["shift/bn/deviation/start"] == pytest.approx(math.log(4), rel=1e-4)
    assert monitor.history[-1]["shift/bn/deviation/start"] < 0.02  # what epsilon does


def test_step_and_start():
    """A weight that is set by hand after each epoch: the shift since the last epoch and since the first."""

    class Scale(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.get_layer("a").kernel.assign([[2.0 ** (epoch + 1)]])

    model = keras.Sequential(
        [keras.Input((1,)), L.Dense(1, use_bias=False, kernel_initializer="ones", name="a"), L.Dense(1, name="b")]
    )
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = RANDOM.normal(size=(64, 1)).astype("float32")
    monitor = monitors.CovariateShift(x, ["b"])
    model.fit(x, x, epochs=3, verbose=0, callbacks=[monitor, Scale()])
    assert [row["shift/b/deviation/step"] for row in monitor.history] == pytest.approx(
        [0, *[math.log(2)] * 3], abs=1e-6
    )
    since = [row["shift/b/deviation/start"] for row in monitor.history]
    assert since == pytest.approx([i * math.log(2) for i in range(4)], abs=1e-6)
    assert monitor.channels[-1]["shift/b/deviation/start"].shape == (1,)


def test_activation_statistics_are_the_moments():
    model = network()
    found = monitors.activation_statistics(model, X, ["conv", "bn"])
    conv = keras.Model(model.inputs[0], model.get_layer("conv").output)(X).numpy()
    np.testing.assert_allclose(found["conv"]["mean"], conv.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["conv"]["deviation"], conv.std((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(found["bn"]["deviation"], 1, rtol=1e-2)
    assert list(found) == ["conv", "bn"]


@pytest.fixture
def in_float64():
    """Keras computes losses in its global type."""
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


def test_gradients_are_those_of_finite_differences(in_float64):
    inputs = keras.Input((3,), dtype="float64")
    hidden = L.Dense(4, "tanh", name="a", dtype="float64")(inputs)
    model = keras.Model(inputs, L.Dense(2, name="b", dtype="float64")(hidden))
    model.compile("sgd", "mse")
    x, y = RANDOM.normal(size=(5, 3)), RANDOM.normal(size=(5, 2))
    found = monitors.gradient_statistics(model, x, y, ["a", "b"])

    def loss():
        return float(model.compute_loss(x, y, model(x)))

    for name in ("a", "b"):
        layer = model.get_layer(name)
        numeric = []
        for variable in layer.trainable_variables:
            value = variable.numpy()
            for index in np.ndindex(value.shape):
                change = np.zeros_like(value)
                change[index] = 1e-5
                variable.assign(value + change)
                above = loss()
                variable.assign(value - change)
                numeric.append((above - loss()) / 2e-5)
                variable.assign(value)
        np.testing.assert_allclose(found[name].values, numeric, rtol=1e-6, atol=1e-9)
        assert found[name].norm == pytest.approx(np.linalg.norm(numeric))
        assert found[name].kurtosis == pytest.approx(np.mean(np.power(numeric, 4)) / np.mean(np.square(numeric)) ** 2)
    # The gradient of the output, summed over the examples, is that of the bias.
    np.testing.assert_allclose(found["b"].sums, found["b"].values[-2:], rtol=1e-10)
    assert np.all(found["b"].absolute_sums >= np.abs(found["b"].sums) - 1e-12)


def test_gradients_behind_a_normalization_cancel():
    """A bias before batch normalization has no effect, so the gradients of what it would be added to sum to 0."""
    model = network()
    found = monitors.gradient_statistics(model, X, Y, ["conv", "last"])
    assert found["conv"].coherence.max() < 1e-4 < found["last"].coherence.min()
    assert np.all((found["last"].coherence >= 0) & (found["last"].coherence <= 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: monitors.CovariateShift(X, ["nowhere"]), r"`layers` must name layers.*\['nowhere'\].*'conv'"),
        (lambda: monitors.CovariateShift(X, lambda layer: False), "`layers` must choose one layer"),
        (lambda: monitors.ActivationPercentiles(X, ["conv"], of="weights"), "`of` must be one of 'input', 'output'"),
        (lambda: monitors.ActivationPercentiles(X, ["conv"], unit=7), "`unit` must be a channel.*unit=7.*'conv' has 2"),
        (lambda: monitors.ActivationPercentiles(X, ["conv"], percentiles=[101]), "`percentiles`.*101"),
        (lambda: monitors.ActivationPercentiles(X, ["conv"], every=0), "`every`.*0"),
        (lambda: monitors.CovariateShift(X, ["conv"], bins=1), "`bins`.*1"),
    ],
)
def test_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        network().fit(X, Y, verbose=0, callbacks=[make()])


def test_models_that_cannot_be_looked_into():
    class Own(keras.Model):
        def build(self, shape):
            pass

        def call(self, x):
            return x

    own = Own()
    own.build((None, 3))
    with pytest.raises(ValueError, match=r"must be functional or Sequential.*Own"):
        monitors.activation_statistics(own, X, ["a"])
    dense = L.Dense(3, name="twice")
    inputs = keras.Input((3,))
    with pytest.raises(ValueError, match=r"called once.*'twice'"):
        monitors.activation_statistics(keras.Model(inputs, dense(dense(inputs))), X, ["twice"])
    with pytest.raises(ValueError, match="must be compiled"):
        monitors.gradient_statistics(keras.Model(inputs, L.Dense(1, name="a")(inputs)), X, Y, ["a"])


def test_what_is_read_follows_the_training_step():
    """Rates are constants in a trace: it is made anew when that of the training step is, and is kept until then."""
    model = keras.Sequential([keras.Input((64,)), L.Dropout(0.5, seed=0, name="drop"), L.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.ones((8, 64), "float32")
    watch = {"statistics": monitors.ActivationStatistics(x, ["drop"])}
    watch["percentiles"] = monitors.ActivationPercentiles(x, ["drop"], of="output", percentiles=[0], training=True)
    probes = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: probes.append(watch["statistics"].probe))
    removal = DropoutRemoval(at=2)
    model.fit(x, x[:, :1], epochs=4, verbose=0, callbacks=[removal, *watch.values(), note])
    # Before training, and after each of four epochs.
    deviations = [row["activation/drop/deviation"] for row in watch["statistics"].history]
    lowest = [row["percentile/drop/0"] for row in watch["percentiles"].history]
    assert min(deviations[:3]) > 0 and deviations[3:] == [0, 0]
    assert lowest == [0, 0, 0, 1, 1]
    assert probes[0] is probes[1] and probes[1] is not probes[2] and probes[2] is probes[3]
