"""The example of internal covariate shift: its noise, what is measured where, and the words that it finds for it."""

import math

import keras
import numpy as np
import pytest
from scipy import stats

from examples.accelerate.data import Images
from examples.covariate_shift import __main__ as command
from examples.covariate_shift import figures, measurement, report, training
from examples.covariate_shift.analysis import analyse, change, faster, goes_with_speed, level, verdict
from examples.covariate_shift.comparisons import METRIC_LABELS, NETWORKS, OWN, PERIODS, PLACES, SAME, SINCE
from examples.covariate_shift.correlation import rank_correlation
from examples.covariate_shift.measurement import ShiftRecorder
from examples.covariate_shift.networks import build
from examples.covariate_shift.noise import ShiftingNoise
from examples.covariate_shift.results import FIRST_SEARCH_SEED, Results, Settings, ShiftRun
from examples.mnist_sigmoid.data import load
from kerasbn import BatchNorm
from kerasbn.intervals import Interval
from kerasbn.monitors import covariate_shift
from kerasbn.monitors.covariate_shift import METRICS

SHORT = ["--steps", "4", "--every", "2", "--batch-size", "16", "--probe", "40", "--seeds", "1"]
TINY = [*SHORT, "--rates", "1"]
SETTINGS = Settings("digits", "sigmoid", 4, 2, 16, (0.3, 1.0), search_seeds=1, probe=40)
FIGURES = ["accuracy.png", "shift_own_rate.png", "shift_same_rate.png", "speed_own_rate.png", "speed_same_rate.png"]
WRITTEN = sorted([*FIGURES, "results.json", "table.md"])


