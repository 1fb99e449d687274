"""The tuner of a study: seeds that repeat, and how far it is."""

from collections.abc import Callable
from typing import Any

import keras
import keras_tuner

from benchmarks.progress import Progress
from kerasbn.learning_rate_sweep import batches
from kerasbn.tuner import DivergenceAware, HigherLearningRate
from tuning.space import BATCH_SIZE, Data


class Tuner(DivergenceAware, keras_tuner.Tuner):
    """Runs the trials of a study.

    Execution `s` of each trial has seed `s`: what a trial gives depends on its hyperparameters only, whether the study
    was interrupted or not.

    Args:
        on_trial: Function that is told the identifier of each trial that has ended.
        **kwargs: Those of `kerasbn.tuner.DivergenceAware`.
    """

    hypermodel: Any

    def __init__(self, *, on_trial: Callable[[str], None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._on_trial = on_trial

    def on_trial_begin(self, trial: Any) -> None:
        super().on_trial_begin(trial)
        self.hypermodel.seed = 0

    def on_trial_end(self, trial: Any) -> None:
        super().on_trial_end(trial)
        self._on_trial(trial.trial_id)


class Seeded(HigherLearningRate):
    """`HigherLearningRate`, each training of a trial with a seed of its own, for its weights and its batches."""

    seed = 0

    def build(self, hp: Any) -> keras.Model:
        keras.utils.set_random_seed(self.seed)
        return super().build(hp)

    def fit(self, hp: Any, model: keras.Model, data: Data, **kwargs: Any) -> Any:
        # Not the one that saves weights: nobody reads them, and on a full disk HDF5 ends the process.
        kwargs["callbacks"] = [each for each in kwargs.get("callbacks") or [] if not hasattr(each, "filepath")]
        feed = batches((data.x, data.y), hp.values.get("batch_size", BATCH_SIZE), self.seed)
        self.seed += 1
        return super().fit(hp, model, feed, **kwargs)


class ShowSteps(keras.callbacks.Callback):
    """Tells of each training step. One for all trainings, each of which would be given a copy.

    Args:
        progress: The progress of the study, whose unit is a trial.
        seeds: How many trainings a trial has.
        steps: How many steps a training has.
    """

    def __init__(self, progress: Progress, seeds: int, steps: int) -> None:
        super().__init__()
        self._progress, self._part, self._steps, self._done = progress, 1 / (seeds * steps), steps, 0

    def __deepcopy__(self, memo: Any) -> "ShowSteps":
        return self

    def on_train_begin(self, logs: Any = None) -> None:
        self._done = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._done += 1
        self._progress.add(self._part)

    def on_train_end(self, logs: Any = None) -> None:
        self._progress.add(self._part * (self._steps - self._done))  # those that a divergence saved
