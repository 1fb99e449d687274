"""The example of Sec. 4.2.3: what its networks are, what it trains and writes, and the arithmetic of its ensembles."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn
from examples.accelerate.data import load
from examples.ensemble import __main__ as command
from examples.ensemble import members, report, training
from examples.ensemble.combination import combine, wrong
from examples.ensemble.members import MEMBERS, REFERENCE, networks
from examples.ensemble.results import Results, Settings, Trained
from examples.inception.networks import LAST, build

TINY = ["--steps", "4", "--every", "2", "--factor", "5"]
TWO = ("larger_weights_dropout_5", "per_activation_dropout_10")
WRITTEN = ["figure.png", "results.json", "table.md"]


def made(name):
    network = networks(30.0, 3.0)[name]
    return build(network, (8, 8, 1), 100, learning_rate=0.01, decay_steps=60, momentum=0.9, seed=0)


@pytest.fixture(scope="module")
def reference():
    return made(REFERENCE)[0]


@pytest.mark.parametrize("name", TWO)
def test_networks(name, reference):
    """What Sec. 4.2.3 says of them, and nothing else that differs from BN-x30. In these two all changes are."""
    model, callbacks, _ = made(name)
    raised = [c for c in callbacks if isinstance(c, kerasbn.callbacks.LearningRateAcceleration)]
    assert [(c.factor, c.decay_speedup) for c in raised] == [(30, 6)]
    dropout = [c.to for c in callbacks if isinstance(c, kerasbn.callbacks.DropoutRemoval)]
    assert dropout == [0.05 if "dropout_5" in name else 0.1 if "dropout_10" in name else 0.0]
    for layer in reference.layers[1:]:
        same = model.get_layer(layer.name)
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            larger = "larger" in name and isinstance(layer, keras.layers.Conv2D)
            np.testing.assert_allclose(same.kernel, (3 if larger else 1) * np.asarray(layer.kernel), rtol=1e-6)
        if isinstance(layer, kerasbn.BatchNorm):
            each = "per_activation" in name and layer.name.removesuffix("_bn") in LAST
            assert same.axis == ([1, 2, 3] if each else layer.axis) and same.momentum == 0.9
            assert same.gamma.shape == ((2, 2, layer.gamma.shape[0]) if each else layer.gamma.shape)
    assert len(model.layers) == len(reference.layers)


def test_each_of_the_six_is_changed_as_it_is_called():
    found = networks(5.0, 2.0)
    assert list(found) == [REFERENCE, *MEMBERS] and len(MEMBERS) == 6
    for name, network in found.items():
        assert (network.factor, network.normalized, network.accelerated, network.activation) == (5, True, True, "relu")
        assert network.initialization == (2.0 if "larger_weights" in name else 1.0)
        assert network.per_activation == ("per_activation" in name)
        assert network.dropout == (0.05 if name.endswith("_5") else 0.1 if name.endswith("_10") else 0.0)
    assert found[REFERENCE].label == "BN-x5, not modified"
    assert found["larger_weights_dropout_5"].label == "weights x 2, dropout 5%"
    assert len({network.label for network in found.values()}) == 7


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An ensemble of two, trained in one go by the command."""
    out = tmp_path_factory.mktemp("ensemble") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        assert command.main([*TINY, "--out", str(out)]) == 0
    return out


def small(patch):
    """Two of the six, and small networks in their place: the test is of what is done with them."""
    for module in (members, training):
        patch.setattr(module, "MEMBERS", TWO)
    patch.setattr("examples.ensemble.results.MEMBERS", TWO)
    patch.setattr(training, "build", build_small)


def build_small(network, shape, examples, learning_rate, decay_steps, momentum, seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(network.factor * learning_rate), loss, metrics=["accuracy"])
    return model, [], tf.data.Dataset.range(examples).shuffle(examples, seed=seed)


@pytest.mark.slow
def test_one_of_the_six_is_trained(tmp_path):
    """With dropout and per-activation normalization, for as long as it takes to see that its probabilities are kept."""
    results = Results(tmp_path, Settings("digits", 4, 2, 32, learning_rate=0.03, factor=5.0, larger=2.0, top_k=3))
    run, digits, seen = results.run("per_activation_dropout_10", 0), load("digits"), []
    training.train(digits, results, run, lambda run: seen.append(len(run.steps)))
    assert seen == [1, 2] and run.steps == [2, 4] and not run.diverged
    probabilities = np.load(results.probabilities(run))
    assert probabilities.shape == (450, 10)
    assert run.top_k_error == pytest.approx(np.mean(wrong(probabilities, digits.y_test, 3)), abs=1e-5)
    assert Results.read(tmp_path).runs == [run]