@pytest.fixture(scope="module")
def digits():
    found = load("digits")
    return Images(found.x_train.astype("float32"), found.y_train, found.x_test.astype("float32"), found.y_test)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All networks, trained in one go by the command."""
    out = tmp_path_factory.mktemp("covariate_shift") / "whole"
    assert command.main([*TINY, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_what_it_writes(whole):
    assert sorted(path.name for path in whole.iterdir()) == WRITTEN
    results = Results.read(whole)
    assert [run.network for run in results.runs] == results.trainings() == [f"{name}@1" for name in NETWORKS]
    for run in results.runs:
        assert run.seed == 0 and run.steps == [2, 4] and run.diverged_at is None
        places = [place for place in PLACES if place != "linear" or run.parts[0] != "plain"]
        assert set(run.shift) == {f"{p}/{m}/{s}" for p in places for m in METRICS for s in SINCE}
        assert all(len(values) == 2 and min(values) >= 0 for values in run.shift.values())
        first = {name: values[0] for name, values in run.shift.items()}
        assert all(value == first[name.replace("/step", "/start")] for name, value in first.items())
    assert list(METRIC_LABELS) == list(METRICS)


@pytest.mark.slow
def test_nothing_is_trained_twice(whole, monkeypatch, capsys):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("it was trained again"))
    assert command.main([*TINY, "--out", str(whole)]) == 0
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    printed = capsys.readouterr().out
    assert all(label in printed for label in (*NETWORKS.values(), *METRIC_LABELS.values()))


@pytest.mark.slow
def test_stopped_and_resumed_it_is_the_same_run(digits, tmp_path):
    """The noise and the snapshots that the next shift is measured from are those that they would have been."""
    settings = Settings("digits", "sigmoid", 12, 2, 16, (1.0,), search_seeds=1, probe=40)

    def stop(run):
        if len(run.steps) == 3:
            raise KeyboardInterrupt

    results = Results.open(tmp_path / "stopped", settings)
    with pytest.raises(KeyboardInterrupt):
        training.train(digits, results, results.run("noisy@1", 0), stop)
    resumed = Results.open(tmp_path / "stopped", settings)
    assert resumed.run("noisy@1", 0).steps == [2, 4, 6]
    training.train(digits, resumed, resumed.run("noisy@1", 0), lambda run: None)
    expected = Results.open(tmp_path / "whole", settings)
    training.train(digits, expected, expected.run("noisy@1", 0), lambda run: None)
    a, b = (each.run("noisy@1", 0) for each in (resumed, expected))
    assert a.steps == b.steps == [2, 4, 6, 8, 10, 12] and a.accuracy == b.accuracy
    assert a.shift.keys() == b.shift.keys()
    for name in a.shift:
        np.testing.assert_allclose(a.shift[name], b.shift[name], rtol=2e-2, err_msg=name)
        assert len(set(b.shift[name])) > 1
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["results.json"]


def test_what_is_measured_where(digits):
    """By hand: both sides of each sigmoid, and what comes into BN, whose moments are those of the examples."""
    x = digits.x_train[:40]
    model = build("batch_norm", 64, 1.0, SETTINGS, seed=0)
    parts = {
        "nonlinearity": [layer.input for layer in model.layers if isinstance(layer, keras.layers.Activation)],
        "layer": [layer.output for layer in model.layers if isinstance(layer, keras.layers.Activation)],
        "linear": [layer.output for layer in model.layers if isinstance(layer, keras.layers.Dense)][:3],
    }
    probe = keras.Model(model.inputs[0], [*parts["nonlinearity"], *parts["layer"], *parts["linear"]])

    def read():
        layers = [np.asarray(each) for each in probe(x, training=True)]
        return {"nonlinearity": layers[:3], "layer": layers[3:6], "linear": layers[6:]}

    statistics = [variable.numpy() for variable in model.non_trainable_variables]
    run = ShiftRun("batch_norm@1", 0)
    recorder = ShiftRecorder(run, model, x, bins=8)
    for variable, value in zip(model.non_trainable_variables, statistics, strict=True):
        np.testing.assert_array_equal(variable, value)
    recorder.set_model(model)
    snapshots = [read()]
    for epoch in range(2):
        for variable in model.trainable_variables:
            variable.assign(variable + 0.3 * np.random.default_rng(epoch).normal(size=variable.shape))
        recorder.on_epoch_end(epoch)
        snapshots.append(read())
    for place in parts:
        for since, before in (("start", snapshots[0]), ("step", snapshots[1])):
            layers = [covariate_shift(a, b, 8) for a, b in zip(before[place], snapshots[2][place], strict=True)]
            for metric in METRICS:
                expected = np.median(np.concatenate([layer[metric] for layer in layers]))
                assert len(run.shift[f"{place}/{metric}/{since}"]) == 2
                assert run.shift[f"{place}/{metric}/{since}"][-1] == pytest.approx(expected, rel=0.01, abs=1e-9)
    for sigmoid_inputs in snapshots[0]["nonlinearity"]:
        np.testing.assert_allclose(sigmoid_inputs.mean(0), 0, atol=1e-4)


def test_networks_differ_in_what_is_before_the_nonlinearity():
    kinds = {name: [type(layer) for layer in build(name, 64, 0.1, SETTINGS, seed=0).layers] for name in NETWORKS}
    dense, activation = keras.layers.Dense, keras.layers.Activation
    assert kinds["plain"] == [dense, activation] * 3 + [dense]
    assert kinds["batch_norm"] == [dense, BatchNorm, activation] * 3 + [dense]
    assert kinds["noisy"] == [dense, BatchNorm, ShiftingNoise, activation] * 3 + [dense]
    relu = Settings("digits", "relu", 4, 2, 16, (0.3,), search_seeds=1, probe=40)
    models = [build(name, 64, 0.1, relu, seed=3) for name in NETWORKS]
    assert {layer.activation.__name__ for layer in models[2].layers if isinstance(layer, keras.layers.Activation)} == {
        "relu"
    }
    kernels = [
        [layer.kernel.numpy() for layer in model.layers if isinstance(layer, keras.layers.Dense)] for model in models
    ]
    for others in kernels[1:]:
        for a, b in zip(kernels[0], others, strict=True):
            np.testing.assert_array_equal(a, b)


def test_noise_has_moments_that_are_drawn_at_each_step():
    """By the distributions: the offsets of units are uniform, the factors too, and both are the same for a batch."""
    layer = ShiftingNoise(0.5, 1.25, 0.1, 0.1, seed=0)
    zeros, ones = np.zeros((4000, 300), "float32"), np.ones((4000, 300), "float32")
    offsets = [layer(zeros, training=True).numpy() for _ in range(2)]
    means = [each.mean(0) for each in offsets]
    for mean, offset in zip(means, offsets, strict=True):
        assert stats.kstest(mean, stats.uniform(-0.5, 1.0).cdf).pvalue > 1e-3
        assert np.abs(offset - mean).max() < 0.1 + 0.01
        np.testing.assert_allclose(offset.std(0), 0.1 / math.sqrt(3), rtol=0.05)
    assert abs(np.corrcoef(*means)[0, 1]) < 0.25  # 300 units: 4 standard deviations
    scaled = layer(1000 * ones, training=True).numpy() / 1000  # in which offsets are lost
    factors = scaled.mean(0)
    assert stats.kstest(factors, stats.uniform(1.0, 0.25).cdf).pvalue > 1e-3
    np.testing.assert_allclose(scaled.std(0), 0.1, rtol=0.1)


def test_noise_is_of_training_only_and_saved(tmp_path):
    model = keras.Sequential([keras.Input((5, 3)), ShiftingNoise(0.25, 1.5, 0.0, 0.0, seed=7, name="noise")])
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    np.testing.assert_array_equal(model(x), x)
    noisy = model(x, training=True).numpy()
    slopes = (noisy[1:] - noisy[:-1]) / (x[1:] - x[:-1])
    np.testing.assert_allclose(slopes, np.broadcast_to(slopes[0, 0], slopes.shape), rtol=1e-2)  # one map for a channel
    assert len(set(slopes[0, 0].round(3))) == 3
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("noise").get_config() == model.get_layer("noise").get_config()
    np.testing.assert_array_equal(loaded(x), x)
    with pytest.raises(ValueError, match=r"`scale`.*0\.5"):
        ShiftingNoise(scale=0.5)


def made_up(network, seed, accuracy, shift, diverged_at=None):
    """All metrics alike at all places, but that what is before BN is ten times as much."""
    steps = [2 * (i + 1) for i in range(len(accuracy))]
    places = {"nonlinearity": 1.0, "layer": 1.0} | ({} if network.startswith("plain") else {"linear": 10.0})
    shifts = {
        f"{p}/{m}/{s}": [None if v is None else v * by for v in shift]
        for p, by in places.items()
        for m in METRICS
        for s in SINCE
    }
    return ShiftRun(network, seed, steps, accuracy, [1.0] * len(steps), [1.0] * len(steps), diverged_at, shifts)


def runs_of_three():
    """With BN the shift is half, and with noise four times the baseline's; both train as fast."""
    found = []
    for seed, unit in enumerate((1.0, 1.1, 0.9)):
        found.append(made_up("plain@0.3", seed, [0.2, 0.4 + seed / 100], [unit, unit]))
        found.append(made_up("batch_norm@0.3", seed, [0.8, 0.9 + seed / 100], [None, unit / 2]))
        found.append(made_up("noisy@0.3", seed, [0.8, 0.89 + seed / 100], [unit * 4, unit * 4]))
    return found


