"""Runs the trials of a study: in this process, or as one of several that share them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from benchmarks.ending import unwritable
from benchmarks.progress import Progress
from benchmarks.report import write_whole
from examples.parsed import parsed, read
from kerasbn.tuner import largest_stable_learning_rate
from tuning.oracles import ORACLES
from tuning.results import ARMS, PROJECT, STABLE
from tuning.settings import CannotRun, Settings
from tuning.space import BATCH_SIZE, BATCH_SIZES, VARIED, Data, network
from tuning.trials import Seeded, ShowSteps, Tuner

#: Not 0, which Keras Tuner takes for none.
ORACLE_SEED = 1
#: Arguments of `BatchNorm`: trainings are short, and moving statistics must keep up.
LAYERS: dict[str, Any] = {"momentum": 0.9}


def oracle(out: Path, settings: Settings) -> Any:
    """A new oracle with the settings of the study."""
    file = out / PROJECT / "oracle.json"
    return ORACLES[settings.oracle](
        file=file, objective=settings.measured(), max_trials=settings.trials, seed=ORACLE_SEED
    )


def tuner(out: Path, settings: Settings, shape: tuple[int, ...], on_trial: Callable[[str], None]) -> Tuner:
    """The tuner of the study in `out`, which goes on where its files say."""
    varied: dict[str, Any] = {"decay_speedups": (), "warmup_steps": (), "dropout": (), "weight_decay_factors": ()}
    for name in settings.vary:
        varied |= VARIED.get(name, {})

    def build(hp: Any) -> keras.Model:
        if "batch_size" in settings.vary:
            hp.Choice("batch_size", BATCH_SIZES)
        return network(settings.dataset, shape, settings.learning_rate, settings.steps)

    return Tuner(
        on_trial=on_trial,
        hypermodel=Seeded(
            build,
            arms=ARMS,
            learning_rate_factors=settings.factors,
            **varied,
            **LAYERS,
        ),
        oracle=oracle(out, settings),
        executions_per_trial=settings.seeds,
        directory=out,
        project_name=PROJECT,
    )


def search(
    out: Path, settings: Settings, data: Data, on_trial: Callable[[str], None], progress: Progress | None = None
) -> None:
    """Runs all trials that are left.

    Args:
        out: The folder of the study.
        settings: Those of the study.
        data: Its images.
        on_trial: Function that is told the identifier of each trial that has ended.
        progress: That of the study, in trials, which is told of each step.

    Raises:
        OSError: If a file of a trial cannot be written.
    """
    try:
        tuner(out, settings, data.x.shape[1:], on_trial).search(
            data,
            shuffle=False,  # the batches are
            epochs=settings.measurements,
            steps_per_epoch=settings.steps // settings.measurements,
            validation_data=(data.x_held_out, data.y_held_out),
            validation_batch_size=500,
            callbacks=[ShowSteps(progress, settings.seeds, settings.steps)] if progress is not None else [],
            verbose=0,
        )
    except keras_tuner.errors.FatalError as error:  # a trial met an error of its own
        if error.__cause__ is not None and unwritable(error.__cause__):
            raise error.__cause__ from None
        raise


def stable_rates(
    out: Path, settings: Settings, data: Data, on_training: Callable[..., None]
) -> dict[str, list[float | None]]:
    """The largest stable learning rate of each arm and seed; `None` where none was found or all were stable."""
    file = out / STABLE
    if file.exists():
        try:
            return parsed(dict[str, list[float | None]], read(file))
        except (OSError, ValueError) as error:
            raise CannotRun(
                f"{file} cannot be read ({error}). Nothing was changed. Remove it, and the largest stable rates are "
                "looked for again."
            ) from error
    seeds = iter(range(settings.seeds))

    def build() -> Any:
        keras.utils.set_random_seed(next(seeds))
        return network(settings.dataset, data.x.shape[1:], settings.learning_rate, settings.steps)

    (found,) = largest_stable_learning_rate(
        build,
        (data.x, data.y),
        seeds=settings.seeds,
        steps=settings.stable_steps,
        batch_size=BATCH_SIZE,
        on_trial=on_training,
        **LAYERS,
    )
    rates = {arm: [rate if 0 < rate < float("inf") else None for rate in found.rates[arm]] for arm in ARMS}
    write_whole(file, json.dumps(rates).encode())
    return rates