def stored(out):
    return json.loads((out / "results.json").read_text())


@pytest.mark.slow
def test_what_it_writes(whole):
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted([*WRITTEN, *(f"probabilities-{name}-0.npy" for name in TWO)])
    content = stored(whole)
    assert [run["network"] for run in content["runs"]] == [REFERENCE, *TWO]
    ensemble = content["summary"]["ensembles"]["0"]
    y, each = load("digits").y_test, []
    for run in content["runs"][1:]:
        probabilities = np.load(whole / f"probabilities-{run['network']}-0.npy")
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
        # They are those of the network that was measured last.
        assert np.mean(probabilities.argmax(1) == y) == pytest.approx(run["accuracy"][-1], abs=1e-5)
        assert run["top_k_error"] == pytest.approx(np.mean(wrong(probabilities, y, 3)), abs=1e-5)
        assert ensemble["top_1"]["members"][run["network"]] == pytest.approx(1 - run["accuracy"][-1], abs=1e-4)
        each.append(probabilities)
    joint = np.mean((each[0] + each[1]).argmax(1) != y)
    assert ensemble["top_1"]["ensemble"] == pytest.approx(joint, abs=1e-4)
    assert not np.allclose(*each)


@pytest.mark.slow
def test_nothing_is_trained_twice_nor_needs_the_probabilities(whole, tmp_path, monkeypatch):
    small(monkeypatch)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("it was trained again"))
    for name in WRITTEN:
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    assert command.main([*TINY, "--out", str(tmp_path)]) == 0
    assert {name: (tmp_path / name).read_bytes() for name in WRITTEN} == {
        name: (whole / name).read_bytes() for name in WRITTEN
    }


@pytest.mark.slow
def test_only_what_is_lost_is_trained_again(whole, tmp_path, monkeypatch):
    """A run without its probabilities and without its ensemble; the others are as they were."""
    small(monkeypatch)
    content = stored(whole)
    content["summary"]["ensembles"] = {}
    (tmp_path / "results.json").write_text(json.dumps(content))
    kept = f"probabilities-{TWO[0]}-0.npy"
    (tmp_path / kept).write_bytes((whole / kept).read_bytes())
    trained = []

    def instead(images, results, run, on_measurement):
        trained.append(run.network)
        assert not run.steps
        vars(run).update(content["runs"][2])
        np.save(results.probabilities(run), np.load(whole / results.probabilities(run).name))

    monkeypatch.setattr(training, "train", instead)
    assert command.main([*TINY, "--out", str(tmp_path)]) == 0
    assert trained == [TWO[1]]
    assert stored(tmp_path)["summary"] == stored(whole)["summary"]


def test_wrong_by_hand():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [np.nan] * 3])
    classes = np.array([0, 1, 2, 0, 0])
    assert wrong(probabilities, classes, 1).tolist() == [False, True, True, True, True]
    assert wrong(probabilities, classes, 2).tolist() == [False, False, True, False, True]


def test_an_ensemble_by_hand():
    """Three images of class 0. Each network is wrong once, and all together are right."""
    right, slip = [0.9, 0.1], [0.4, 0.6]
    each = {"a": [slip, right, right], "b": [right, slip, right], "c": [right, right, slip]}
    found = combine({name: np.array(p) for name, p in each.items()}, np.zeros(3, int), k=1, resamples=500)
    top = found["top_1"]
    assert top["members"] == dict.fromkeys("abc", pytest.approx(1 / 3, abs=1e-4)) and top["ensemble"] == 0
    assert found["best"] == "a" and found["images"] == 3 and found["top_k"] == top
    assert [size["mean"] for size in top["by_size"]] == [pytest.approx(1 / 3, abs=1e-4), 0, 0]
    assert top["to_mean"] == dict.fromkeys(("mean", "low", "high"), pytest.approx(-1 / 3, abs=1e-4))
    # Of three images the one at which `a` is wrong is drawn up to three times.
    assert top["to_best"] == {"mean": pytest.approx(-1 / 3, abs=1e-4), "low": -1.0, "high": 0.0}