def results_of(folder, runs, **settings):
    names = {"dataset": "digits", "activation": "sigmoid", "steps": 4, "every": 2, "batch_size": 16}
    return Results(folder, Settings(**names | {"rates": (0.3,), "search_seeds": 1, "probe": 40} | settings), runs)


def test_analysis_by_hand(tmp_path):
    results = results_of(tmp_path, runs_of_three())
    compared = results.compared(SAME)
    rows = analyse(compared)
    assert [(row.place, row.period, row.metric) for row in rows] == [
        (place, period, metric) for place in PLACES for period in PERIODS for metric in METRICS
    ]
    row = rows[0]
    assert row.levels["plain"] == {"mean": 1.0, "stdev": 0.1, "min": 0.9, "max": 1.1}
    assert row.ratios["batch_norm"] == pytest.approx((0.5, 0.5, 0.5))
    assert row.ratios["noisy"] == pytest.approx((4, 4, 4))
    assert (change(row.ratios["batch_norm"]), change(row.ratios["noisy"])) == ("falls", "rises")
    before = rows[-1]  # of the baseline it is what comes into the nonlinearity
    assert before.place == "linear" and before.ratios["noisy"] == pytest.approx((40, 40, 40))
    x = [level(run, "layer", "mean", "step") for runs in compared.values() for run in runs]
    y = [run.mean_accuracy for runs in compared.values() for run in runs]
    assert row.correlation.mean == pytest.approx(stats.spearmanr(x, y).statistic)
    ratio = faster(compared)["noisy"]
    assert ratio.mean == pytest.approx(np.prod([0.845 / 0.3, 0.85 / 0.305, 0.855 / 0.31]) ** (1 / 3)) and ratio.low > 1


