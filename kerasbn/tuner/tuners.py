"""The tuners of Keras Tuner, for which a divergence is a result."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from kerasbn.callbacks import StopOnDivergence
from kerasbn.files import whole
from kerasbn.tuner.objectives import Curve, CurveObjective, aligned

EXECUTIONS = "executions.json"


class DivergenceAware:
    """Mixin that makes a divergence a result for any tuner of Keras Tuner, not a failure and not a success.

    Keras Tuner scores a trial by its best epoch, which a training that diverges later may well have had; it fails one
    that gives NaN, and ends the search after three of them; and an infinite loss is 0 for its Bayesian oracle, perfect.
    Here each training is watched by `StopOnDivergence`, and the score of a trial is

        mean over executions of what the objective measures         if none diverged,
        worst - span / (1 + mean over executions of steps made)     if one or more did, span = |worst| or 1,

    with a plus if the objective is minimized. So it is finite, worse than that of any trial that did not diverge, and
    better the longer it lasted. The trial is completed, and marked:

    - its metrics have `diverged`, the share of executions that did, `steps`, the mean of how many were made,
      `<objective>_spread`, the standard deviation over executions, and the means of what the last epochs reported;
    - its `message` says at which steps;
    - `executions.json` in its directory has the curve of each execution, for pictures.

    An objective of `kerasbn.tuner` is measured on the curve; any other, a name or a `keras_tuner.Objective`, is the
    best epoch's, as in Keras Tuner. What `HyperModel.fit` returns without `History` counts as diverged after 0 steps if
    it is not finite. A `FloatingPointError` is a divergence of the trial, whose other executions are not made:
    `kerasbn.callbacks.LearningRateAcceleration` raises it if lowering the rate did not help.

    Any other error in building or training ends the search at once, with its trace: the trial is run again when the
    search is resumed. Left to Keras Tuner, as a failure of the one trial, are `keras_tuner.errors.FailedTrialError`,
    which a `build` may raise, and a lack of memory.

    `load_model` refuses a trial that diverged. `Hyperband` does not go on with one: it diverged, is the result.

    Args:
        *args: Those of the tuner.
        explosion: As for `StopOnDivergence`.
        normal_loss: As for `StopOnDivergence`.
        worst: Float, the worst value of the objective that a training can have without having diverged: one that is
            worse counts as this. `None` for the one that the objective knows; otherwise 0, as for accuracies, if it is
            maximized.
        **kwargs: Those of the tuner. `executions_per_trial` is the number of seeds.

    Raises:
        ValueError: If an argument is out of its range; if `worst` is needed: for a loss; if there are several
            objectives.

    Example:
    >>> import tempfile
    >>> import keras, numpy as np
    >>> def build(hp):
    ...     model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    ...     model.compile(keras.optimizers.SGD(hp.Choice("rate", [0.1, 1e9])), "mse")
    ...     return model
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     tuner = GridSearch(build, objective="loss", worst=10.0, directory=directory)
    ...     tuner.search(np.ones((64, 1)), np.ones((64, 1)), batch_size=1, verbose=0)
    >>> for trial in tuner.oracle.get_best_trials(2):
    ...     print(trial.hyperparameters.values, trial.score < 10, trial.message)
    {'rate': 0.1} True None
    {'rate': 1000000000.0} False Diverged at step 2.

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 4.2.2.
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 3, on why
        networks without it diverge at high learning rates.
    """

    def __init__(
        self,
        *args: Any,
        explosion: float = 10.0,
        normal_loss: float | None = None,
        worst: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes the tuner; see the class."""
        self._stop = _Watch(explosion, normal_loss)
        super().__init__(*args, **kwargs)
        self.worst = _worst(self.oracle.objective, worst)

    oracle: Any

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trains, and gives the metrics of the trial, the score under the name of the objective."""
        begun = trial.hyperparameters.values.get("tuner/trial_id")  # Hyperband goes on where that trial ended.
        if begun is not None and _diverged(self.oracle.get_trial(begun)):
            trial.message = f"It would go on from trial {begun}, which diverged."
            metrics = self.oracle.get_trial(begun).metrics
            return {name: metrics.get_last_value(name) for name in metrics.metrics}
        kwargs["callbacks"] = [*(kwargs.get("callbacks") or []), self._stop]
        try:
            try:
                results = super().run_trial(trial, *args, **kwargs)  # type: ignore[misc]
            except FloatingPointError:  # as of a `LearningRateAcceleration` that lowered the rate in vain
                results = {"steps": self._stop.steps, "diverged": 1.0}
            return self._judged(trial, results if isinstance(results, list) else [results])
        except (keras_tuner.errors.FatalError, keras_tuner.errors.FailedTrialError, tf.errors.ResourceExhaustedError):
            raise
        except Exception as error:
            raise keras_tuner.errors.FatalRuntimeError(
                f"Trial {trial.trial_id} met an error that is no divergence, so the search ends: "
                f"{type(error).__name__}: {error}. Its cause is above. Once that is fixed, search again in the same "
                "directory, which goes on with this trial."
            ) from error

    def load_model(self, trial: Any) -> Any:
        """The model of a trial, with the weights that it was saved with.

        Raises:
            ValueError: If the trial diverged.
        """
        if _diverged(trial):
            raise ValueError(
                f"The trial must have a model that was trained. Received: trial {trial.trial_id}. {trial.message} "
                "Take a trial with a lower learning rate."
            )
        return super().load_model(trial)  # type: ignore[misc]

    def _judged(self, trial: Any, results: list[Any]) -> dict[str, float]:
        objective = self.oracle.objective
        curves = [_curve(result, objective.name) for result in results]
        last = [{name: values[-1] for name, values in curve.items() if values} for curve in curves]
        metrics = {name: statistics.fmean(each.get(name, math.nan) for each in last) for name in last[0]}
        metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        ends = [int(each["steps"]) for each in last if each["diverged"]]
        if ends:
            trial.message = _message(ends, len(curves))
            span = (abs(self.worst) or 1.0) / (1 + metrics["steps"])
            metrics[objective.name] = self.worst - span if objective.direction == "max" else self.worst + span
        else:
            trial.message = None
            worse = min if objective.direction == "min" else max
            scores = [worse(_measured(curve, objective), self.worst) for curve in curves]
            metrics[objective.name] = statistics.fmean(scores)
            metrics[f"{objective.name}_spread"] = statistics.stdev(scores) if len(scores) > 1 else 0.0
        _write(Path(self.get_trial_dir(trial.trial_id), EXECUTIONS), curves)  # type: ignore[attr-defined]
        return metrics


class _Watch(StopOnDivergence):
    """One for all executions, each of which Keras Tuner would give a copy: what it saw is read afterwards."""

    def __deepcopy__(self, memo: Any) -> "_Watch":
        return self


class RandomSearch(DivergenceAware, keras_tuner.RandomSearch):
    """`keras_tuner.RandomSearch`, for which a divergence is a result; see `DivergenceAware`."""


class BayesianOptimization(DivergenceAware, keras_tuner.BayesianOptimization):
    """`keras_tuner.BayesianOptimization`, for which a divergence is a result; see `DivergenceAware`."""


class Hyperband(DivergenceAware, keras_tuner.Hyperband):
    """`keras_tuner.Hyperband`, for which a divergence is a result; see `DivergenceAware`."""


class GridSearch(DivergenceAware, keras_tuner.GridSearch):
    """`keras_tuner.GridSearch`, for which a divergence is a result; see `DivergenceAware`.

    It cannot be resumed: Keras Tuner does not save in which order it goes over its grid.
    """


def _worst(objective: Any, given: float | None) -> float:
    if objective.name == "multi_objective":
        raise ValueError(
            "Argument `objective` must be one: what several are worth together after a divergence is not known. "
            f"Received: objective={objective}. Give the sum as one metric."
        )
    if given is None:
        given = getattr(objective, "worst", None)
    if given is None and objective.direction == "max":
        given = 0.0
    if given is None or not math.isfinite(given):
        raise ValueError(
            "Argument `worst` must be a finite number if the objective is minimized: a divergence counts as worse "
            f"than it, and a loss has no bound of its own. Received: worst={given!r} with {objective}. "
            "Give the largest value that is worth telling from others, such as twice the loss without training."
        )
    return float(given)


def _diverged(trial: Any) -> bool:
    return trial.metrics.exists("diverged") and trial.metrics.get_last_value("diverged") > 0


def _curve(result: Any, name: str) -> dict[str, list[float]]:
    """The values of each epoch, from all that `HyperModel.fit` may return."""
    if isinstance(result, keras.callbacks.History):
        curve = result.history
    elif isinstance(result, dict):
        curve = {key: [value] for key, value in result.items()}
    else:
        curve = {name: [result]}
    # A metric that is an array, as F1Score of each class, is no curve.
    curve = {key: [float(value) for value in values] for key, values in curve.items() if np.ndim(values) == 1}
    if "diverged" not in curve:
        finite = all(math.isfinite(value) for values in curve.values() for value in values)
        curve |= {"steps": [0.0], "diverged": [float(not finite)]}
    return curve


def _measured(curve: Curve, objective: Any) -> float:
    if isinstance(objective, CurveObjective):
        return objective.measure(curve)
    best = max if objective.direction == "max" else min
    return best(*aligned(curve, objective.name))


def _message(ends: list[int], executions: int) -> str:
    steps = f"step{'s' if len(ends) > 1 else ''} {', '.join(map(str, ends))}"
    if executions == 1:
        return f"Diverged at {steps}."
    return f"{len(ends)} of {executions} executions diverged, at {steps}."


def _write(path: Path, curves: list[dict[str, list[float]]]) -> None:
    """Writes all or nothing, as the process may be killed. What is not finite becomes null, as JSON has no NaN."""
    finite = [
        {name: [value if math.isfinite(value) else None for value in values] for name, values in curve.items()}
        for curve in curves
    ]
    with whole(path) as part:
        part.write_text(json.dumps(finite, indent=1))