def test_intervals_are_those_of_the_normal_distribution_where_there_are_many_images():
    """Paired: two networks that are wrong of the same images differ by nothing, however uncertain their errors are."""
    random = np.random.default_rng(1)
    n = 4000
    hard = random.random(n) < 0.3
    probabilities = np.stack([np.where(hard, 0.2, 0.8), np.where(hard, 0.8, 0.2)], 1)
    other = np.where((random.random(n) < 0.1)[:, None], probabilities[:, ::-1], probabilities)
    classes = np.zeros(n, int)
    same = combine({"a": probabilities, "b": probabilities}, classes, 1)["top_1"]["to_mean"]
    assert same == {"mean": 0.0, "low": 0.0, "high": 0.0}
    found = combine({"a": probabilities, "b": other}, classes, 1)["top_1"]["to_best"]
    sure = np.where(probabilities[:, 0] + other[:, 0] > 1, 0.0, 1.0)  # a tie is wrong
    differences = sure - hard
    margin = 1.96 * differences.std() / np.sqrt(n)
    assert found["mean"] == pytest.approx(differences.mean(), abs=1e-4)
    assert found["high"] - found["low"] == pytest.approx(2 * margin, rel=0.1)


def made_up(folder, ensembles=1):
    settings = Settings("digits", 20, 10, 32, learning_rate=0.03, factor=30.0, larger=2.0, top_k=3)
    results = Results(folder, settings)
    random = np.random.default_rng(0)
    classes = random.integers(0, 10, 200)
    for seed in range(ensembles):
        each = {}
        for i, name in enumerate((REFERENCE, *MEMBERS)):
            if name == "dropout_10":
                results.runs.append(Trained(name, seed, diverged_at=7))
                continue
            logits = random.normal(size=(200, 10)) + (2 + 0.1 * i) * np.eye(10)[classes]
            each[name] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            accuracy = float(np.mean(each[name].argmax(1) == classes))
            run = Trained(name, seed, [10, 20], [0.1, accuracy], [1.0] * 2, [1.0, 2.0])
            run.top_k_error = float(wrong(each[name], classes, 3).mean())
            results.runs.append(run)
        each.pop(REFERENCE)
        results.ensembles[seed] = combine(each, classes, 3)
    return results


def test_report_needs_the_json_only(tmp_path, monkeypatch, capsys):
    figures = []
    monkeypatch.setattr(report.plt, "close", figures.append)
    results = made_up(tmp_path, ensembles=2)
    results.save()
    assert report.main([str(results.path), "--out", str(tmp_path / "report")]) == 0
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["figure.png", "table.md"]
    table = (tmp_path / "report" / "table.md").read_text()
    assert "| dropout 10% | 2, 2 diverged | - | - |" in table and "| ensemble of 5 | 2 | " in table
    errors = [found["top_1"]["ensemble"] for found in results.ensembles.values()]
    assert f"| ensemble of 5 | 2 | {np.mean(errors):.2%} ± {np.std(errors, ddof=1):.2%} |" in table
    assert table.count("| mean of its members |") == 2 and "its best member" in capsys.readouterr().out
    (figure,) = figures
    for ax, error in zip(figure.axes, ("top_1", "top_k"), strict=True):
        labels = ax.get_legend_handles_labels()[1]
        assert len(labels) == len(set(labels)) == 2 + 5 + 1 and "alone: BN-x30, not modified" in labels
        curve = next(line for line in ax.lines if line.get_label().startswith("ensemble 2, mean"))
        assert curve.get_ydata()[-1] == pytest.approx(100 * results.ensembles[1][error]["ensemble"])


def test_before_there_is_an_ensemble_there_is_a_table(tmp_path):
    results = made_up(tmp_path)
    results.ensembles.clear()
    results.save()
    assert report.main([str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "table.md"]


def test_one_network_is_no_ensemble(tmp_path):
    results = made_up(tmp_path)
    results.ensembles.clear()
    results.runs = [run for run in results.runs if run.network in (REFERENCE, "dropout_5", "dropout_10")]
    training.evaluate(load("digits"), results, 0)
    assert results.ensembles == {} and not results.path.exists()


def test_a_report_before_a_training_has_ended_is_refused(tmp_path, capsys):
    results = made_up(tmp_path)
    results.runs.clear()
    results.save()
    assert report.main([str(tmp_path)]) == 2
    assert "No training of" in capsys.readouterr().err