def test_levels_are_medians_of_what_is_finite():
    run = made_up("noisy@1", 0, [0.1] * 5, [3.0, 1.0, None, 2.0, 0.0])
    assert [level(run, "layer", "mean", period) for period in ("start", "step", "late")] == [1.5, 1.5, 1.0]
    assert math.isnan(level(ShiftRun("noisy@1", 0), "layer", "mean", "start"))


def test_a_diverged_training_has_no_shift(tmp_path):
    runs = [run for run in runs_of_three() if run.parts[0] != "noisy"]
    runs.append(made_up("noisy@0.3", 0, [0.8], [100.0], diverged_at=3))
    results = results_of(tmp_path, runs)
    row = analyse(results.compared(SAME))[0]
    assert row.levels["noisy"] is None and math.isnan(row.ratios["noisy"].mean) and change(row.ratios["noisy"]) == "-"
    assert "1 (1 diverged)" in report.as_text(results)


def test_words():
    assert [change(Interval(1, *ends)) for ends in ((0.5, 0.9), (1.1, 2), (0.9, 1.1))] == ["falls", "rises", "-"]
    assert [goes_with_speed(Interval(0, *ends)) for ends in ((-0.9, -0.1), (0.1, 0.9), (-0.1, 0.1))] == [
        "less",
        "more",
        "-",
    ]
    assert verdict(["falls"] * 3 + ["-"] * 2, "falls", "rises") == "falls"
    assert verdict(["rises"] * 3 + ["-"] * 2, "falls", "rises") == "rises"
    assert verdict(["falls"] * 7 + ["rises"], "falls", "rises") == "depends"
    assert verdict(["falls"] * 2 + ["-"] * 3, "falls", "rises") == "not shown"


def test_rank_correlation():
    """Against SciPy, and the interval by hand."""
    random = np.random.default_rng(0)
    x = random.normal(size=20)
    y = x + random.normal(size=20)
    found = rank_correlation(x, y)
    r = stats.spearmanr(x, y).statistic
    margin = 1.959964 * math.sqrt((1 + r**2 / 2) / 17)
    assert found == pytest.approx((r, math.tanh(math.atanh(r) - margin), math.tanh(math.atanh(r) + margin)), abs=1e-6)
    assert rank_correlation([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]).mean == pytest.approx(-1)
    assert all(map(math.isnan, rank_correlation([1, 2, 3, 4], [1, 2, 3, 4])))
    assert all(map(math.isnan, rank_correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5])))
    assert all(map(math.isnan, rank_correlation([1, 2, 3, 4, math.nan], [1, 2, 3, 4, 5])))


def test_rank_correlation_within_groups():
    """Between the groups it goes up, within them down."""
    x, y, groups = [1, 2, 3, 11, 12, 13], [3, 2, 1, 13, 12, 11], ["a"] * 3 + ["b"] * 3
    assert rank_correlation(x, y).mean > 0.4 and rank_correlation(x, y, groups).mean == pytest.approx(-1)
    assert math.isnan(rank_correlation(x[:5], y[:5], groups[:5]).mean)  # 4 are left


def test_the_search_decides_when_it_is_through(tmp_path):
    rates = {"plain": (0.5, 0.3), "batch_norm": (0.6, 0.9), "noisy": (0.2, 0.8)}
    runs = [
        made_up(f"search_{network}@{rate:g}", FIRST_SEARCH_SEED, [accuracy, accuracy], [])
        for network, each in rates.items()
        for rate, accuracy in zip((0.3, 1.0), each, strict=True)
    ]
    results = results_of(tmp_path, runs[:-1], rates=(0.3, 1.0))
    assert results.rate("noisy") is None and results.trainings() == [
        "plain@0.3",
        "batch_norm@0.3",
        "noisy@0.3",
        "batch_norm@1",
    ]
    results.runs.append(runs[-1])
    assert results.names(SAME) == {name: f"{name}@0.3" for name in NETWORKS}
    assert results.names(OWN) == {"plain": "plain@0.3", "batch_norm": "batch_norm@1", "noisy": "noisy@1"}
    assert len(results.trainings()) == 5
    results.runs[0].diverged_at = 3  # then the other rate is the best
    assert results.rate("plain") == 1.0 and results.searched()["plain"]["0.3"]["mean_accuracy"] is None
    results.runs[1].diverged_at = 3
    assert results.rate("plain") is None


