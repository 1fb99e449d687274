"""`kerasbn.tuner`: a divergence is a result for every oracle; an error is not."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn

keras_tuner = pytest.importorskip("keras_tuner")
pytest.importorskip("tensorboard")

from kerasbn import tuner  # noqa: E402
from kerasbn.tuner import tuners  # noqa: E402

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = np.arange(32) % 2  # which X does not tell: a network with huge weights is wrong in every batch
DEADLY = 1e30
FIT = {"x": X, "y": Y, "validation_data": (X, Y), "batch_size": 4, "epochs": 2, "verbose": 0, "shuffle": False}
ALL = [tuner.RandomSearch, tuner.BayesianOptimization, tuner.Hyperband, tuner.GridSearch]


def network(rate, **compiled):
    dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(0))
    model = keras.Sequential([keras.Input((4,)), dense])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"], **compiled)
    return model


def mixed(hp):
    return network(hp.Choice("rate", [0.1, DEADLY]))


def deadly(hp):
    return network(DEADLY * hp.Choice("times", [1.0, 2.0, 3.0, 4.0]))


def make(kind, build, directory, objective="val_accuracy", trials=3, **arguments):
    count = {"max_epochs": 3} if kind is tuner.Hyperband else {"max_trials": trials}
    if kind is tuner.BayesianOptimization:
        count["num_initial_points"] = 2  # the others are chosen from the scores
    return kind(build, objective, directory=directory, seed=0, **count, **arguments)


def searched(kind, build, directory, fit=FIT, **arguments):
    search = make(kind, build, directory, **arguments)
    search.search(**fit)
    return search


def trials(search):
    return list(search.oracle.trials.values())


def metric(trial, name):
    return trial.metrics.get_last_value(name)


@pytest.mark.filterwarnings("ignore:The optimal value found")  # by scikit-learn, for the few trials of Bayes
@pytest.mark.parametrize("kind", ALL)
def test_all_diverge_and_the_search_goes_on(kind, tmp_path):
    """More in a row than Keras Tuner allows failures; and Hyperband would load a checkpoint that there is not."""
    search = searched(kind, deadly, tmp_path, max_consecutive_failed_trials=1)
    assert len(trials(search)) >= 3
    for trial in trials(search):
        assert trial.status == "COMPLETED" and -1 <= trial.score < 0
        assert "diverged" in trial.message.lower()
        assert metric(trial, "diverged") == 1 and 2 <= metric(trial, "steps") <= 3
    with pytest.raises(ValueError, match=r"trial \d+\. Diverged at step [23]\.") as refused:
        search.get_best_models(len(trials(search)))
    assert "lower learning rate" in str(refused.value)


@pytest.mark.parametrize("kind", [tuner.GridSearch, tuner.Hyperband])
def test_healthy_is_better(kind, tmp_path):
    search = searched(kind, mixed, tmp_path)
    best, *_, worst = search.oracle.get_best_trials(len(trials(search)))
    assert best.hyperparameters.get("rate") == 0.1 and 0.4 < best.score <= 1 and best.message is None
    assert worst.hyperparameters.get("rate") == DEADLY and worst.score < 0
    assert metric(best, "diverged") == 0 and metric(best, "steps") in (8, 16, 24)
    assert search.get_best_models()[0].count_params() == 10


def test_the_longer_it_lasts_the_better(tmp_path):
    """Of a loss, which is minimized, so the penalties are above the worst healthy value."""

    def build(hp):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
        model.compile(keras.optimizers.SGD(hp.Choice("rate", [0.01, 1.0, 3.0])), "mse")
        return model

    search = searched(tuner.GridSearch, build, tmp_path, objective="val_loss", worst=20.0)
    by_rate = sorted(trials(search), key=lambda trial: trial.hyperparameters.get("rate"))
    healthy, *dead = by_rate
    assert healthy.score < 20 and not metric(healthy, "diverged")
    lasted = [metric(trial, "steps") for trial in dead]
    assert lasted[0] > lasted[1] > 1
    assert 20 < dead[0].score < dead[1].score < 40


def test_the_best_epoch_of_a_training_that_dies_does_not_count(tmp_path):
    """Keras Tuner itself makes it a success: that is what this guards against."""
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: DEADLY if epoch else rate)
    fit = FIT | {"callbacks": [schedule]}
    theirs = keras_tuner.RandomSearch(lambda hp: network(0.1), "val_accuracy", 1, directory=tmp_path / "theirs")
    theirs.search(**fit)
    assert trials(theirs)[0].score > 0.4
    ours = searched(tuner.RandomSearch, lambda hp: network(0.1), tmp_path / "ours", fit, trials=1)
    (trial,) = trials(ours)
    assert trial.score < 0 and trial.message == f"Diverged at step {metric(trial, 'steps'):.0f}."
    assert 9 <= metric(trial, "steps") <= 11
    assert fit["callbacks"] == [schedule]


def test_several_executions(tmp_path):
    rates = itertools.chain([0.1], itertools.cycle([0.1, 0.01, 0.001]))  # the first is to find the hyperparameters
    objective = tuner.AreaUnderCurve()
    search = make(
        tuner.RandomSearch, lambda hp: network(next(rates)), tmp_path, objective, trials=1, executions_per_trial=3
    )
    search.search(**FIT)
    (trial,) = trials(search)
    curves = json.loads((Path(search.get_trial_dir(trial.trial_id)) / "executions.json").read_text())
    scores = [objective.measure(curve) for curve in curves]
    assert len(set(scores)) == 3 and [curve["steps"] for curve in curves] == [[8, 16]] * 3
    assert trial.score == pytest.approx(np.mean(scores))
    assert metric(trial, "area_under_curve_spread") == pytest.approx(np.std(scores, ddof=1))
    assert metric(trial, "val_loss") == pytest.approx(np.mean([curve["val_loss"][-1] for curve in curves]))


def test_one_execution_of_several_diverges(tmp_path):
    rates = itertools.chain([0.1], itertools.cycle([0.1, math.inf]))
    search = searched(tuner.RandomSearch, lambda hp: network(next(rates)), tmp_path, trials=1, executions_per_trial=2)
    (trial,) = trials(search)
    assert metric(trial, "diverged") == 0.5 and metric(trial, "steps") == (16 + 2) / 2
    assert trial.score == pytest.approx(-1 / (1 + metric(trial, "steps")))
    assert trial.message == "1 of 2 executions diverged, at step 2."

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (Path(search.get_trial_dir(trial.trial_id)) / "executions.json").read_text()
    healthy, dead = json.loads(text, parse_constant=refuse)
    assert dead["loss"] == [None] and None not in healthy["loss"]


def test_an_error_ends_the_search_and_the_trial_is_run_when_it_goes_on(tmp_path):
    broken = [False, False, True]  # when it is first built, in the first trial, in the second

    def build(hp):
        hp.Choice("rate", [0.1, 0.2, 0.3])
        if broken and broken.pop(0):
            raise KeyError("a mistake of mine")
        return network(0.1)

    with pytest.raises(keras_tuner.errors.FatalRuntimeError, match="KeyError: 'a mistake of mine'") as ended:
        searched(tuner.RandomSearch, build, tmp_path, trials=3)
    assert isinstance(ended.value.__cause__, KeyError) and ended.value.__cause__.__traceback__ is not None

    search = searched(tuner.RandomSearch, build, tmp_path, trials=3)
    assert [trial.status for trial in trials(search)] == ["COMPLETED"] * 3
    assert sorted(trial.hyperparameters.get("rate") for trial in trials(search)) == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    "error", [keras_tuner.errors.FailedTrialError("too large"), tf.errors.ResourceExhaustedError(None, None, "full")]
)
def test_a_failed_trial_is_left_to_keras_tuner(error, tmp_path):
    broken = [False, True]

    def build(hp):
        hp.Choice("rate", [0.1, 0.2])
        if broken and broken.pop(0):
            raise error
        return network(0.1)

    search = searched(tuner.GridSearch, build, tmp_path, trials=2)
    assert sorted(trial.status for trial in trials(search)) == ["COMPLETED", "FAILED"]


def test_a_rate_that_is_lowered_in_vain_is_a_divergence(tmp_path):
    class Lowering(keras_tuner.HyperModel):
        def build(self, hp):
            return mixed(hp)

        def fit(self, hp, model, *args, callbacks=(), **kwargs):
            backoff = kerasbn.callbacks.LearningRateAcceleration(2.0, on_divergence="backoff", max_backoffs=0)
            return model.fit(*args, callbacks=[*callbacks, backoff], **kwargs)

    search = searched(tuner.GridSearch, Lowering(), tmp_path, trials=2, executions_per_trial=2)
    healthy, lowered = sorted(trials(search), key=lambda trial: trial.hyperparameters.get("rate"))
    assert healthy.score > 0 and metric(healthy, "diverged") == 0
    assert lowered.status == "COMPLETED" and lowered.score < 0 and metric(lowered, "diverged") == 1
    assert lowered.message == f"Diverged at step {int(metric(lowered, 'steps'))}." and metric(lowered, "steps") > 0


@pytest.mark.parametrize("result", [math.nan, math.inf, {"score": math.nan}, {"score": 3.0}, 3.0])
def test_results_without_history(result, tmp_path):
    class Model(keras_tuner.HyperModel):
        def build(self, hp):
            return network(0.1)

        def fit(self, hp, model, *args, **kwargs):
            return result

    objective = keras_tuner.Objective("score", "min")
    search = searched(tuner.RandomSearch, Model(), tmp_path, objective=objective, trials=1, worst=10)
    healthy = result in (3.0, {"score": 3.0})
    assert trials(search)[0].score == (3 if healthy else 20)
    assert metric(trials(search)[0], "diverged") == (not healthy)


def test_a_healthy_value_beyond_the_worst_counts_as_the_worst(tmp_path):
    search = searched(tuner.RandomSearch, mixed, tmp_path, objective="val_loss", worst=1e-3, trials=2)
    assert sorted(trial.score for trial in trials(search))[0] == 1e-3 < max(trial.score for trial in trials(search))


@pytest.mark.parametrize(
    ("objective", "arguments", "message"),
    [
        ("val_loss", {}, r"`worst`.*worst=None.*val_loss"),
        ("val_loss", {"worst": math.inf}, "`worst`.*worst=inf"),
        (["val_loss", "val_accuracy"], {}, r"`objective` must be one.*val_loss.*Give the sum"),
        ("val_accuracy", {"explosion": 0}, "`explosion`.*explosion=0"),
        ("val_accuracy", {"normal_loss": -1}, "`normal_loss`.*normal_loss=-1"),
    ],
)
def test_arguments(objective, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tuner.RandomSearch, mixed, tmp_path, objective, **arguments)


@pytest.mark.parametrize(
    ("objective", "fit", "message"),
    [
        ("val_accuracy", {"validation_data": None}, "needs 'val_accuracy'.*'accuracy', 'diverged', 'loss', 'steps'"),
        (tuner.FinalValue("val_recall"), {}, "needs 'val_recall'.*validation data"),
        (tuner.StepsToTarget(0.5, 10), {"validation_freq": 2}, r"'val_accuracy' in every epoch.*'val_accuracy': 1"),
    ],
)
def test_an_objective_that_is_not_reported_ends_the_search(objective, fit, message, tmp_path):
    with pytest.raises(keras_tuner.errors.FatalRuntimeError, match=message):
        searched(tuner.RandomSearch, lambda hp: network(0.1), tmp_path, FIT | fit, objective=objective, trials=1)


def test_steps_to_a_target_in_a_search(tmp_path):
    objective = tuner.StepsToTarget(0.0, budget=100)  # reached in the first epoch
    search = searched(tuner.GridSearch, mixed, tmp_path, objective=objective)
    assert sorted(trial.score for trial in trials(search))[0] == 8
    assert 100 < max(trial.score for trial in trials(search)) <= 200


def curve(**values):
    return {"steps": [10, 20, 40], "val_accuracy": [0.2, 0.8, 0.6], "val_loss": [2.0, 0.5, 1.0], **values}


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (tuner.StepsToTarget(0.7, 100), 20),
        (tuner.StepsToTarget(0.8, 100), 20),
        (tuner.StepsToTarget(0.81, 100), 100),
        (tuner.StepsToTarget(0.7, 15), 15),
        (tuner.StepsToTarget(1.5, 100, "val_loss", "min"), 20),
        (tuner.AreaUnderCurve(), (0.2 * 10 + 0.8 * 10 + 0.6 * 20) / 40),
        (tuner.AreaUnderCurve("val_loss", "min"), (2.0 * 10 + 0.5 * 10 + 1.0 * 20) / 40),
        (tuner.FinalValue(), 0.6),
        (tuner.FinalValue(last=2), 0.7),
        (tuner.FinalValue("val_loss", "min", last=9), 3.5 / 3),
    ],
)
def test_objectives(objective, expected):
    assert objective.measure(curve()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tuner.StepsToTarget(0.5, 0), "`budget`.*budget=0"),
        (lambda: tuner.StepsToTarget(0.5, 10, mode="up"), "`mode` must be one of 'max', 'min'.*mode='up'"),
        (lambda: tuner.AreaUnderCurve(mode="up"), "`mode`.*mode='up'"),
        (lambda: tuner.FinalValue(last=0), "`last`.*last=0"),
    ],
)
def test_objectives_check_their_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_training_stops_within_the_execution(steps_per_execution):
    stop = tuner.StopOnDivergence(normal_loss=math.log(2))
    model = network(DEADLY, steps_per_execution=steps_per_execution)
    history = model.fit(**FIT, callbacks=[stop]).history
    assert stop.diverged and stop.steps <= 3
    assert history["steps"] == [stop.steps] and history["diverged"] == [1.0]


def test_a_divergence_in_the_last_step_shows_in_the_validation():
    stop = tuner.StopOnDivergence()
    history = network(math.inf).fit(**FIT | {"batch_size": 32, "epochs": 5}, callbacks=[stop]).history
    assert math.isfinite(history["loss"][0]) and math.isnan(history["val_loss"][0])
    assert stop.steps == 1 and history["diverged"] == [1.0]


def test_a_healthy_training_is_left_alone_and_counted():
    """From an epoch on, too; and a callback that saw a divergence begins anew."""
    stop = tuner.StopOnDivergence()
    network(DEADLY).fit(**FIT, callbacks=[stop])
    assert stop.diverged
    model = network(0.1)
    assert model.fit(**FIT, callbacks=[stop]).history["steps"] == [8, 16]
    history = model.fit(**FIT | {"epochs": 5}, initial_epoch=3, callbacks=[stop]).history
    assert history["steps"] == [32, 40] and history["diverged"] == [0.0, 0.0]


def test_what_an_explosion_is():
    def stops(losses, **arguments):
        stop = tuner.StopOnDivergence(**arguments)
        stop.set_model(network(0.1))
        stop.set_params({"steps": 9})
        stop.on_train_begin()
        stop.on_epoch_begin(0)
        for batch, loss in enumerate(losses):
            stop.on_train_batch_end(batch, {"loss": loss})
            if stop.diverged:
                return batch
        return None

    assert stops([1, 11, 11.1]) == 2
    assert stops([-1, 9, 9.1]) == 2
    assert stops([0, 1, 12]) == 2
    assert stops([0.0, 0.0, math.nan]) == 2
    assert stops([1, 3, 3.1], explosion=2) == 2
    assert stops([100, 99], normal_loss=1) == 0
    assert stops([5, 4, 3]) is None


def test_only_the_tuner_needs_keras_tuner():
    program = "import sys; sys.modules['keras_tuner'] = None; import kerasbn; print('fine'); import kerasbn.tuner"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "fine\n" and done.returncode == 1
    assert 'pip install "kerasbn[tuning]"' in done.stderr


def test_metrics_that_are_arrays():
    """One number a class: finite or not, but no curve."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.F1Score()])
    x, y = np.ones((8, 3), "float32"), np.eye(2, dtype="float32")[[0, 1] * 4]
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[tuner.StopOnDivergence()])
    assert history.history["diverged"] == [0, 0] and np.shape(history.history["f1_score"]) == (2, 2)
    curve = tuners._curve(history, "loss")
    assert set(curve) == {"loss", "steps", "diverged"} and curve["loss"] == history.history["loss"]
