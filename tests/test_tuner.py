"""`kerasbn.tuner`: a divergence is a result for every oracle; an error is not."""

import inspect
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

keras_tuner = pytest.importorskip("keras_tuner")
pytest.importorskip("tensorboard")

from kerasbn import tuner

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int32")
DEADLY = 1e30
FIT = {"x": X, "y": Y, "validation_data": (X, Y), "batch_size": 4, "epochs": 2, "verbose": 0}


def network(rate, seed=0, **compiled):
    dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(seed))
    model = keras.Sequential([keras.Input((4,)), dense])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"], **compiled)
    return model


def mixed(hp):
    return network(hp.Choice("rate", [0.1, DEADLY]))


def always_deadly(hp):
    return network(DEADLY * hp.Float("times", 1, 2))


def make(kind, build, directory, objective="val_accuracy", trials=6, **arguments):
    count = {"max_epochs": 3} if kind is tuner.Hyperband else {"max_trials": trials}
    return kind(build, objective, directory=directory, seed=0, **count, **arguments)


def trials(search):
    return list(search.oracle.trials.values())


def diverged(trial):
    return trial.metrics.get_last_value("diverged") > 0


ALL = [tuner.RandomSearch, tuner.BayesianOptimization, tuner.Hyperband, tuner.GridSearch]


@pytest.mark.parametrize("kind", ALL)
def test_all_diverge_and_the_search_goes_on(kind, tmp_path):
    """More in a row than Keras Tuner allows failures; Hyperband would load a checkpoint that there is not."""
    search = make(kind, always_deadly, tmp_path, max_consecutive_failed_trials=1)
    search.search(**FIT)
    assert len(trials(search)) >= 5
    for trial in trials(search):
        assert trial.status == "COMPLETED" and math.isfinite(trial.score) and -1 <= trial.score < 0
        assert "iverged" in trial.message
        assert trial.metrics.get_last_value("steps") <= 3
    with pytest.raises(ValueError, match=r"trial 0000.* Diverged at step \d"):
        search.load_model(trials(search)[0]) if kind is not tuner.Hyperband else search.load_model(trial_of(search))


def trial_of(search):
    trial = trials(search)[0]
    trial.trial_id = "0000"
    return trial


@pytest.mark.parametrize("kind", [tuner.GridSearch, tuner.Hyperband])
def test_healthy_beats_diverged(kind, tmp_path):
    search = make(kind, mixed, tmp_path)
    search.search(**FIT)
    best, *_, worst = search.oracle.get_best_trials(len(trials(search)))
    assert best.hyperparameters.get("rate") == 0.1 and best.score > 0.4 and best.message is None
    assert worst.hyperparameters.get("rate") == DEADLY and worst.score < 0
    assert best.metrics.get_last_value("diverged") == 0 and best.metrics.get_last_value("steps") == 8 * 2
    assert search.get_best_models()[0].count_params() == 10
