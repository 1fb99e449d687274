"""The state that an example's training is resumed with."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest

from examples.checkpoint import Checkpoint
from examples.results import Results, Run
from kerasbn.snapshot import training_state

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


@dataclass(frozen=True)
class Settings:
    steps: int = 8


class Experiment(Results):
    experiment = "none"
    settings_class, run_class = Settings, Run

    def summary(self):
        return {}


def network(seed=0):
    """With all that a training changes: weights, moving statistics, a seed, momenta, a counter."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse")
    return model


def fit(model):
    return model.fit(X, X[:, :1], batch_size=4, shuffle=False, verbose=0).history["loss"]


def state(model):
    return [np.array(v) for v in training_state(model)]


@pytest.fixture
def measured(tmp_path):
    """A network after its first measurement, and the results with it."""
    results = Experiment(tmp_path, Settings())
    run = results.run("plain", 0)
    model = network()
    fit(model)
    run.steps, run.accuracy = [4], [0.5]
    Checkpoint(results, run).save(model)
    return results, model


def test_resumed_goes_on_as_if_it_had_not_stopped(tmp_path, measured):
    _, model = measured
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain-0-1.npz", "results.json"]
    found = Experiment.open(tmp_path, Settings())  # as a new process would
    other = network(seed=1)
    assert Checkpoint(found, found.run("plain", 0)).restore(other)
    assert fit(other) == fit(model)
    for mine, expected in zip(state(other), state(model), strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("broken", ["gone", "empty", "cut", "text", "of another network"])
def test_what_cannot_be_restored_changes_nothing(tmp_path, measured, broken):
    results, _ = measured
    path = tmp_path / "plain-0-1.npz"
    content = path.read_bytes()
    if broken == "of another network":
        with np.load(path) as found:
            others = [value[:1] if value.ndim else value for value in found.values()]
        np.savez(path, *others)
    else:
        path.write_bytes({"gone": b"", "empty": b"", "cut": content[: len(content) // 2], "text": b"weights"}[broken])
    if broken == "gone":
        path.unlink()
    other = network(seed=1)
    before = state(other)
    assert not Checkpoint(results, results.run("plain", 0)).restore(other)
    for mine, expected in zip(state(other), before, strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_a_kill_between_state_and_results_loses_one_stretch(tmp_path, measured, monkeypatch):
    results, model = measured
    at_first = state(model)
    fit(model)
    run = results.run("plain", 0)
    run.steps, run.accuracy = [4, 6], [0.5, 0.6]
    monkeypatch.setattr(Experiment, "save", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Checkpoint(results, run).save(model)
    found = Experiment.open(tmp_path, Settings())
    assert found.run("plain", 0).steps == [4]
    other = network(seed=1)
    assert Checkpoint(found, found.run("plain", 0)).restore(other)
    for mine, expected in zip(state(other), at_first, strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_a_run_that_has_ended_leaves_no_state(tmp_path, measured):
    results, model = measured
    run = results.run("plain", 0)
    run.steps, run.accuracy = [4, 8], [0.5, 0.6]
    Checkpoint(results, run).save(model)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
