"""The oracles of a study: Keras Tuner's, whose file survives a kill, and one that spreads the trials evenly."""

import json
from pathlib import Path
from typing import Any

import keras_tuner
from scipy.stats import qmc

from benchmarks.report import write_whole

ARM, RATE = "kerasbn/arm", "kerasbn/learning_rate_factor"


class _WholeFile:
    """Makes an oracle write its file all or nothing, as the process may be killed at any time.

    Args:
        file: What Keras Tuner reads when it goes on: `oracle.json` in the directory of the project.
        **kwargs: Those of the oracle.
    """

    def __init__(self, *, file: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._file = file

    def save(self) -> None:
        write_whole(self._file, json.dumps(self.get_state()).encode())  # type: ignore[attr-defined]


class Random(_WholeFile, keras_tuner.oracles.RandomSearchOracle):
    """Draws all hyperparameters at random."""


class Bayesian(_WholeFile, keras_tuner.oracles.BayesianOptimizationOracle):
    """Goes where it expects the best, by a Gaussian process."""


class Even(Random):
    """Gives each arm the same learning rates, evenly spread however many trials there are; the rest is random.

    The rates are van der Corput's sequence, on a logarithmic scale.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        response = super().populate_space(trial_id)
        if response["values"] is not None:
            searched = {each.name: each for each in self.get_space().space}
            number, arm = divmod(int(trial_id), len(searched[ARM].values))
            response["values"][ARM] = searched[ARM].values[arm]
            if RATE in searched:
                (point,) = qmc.Halton(1, scramble=False).random(number + 1)[-1]
                response["values"][RATE] = searched[RATE].prob_to_value(float(point))
        return response


#: Hyperband, which ends trainings early, and grid search, which Keras Tuner cannot resume, are not among them.
ORACLES: dict[str, Any] = {"even": Even, "random": Random, "bayesian": Bayesian}