def test_the_command_searches_first(tmp_path, monkeypatch):
    """With other seeds than those that are reported, and without the measurements that nobody looks at."""
    trained = []

    def train(images, results, run, on_measurement):
        trained.append((run.network, run.seed))
        accuracy = 0.5 if run.parts == ("noisy", 1.0) else 0.4 - run.parts[1] / 10
        run.steps, run.accuracy, run.seconds, run.loss = [2, 4], [accuracy] * 2, [1.0] * 2, [1.0] * 2

    monkeypatch.setattr(training, "train", train)
    assert command.main([*SHORT, "--rates", "0.3", "1", "--out", str(tmp_path)]) == 0
    searched = [(f"search_{name}@{rate}", FIRST_SEARCH_SEED) for name in NETWORKS for rate in ("0.3", "1")]
    assert trained == [*searched, *((f"{name}@0.3", 0) for name in NETWORKS), ("noisy@1", 0)]
    table = (tmp_path / "table.md").read_text()
    assert "| with BN, then noise | 37.0% | 50.0% | 1 |" in table and "| with BN | 37.0% | 30.0% | 0.3 |" in table
    assert "At an end of the rates that were tried" in table


def test_a_search_is_not_watched(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(measurement, "CovariateShift", lambda *_, **__: pytest.fail("it was"))
    results = Results.open(tmp_path, SETTINGS)
    run = results.run("search_plain@0.3", FIRST_SEARCH_SEED)
    training.train(digits, results, run, lambda run: None)
    assert run.steps == [2, 4] and not run.shift


def test_a_search_in_which_all_diverge(tmp_path, capsys):
    results = Results.open(tmp_path, SETTINGS)
    results.runs += [made_up(name, seed, [], [], diverged_at=2) for name, seed in results.search()]
    results.save()
    assert command.main([*SHORT, "--rates", "0.3", "1", "--out", str(tmp_path)]) == 2
    assert "Every rate of the search diverged without BN. Received: 0.3 1." in capsys.readouterr().err


def test_report_needs_the_json_only(tmp_path, capsys):
    results_of(tmp_path, runs_of_three()).save()
    assert report.main([str(tmp_path / "results.json"), "--out", str(tmp_path / "report")]) == 0
    printed = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted({*WRITTEN} - {"results.json"})
    table = (tmp_path / "report" / "table.md").read_text()
    assert (
        "| inputs of the nonlinearities | between snapshots | mean / deviation | 1 ± 0.1 | 0.5 ± 0.05 | 4 ± 0.4 |"
        in table
    )
    assert "| 0.5 (0.5 to 0.5) | 4 (4 to 4) | falls | rises |" in table
    assert "| with BN, then noise | 0.3 | 3 | 85.0% ± 0.5% |" in table
    word = "falls (12 falls, 0 rises of 12)"
    assert table.count(word) == len(METRICS) == printed.count(word) and "before BN" not in printed


def test_every_curve_is_named(tmp_path, monkeypatch):
    shown = []

    def look(fig):  # in place of drawing it, which takes seconds
        legends = [*fig.legends, *(ax.get_legend() for ax in fig.axes if ax.get_legend())]
        shown.append([[text.get_text() for text in legend.get_texts()] for legend in legends])
        figures.plt.close(fig)
        return b""

    monkeypatch.setattr(figures, "_png", look)
    figures.draw(results_of(tmp_path, runs_of_three()))
    accuracy = [f"{label}, rate 0.3, 3 of 3 seeds" for label in NETWORKS.values()]
    shift = [*NETWORKS.values(), "with BN: what comes into BN", "with BN, then noise: what comes into BN"]
    each = [[[*shift, "lowest to highest seed"]], [list(NETWORKS.values())]]
    assert shown == [[accuracy, accuracy], *each, *each]


def test_a_report_before_a_training_has_ended_is_refused(tmp_path, capsys):
    results_of(tmp_path, []).save()
    assert report.main([str(tmp_path)]) == 2
    assert "No training of" in capsys.readouterr().err


def test_presets():
    parser = command._parser()
    options = parser.parse_args([])
    command._complete(parser, options)
    assert (options.dataset, options.seeds, options.rates) == ("digits", 5, (0.3, 1.0, 3.0, 10.0))
    full = parser.parse_args(["--full", "--activation", "relu"])
    command._complete(parser, full)
    assert (full.dataset, full.steps, str(full.out)) == ("mnist", 3000, "runs/covariate_shift/mnist_relu")
