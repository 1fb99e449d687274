"""A study for TensorBoard: its HParams page shows the trials, its scalars the curves."""

from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.hparams import api

from tuning.results import METRIC, Study, Trial


def write(study: Study, folder: Path) -> None:
    """Writes a run for each training: ``tensorboard --logdir FOLDER``.

    What diverged has the accuracies that it had, and `diverged` 1.
    """
    metrics = [api.Metric(METRIC, display_name="accuracy"), api.Metric("diverged", display_name="diverged")]
    hyperparameters = {name: api.HParam(name) for trial in study.trials for name in _values(study, trial)}
    with tf.summary.create_file_writer(str(folder)).as_default():
        api.hparams_config(hparams=list(hyperparameters.values()), metrics=metrics)
    for trial in study.trials:
        for seed, execution in enumerate(trial.executions):
            with tf.summary.create_file_writer(str(folder / f"trial_{trial.name}" / f"seed_{seed}")).as_default():
                api.hparams(_values(study, trial), trial_id=f"{trial.name}, seed {seed}")
                for name in (METRIC, "loss"):
                    for step, value in zip(execution.curves["steps"], execution.curves.get(name, ()), strict=False):
                        if value is not None:
                            tf.summary.scalar(name, value, step=int(step or 0))
                tf.summary.scalar("diverged", float(execution.diverged_at is not None), step=0)


def _values(study: Study, trial: Trial) -> dict[str, object]:
    values = {name.removeprefix("kerasbn/"): value for name, value in trial.values.items()}
    del values["learning_rate_factor"]
    return values | {"learning_rate": study.rate(trial)}
