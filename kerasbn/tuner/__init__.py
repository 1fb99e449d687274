"""Keras Tuner for trainings that may diverge, as they do where the largest learning rate is sought.

Not imported by `kerasbn` itself, so that Keras Tuner is needed by none but those who tune.
"""

try:
    import keras_tuner  # noqa: F401
    import tensorboard  # noqa: F401  # Keras Tuner imports it in every trial, but does not declare it.
except ImportError as error:
    raise ImportError(
        f'kerasbn.tuner needs Keras Tuner and TensorBoard. Received: "{error}". '
        'Install them with `pip install "kerasbn[tuning]"`.'
    ) from error

from kerasbn.callbacks import StopOnDivergence
from kerasbn.tuner.higher_learning_rate import HigherLearningRate
from kerasbn.tuner.largest_stable import LargestStable, StableRates, largest_stable_learning_rate
from kerasbn.tuner.objectives import AreaUnderCurve, FinalValue, StepsToTarget
from kerasbn.tuner.tuners import BayesianOptimization, DivergenceAware, GridSearch, Hyperband, RandomSearch

__all__ = [
    "AreaUnderCurve",
    "BayesianOptimization",
    "DivergenceAware",
    "FinalValue",
    "GridSearch",
    "HigherLearningRate",
    "Hyperband",
    "LargestStable",
    "RandomSearch",
    "StableRates",
    "StepsToTarget",
    "StopOnDivergence",
    "largest_stable_learning_rate",
]
