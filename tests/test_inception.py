"""The example of Sec. 4.2.2: what it trains and writes, that it can be killed, and the arithmetic of its table."""

import itertools
import json
import math
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn
from examples import measured
from examples.accelerate.data import Images, load
from examples.accelerate.network import DROPOUT, L2
from examples.inception import __main__ as command
from examples.inception import report, training
from examples.inception.comparison import compare
from examples.inception.networks import NETWORKS, build
from examples.inception.results import Results, Settings
from examples.measured import Measured

ROOT = Path(__file__).parents[1]
SHORT = ["--baseline-steps", "8", "--steps", "32", "--every", "4"]
TINY = [*SHORT, "--search", "--search-rates", "0.03", "--search-steps", "4"]
WRITTEN = ["figure2.png", "figure2_time.png", "results.json", "table.md"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All networks, trained in one go by the command."""
    out = tmp_path_factory.mktemp("inception") / "whole"
    assert command.main([*TINY, "--out", str(out)]) == 0
    return out


def stored(out):
    return json.loads((out / "results.json").read_text())


def run_of(out, network):
    return next(run for run in stored(out)["runs"] if run["network"] == network)


@pytest.mark.slow
def test_what_it_writes(whole):
    assert sorted(path.name for path in whole.iterdir()) == WRITTEN
    content = stored(whole)
    assert [run["network"] for run in content["runs"]] == ["search_0.03", *NETWORKS]
    for name, network in NETWORKS.items():
        run = run_of(whole, name)
        assert run["steps"] == list(range(4, 9 if network.long else 33, 4)) and run["diverged_at"] is None
        assert len(run["accuracy"]) == len(run["loss"]) == len(run["steps"])
        assert all(0 <= accuracy <= 1 for accuracy in run["accuracy"])
        assert 0 < run["seconds"][0] <= run["seconds"][-1]
    rates = {name: row["initial_rate"] for name, row in content["summary"]["networks"].items()}
    assert rates == {name: pytest.approx(0.03 * network.factor) for name, network in NETWORKS.items()}


@pytest.mark.slow
def test_divergence_is_a_result(tmp_path):
    """It ends the training at once, and the last measurement before stands."""
    digits = load("digits")
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([5], [0.1, 1e30])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    results = results_of(tmp_path, [])
    run, seen = results.run("bn_x5", 0), []
    order = tf.data.Dataset.range(len(digits.x_train))
    measured.train(results, run, model, order, digits, every=4, on_measurement=lambda run: seen.append(run.diverged))
    assert run.steps == [4] and run.diverged_at in (7, 8) and seen == [False, True]
    assert results.has_ended(run) and not results.complete("bn_x5")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert run_of(tmp_path, "bn_x5")["diverged_at"] == run.diverged_at
    assert Results.read(tmp_path).ended("bn_x5") == [run]


@pytest.mark.slow
def test_nothing_is_trained_twice(whole, monkeypatch, capsys):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("it was trained again"))
    assert command.main([*TINY, "--out", str(whole)]) == 0
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    printed = capsys.readouterr().out
    assert all(network.label in printed for network in NETWORKS.values())


@pytest.mark.slow
def test_killed_and_resumed_it_is_the_same_run(whole, tmp_path):
    """SIGKILL in the middle of BN-x5, which has all there is to restore; the others are there already."""
    content = stored(whole)
    content["runs"] = [run for run in content["runs"] if run["network"] != "bn_x5"]
    (tmp_path / "results.json").write_text(json.dumps(content))
    arguments = [sys.executable, "-m", "examples.inception", *TINY, "--out", str(tmp_path)]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            runs = [run for run in stored(tmp_path)["runs"] if run["network"] == "bn_x5"]
            if runs and len(runs[0]["steps"]) >= 2:
                break
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL, process.stderr
    before = run_of(tmp_path, "bn_x5")
    assert 2 <= len(before["steps"]) < 8
    assert command.main([*TINY, "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == WRITTEN
    resumed, expected = run_of(tmp_path, "bn_x5"), run_of(whole, "bn_x5")
    for name in ("steps", "accuracy", "loss", "seconds"):
        assert resumed[name][: len(before["steps"])] == before[name]
    assert resumed["steps"] == expected["steps"]
    np.testing.assert_allclose(resumed["accuracy"], expected["accuracy"], atol=0.01)
    np.testing.assert_allclose(resumed["loss"], expected["loss"], rtol=1e-2)
    assert len(set(expected["loss"])) == 8  # it is not the same all along


@pytest.mark.parametrize("order", ["buffered", "thorough"])
def test_batches_are_the_same_wherever_training_starts(order):
    n = 50
    images = Images(np.arange(n, dtype="float32"), np.zeros(n, "int32"), np.zeros(0), np.zeros(0))

    def read(first, last):
        keras.utils.set_random_seed(0)
        numbers = tf.data.Dataset.range(n)
        thorough = kerasbn.data.shuffle_within_shards(numbers, seed=3)
        shuffled = thorough if order == "thorough" else numbers.shuffle(8, seed=3)
        return [list(x.numpy()) for x, _ in measured.batches(images, shuffled, 8, first).take(last - first)]

    every = read(0, 25)  # four epochs: each has an order of its own
    assert sorted(itertools.chain(*every)) == sorted(list(range(n)) * 4)
    assert every[:6] != every[6:12] and read(13, 25) == every[13:]


def layers(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    """What Sec. 4.2.2 says of each."""
    network = NETWORKS[name]
    model, callbacks, _ = build(network, (8, 8, 1), 100, learning_rate=0.01, decay_steps=60, momentum=0.9, seed=0)
    normalized, accelerated = name.startswith("bn_"), name.startswith("bn_x")
    assert [layer.momentum for layer in layers(model, kerasbn.BatchNorm)] == [0.9] * (22 if normalized else 0)
    assert len(layers(model, kerasbn.LocalResponseNormalization)) == (0 if accelerated else 2)
    assert float(model.get_layer("logits").kernel_regularizer.l2) == pytest.approx(L2 / 5 if accelerated else L2)
    assert model.get_layer("random_brightness").factor[1] == pytest.approx(0.1 if accelerated else 0.2)
    assert model.get_layer("dropout").rate == DROPOUT  # the callback removes it
    activations = {layer.activation.__name__ for layer in model.layers if hasattr(layer, "activation")} - {"linear"}
    assert activations == {"sigmoid" if name.endswith("sigmoid") else "relu"}
    # Where a callback raises the rate, the optimizer has that of the baseline.
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05 if name == "inception_x5" else 0.01)
    raised = [c for c in callbacks if isinstance(c, kerasbn.callbacks.LearningRateAcceleration)]
    assert [(c.factor, c.decay_speedup) for c in raised] == ([(30 if "x30" in name else 5, 6)] if accelerated else [])


def made_up(network, seed, accuracy, seconds, diverged_at=None):
    steps = [10 * (i + 1) for i in range(len(accuracy))]
    return Measured(network, seed, steps, accuracy, [1.0] * len(steps), seconds, diverged_at)


BASES = [
    made_up("base", 0, [0.2, 0.5, 0.7, 0.6], [1.0, 2.0, 3.0, 4.0]),
    made_up("base", 1, [0.2, 0.3, 0.5, 0.8], [1.0, 2.0, 3.0, 4.0]),
    made_up("base", 2, [0.2, 0.6, 0.6, 0.6], [1.0, 2.0, 3.0, 4.0]),
]


def test_ratios_by_hand():
    """Each seed against its own baseline, which is best after 30, 40 and 20 steps."""
    fast = [
        made_up("fast", 0, [0.7, 0.9], [2.0, 4.0]),  # 3 times fewer steps, 3 / 2 of the time
        made_up("fast", 1, [0.7, 0.8], [2.0, 4.0]),  # 2, 4 / 4
        made_up("fast", 2, [0.6, 0.9], [2.0, 4.0]),  # 2, 2 / 2
    ]
    found = compare({"base": BASES, "fast": fast}, "base")
    row = found["fast"]
    assert row["reached"] == [3, 3] and row["steps_to_target"]["mean"] == pytest.approx(40 / 3, abs=1e-4)
    assert row["max_accuracy"]["mean"] == pytest.approx(2.6 / 3, abs=1e-4)
    for name, ratios in (("times_fewer_steps", [3, 2, 2]), ("times_less_time", [1.5, 1, 1])):
        logs = [math.log(ratio) for ratio in ratios]
        margin = 4.302653 * statistics.stdev(logs) / math.sqrt(3)  # Student's t, 97.5 %, 2 degrees of freedom
        middle = statistics.fmean(logs)
        assert row[name]["mean"] == pytest.approx(math.exp(middle), abs=1e-4)
        assert row[name]["low"] == pytest.approx(math.exp(middle - margin), abs=1e-4)
        assert row[name]["high"] == pytest.approx(math.exp(middle + margin), abs=1e-3)
    base = found["base"]
    assert base["steps_to_target"]["mean"] == 30 and base["times_fewer_steps"] is None
    assert base["final_accuracy"]["mean"] == pytest.approx(2.0 / 3, abs=1e-4)


def test_one_seed_has_no_interval():
    row = compare({"base": BASES[:1], "fast": [made_up("fast", 0, [0.7], [2.0])]}, "base")["fast"]
    assert row["times_fewer_steps"] == {"mean": 3.0, "low": None, "high": None}


def test_censored_seeds_give_no_ratio():
    slow = [made_up("slow", 0, [0.7], [2.0]), made_up("slow", 1, [0.79], [2.0]), made_up("slow", 2, [0.1], [2.0])]
    row = compare({"base": BASES, "slow": slow}, "base")["slow"]
    assert row["reached"] == [1, 3] and row["steps_to_target"]["mean"] == 10
    assert row["times_fewer_steps"] is row["times_less_time"] is None


def test_divergence_is_censored_and_no_accuracy():
    """One that was above the target before it diverged has not reached it."""
    dead = [made_up("dead", 0, [0.9], [2.0], diverged_at=13), made_up("dead", 1, [], [], diverged_at=2)]
    found = compare({"base": BASES, "dead": dead}, "base")["dead"]
    assert found["diverged_at"] == [13, 2] and found["reached"] == [0, 2]
    assert found["max_accuracy"] is found["final_accuracy"] is found["times_fewer_steps"] is None
    # A baseline that diverged is nobody's target.
    row = compare({"base": [*BASES[1:], dead[0]], "fast": [made_up("fast", 0, [0.9], [2.0])]}, "base")["fast"]
    assert row["reached"] == [0, 0] and row["times_fewer_steps"] is None


def results_of(folder, runs, **settings):
    names = {"dataset": "digits", "baseline_steps": 40, "steps": 20, "every": 10, "batch_size": 32}
    search = {"learning_rate": None, "search_rates": (0.01, 0.1), "search_steps": 10, "search_seeds": 1}
    return Results(folder, Settings(**names | search | settings), runs)


def test_report_needs_the_json_only(tmp_path, capsys):
    accuracies = {"inception": [0.1, 0.2, 0.3, 0.4], "bn_x5": [0.4, 0.5], "inception_sigmoid": [0.1, 0.1]}
    runs = [made_up("search_0.01", 0, [0.2], [1.0]), made_up("search_0.1", 0, [0.3], [1.0])]
    runs += [
        made_up(name, seed, accuracy, [1.0 + seed + i for i in range(len(accuracy))])
        for name, accuracy in accuracies.items()
        for seed in (0, 1)
    ]
    runs += [made_up("inception_x5", seed, [], [], diverged_at=4 + seed) for seed in (0, 1)]
    runs.append(made_up("bn_x30", 0, [0.2], [1.0]))  # not at its end: not shown
    results_of(tmp_path, runs).save()
    assert report.main([str(tmp_path / "results.json"), "--out", str(tmp_path / "report")]) == 0
    printed = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted({*WRITTEN} - {"results.json"})
    assert "The best rate, 0.1, is the highest that was tried" in printed
    table = (tmp_path / "report" / "table.md").read_text()
    assert "| Inception | 2 | 0.1 | 40 ± 0 |  |  | 40.0% ± 0.0% |" in table
    assert "| BN-x5 | 2 | 0.5 | 10 ± 0 | 4.00 (4.00 to 4.00) | 3.16" in table  # sqrt(4 / 1 * 5 / 2) of the time
    assert "| Inception, sigmoid | 2 | 0.1 | not in 20 | - | - |" in table
    assert "| Inception, 5 times its rate | 2 | 0.5 | diverged at step 4 to 5 | - | - | - |" in table
    assert "BN-x30" not in table


def test_every_curve_is_named(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(report.plt, "close", lambda fig: shown.append(fig.axes[0].get_legend_handles_labels()[1]))
    runs = [made_up("inception", 0, [0.1, 0.2, 0.3, 0.4], [1.0] * 4), made_up("bn_baseline", 0, [0.2] * 4, [1.0] * 4)]
    runs.append(made_up("inception_x5", 0, [0.1], [1.0], diverged_at=13))
    report.write(results_of(tmp_path, runs, learning_rate=0.1), tmp_path)
    expected = ["Inception (1 seed)", "BN-Baseline (1 seed)", "Inception, 5 times its rate: 1 of 1 seed diverged"]
    assert shown == [[*expected, "Inception's best, 40.0%"]] * 2


def test_the_search_decides_when_it_is_through(tmp_path):
    results = results_of(tmp_path, [made_up("search_0.01", 0, [0.2], [1.0])])
    assert results.learning_rate is None
    results.runs.append(made_up("search_0.1", 0, [], [], diverged_at=3))
    assert results.learning_rate == 0.01 and results.rate("bn_x5") == 0.01 and results.rate("search_0.1") == 0.1
    results.runs[0] = made_up("search_0.01", 0, [], [], diverged_at=5)
    assert results.learning_rate is None


def test_a_report_before_a_training_has_ended_is_refused(tmp_path, capsys):
    results_of(tmp_path, []).save()
    assert report.main([str(tmp_path)]) == 2
    assert "No training of" in capsys.readouterr().err


def test_images_of_tensorflow_datasets(tmp_path, monkeypatch):
    """From 0 to 1 in float32, and classes that are integers, whatever types they are stored in."""
    tfds = pytest.importorskip("tensorflow_datasets")
    parts = {"train": ([[[[0], [51]]], [[[255], [102]]]], [3, 9]), "test": ([[[[153], [0]]]], [0])}

    class Builder:
        data_path = tmp_path

        def as_dataset(self, split, batch_size, as_supervised):
            assert batch_size == -1 and as_supervised
            x, y = parts[split]
            return tf.constant(x, "uint8"), tf.constant(y, "int64")

    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Builder())
    images = load("cifar10")
    assert {images.x_train.dtype, images.x_test.dtype} == {np.dtype("float32")}
    assert {images.y_train.dtype, images.y_test.dtype} == {np.dtype("int32")}
    np.testing.assert_allclose(images.x_train.ravel(), [0, 0.2, 1, 0.4], rtol=1e-6)
    np.testing.assert_allclose(images.x_test.ravel(), [0.6, 0], rtol=1e-6)
    assert images.y_train.tolist() == [3, 9] and images.y_test.tolist() == [0]


def test_a_search_in_which_all_diverge(tmp_path, capsys):
    results = results_of(tmp_path, [], baseline_steps=8, steps=32, every=4, search_rates=(1e8, 1e9), search_steps=4)
    results.runs += [made_up(name, 0, [], [], diverged_at=2) for name in results.search]
    results.save()
    arguments = [*SHORT, "--search", "--search-rates", "1e8", "1e9", "--search-steps", "4", "--out", str(tmp_path)]
    assert command.main(arguments) == 2
    assert "Every rate of the search diverged. Received: 1e+08 1e+09" in capsys.readouterr().err


def test_digits_are_the_default(monkeypatch):
    parser = command._parser()
    options = parser.parse_args([])
    chosen = command._settings(parser, options)
    assert options.dataset == "digits" and chosen["learning_rate"] == 0.03 and chosen["search_rates"] == ()
    full = parser.parse_args(["--full"])
    chosen = command._settings(parser, full)
    assert full.dataset == "cifar10" and full.seeds == 3 and chosen["learning_rate"] is None
    assert load("digits").x_train.shape == (1347, 8, 8, 1)
