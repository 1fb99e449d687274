"""What a study found: read from the trials' files, written as one small JSON, read again for reports."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import machine, write_whole
from examples.errors import Refused
from examples.parsed import parsed
from examples.parsed import read as parse

FILE = "results.json"
#: In the folder of a study: what Keras Tuner keeps, and the largest stable rates.
PROJECT, STABLE = "trials", "stable.json"
ARMS = ("plain", "normalized")
METRIC = "val_accuracy"
#: What is kept of each training.
CURVES = (METRIC, "val_loss", "loss", "steps")


class ResultsMissing(Refused):
    """There are no results where they were looked for; the message says so."""


@dataclass(frozen=True)
class Execution:
    """One training of a trial: its curves, and the step at which it diverged, if it did."""

    curves: dict[str, list[float | None]]
    diverged_at: int | None

    @property
    def final(self) -> float | None:
        """The accuracy at the end, `None` if it diverged."""
        return self.curves[METRIC][-1] if self.diverged_at is None else None

    def steps_to(self, accuracy: float) -> int | None:
        """The first measured step with at least this accuracy; `None` if there is none, or if it diverged later."""
        if self.diverged_at is not None:
            return None
        pairs = zip(self.curves["steps"], self.curves[METRIC], strict=True)
        return next((int(step) for step, value in pairs if value is not None and value >= accuracy), None)


@dataclass(frozen=True)
class Trial:
    """One choice of the hyperparameters, with a training for each seed."""

    name: str
    values: dict[str, Any]
    executions: list[Execution]

    @property
    def arm(self) -> str:
        return self.values["kerasbn/arm"]

    @property
    def diverged(self) -> list[int]:
        """The steps at which trainings diverged."""
        return [each.diverged_at for each in self.executions if each.diverged_at is not None]

    @property
    def finals(self) -> list[float]:
        """The accuracy at the end of each training that did not diverge."""
        return [each.final for each in self.executions if each.final is not None]

    @property
    def accuracy(self) -> float | None:
        """The mean of them over all seeds, `None` if one or more diverged."""
        return statistics.fmean(self.finals) if self.finals and not self.diverged else None

    @property
    def spread(self) -> float:
        """Their standard deviation."""
        return statistics.stdev(self.finals) if len(self.finals) > 1 else 0.0

    def steps_to(self, accuracy: float) -> list[int | None]:
        """The first measured step of each training with at least this accuracy, `None` where there is none."""
        return [each.steps_to(accuracy) for each in self.executions]

    def mean_steps_to(self, accuracy: float) -> int | None:
        """The first measured step at which the mean over all trainings is at least `accuracy`."""
        if self.diverged:
            return None
        means = [statistics.fmean(values) for values in zip(*(e.curves[METRIC] for e in self.executions), strict=True)]
        steps = self.executions[0].curves["steps"]
        return next((int(step) for step, mean in zip(steps, means, strict=True) if mean >= accuracy), None)


@dataclass(frozen=True)
class Study:
    """All of a study.

    Attributes:
        settings: What it was started with.
        trials: Those that have ended, in order.
        stable: For each arm the largest stable learning rate of each seed, `None` if they were not asked for.
        machine: Where it was run.
    """

    settings: dict[str, Any]
    trials: list[Trial] = field(default_factory=list)
    stable: dict[str, list[float | None]] | None = None
    machine: dict[str, Any] = field(default_factory=machine)

    def rate(self, trial: Trial) -> float:
        """The learning rate of a trial, at its start."""
        return self.settings["learning_rate"] * trial.values["kerasbn/learning_rate_factor"]

    def of(self, arm: str) -> list[Trial]:
        """The trials of one arm, by learning rate."""
        return sorted((trial for trial in self.trials if trial.arm == arm), key=self.rate)

    def best(self, arm: str) -> Trial | None:
        """The trial of an arm with the highest accuracy at the end."""
        healthy = [trial for trial in self.of(arm) if trial.accuracy is not None]
        return max(healthy, key=lambda trial: trial.accuracy or 0.0, default=None)


def collect(out: Path, settings: dict[str, Any], stable: dict[str, list[float | None]] | None) -> Study:
    """The study in a folder, as far as it is."""
    trials = [read_trial(folder) for folder in sorted((out / PROJECT).glob("trial_*")) if ended(folder)]
    return Study(settings, trials, stable)


def ended(folder: Path) -> bool:
    """Whether the trial in `folder` has come to its end. A file that is being written counts as not yet there."""
    try:
        return json.loads((folder / "trial.json").read_text())["status"] == "COMPLETED"
    except (OSError, ValueError):
        return False


def read_trial(folder: Path) -> Trial:
    """The trial in `folder`, which has ended."""
    values = json.loads((folder / "trial.json").read_text())["hyperparameters"]["values"]
    executions = []
    for curves in json.loads((folder / "executions.json").read_text()):
        diverged_at = int(curves["steps"][-1]) if curves["diverged"][-1] else None
        kept = {name: [_rounded(v) for v in curves[name]] for name in CURVES if name in curves}
        executions.append(Execution(kept, diverged_at))
    return Trial(folder.name.removeprefix("trial_"), values, executions)


def write(study: Study, path: Path) -> None:
    """Writes a study whole or not at all."""
    write_whole(path, (json.dumps(asdict(study), separators=(",", ":"), allow_nan=False) + "\n").encode())


def read(path: Path) -> Study:
    """Reads a study from its file, or from the folder that the file is in.

    Raises:
        ResultsMissing: If there is none, or if it is not one.
    """
    file = path / FILE if path.is_dir() else path
    try:
        return _checked(parsed(Study, parse(file)))
    except OSError as error:
        raise ResultsMissing(
            f"There are no results in {path}: {error.strerror}. Run `python -m tuning.study --out {path}` first, or "
            "name the folder of a study."
        ) from error
    except ValueError as error:
        raise ResultsMissing(f"{file} is not the result of a study ({error}).") from error


def _checked(study: Study) -> Study:
    """`study`, if it has all that a report needs."""
    parsed(float, study.settings.get("learning_rate"), "settings['learning_rate']")
    for name in ("seeds", "steps"):
        parsed(int, study.settings.get(name), f"settings[{name!r}]")
    parsed(str, study.settings.get("dataset"), "settings['dataset']")
    for number, trial in enumerate(study.trials):
        where = f"trials[{number}]"
        if trial.values.get("kerasbn/arm") not in ARMS:
            raise ValueError(f"{where} must be of one of {', '.join(ARMS)}")
        parsed(float, trial.values.get("kerasbn/learning_rate_factor"), f"{where}'s learning_rate_factor")
        for execution in trial.executions:
            sizes = {name: len(values) for name, values in execution.curves.items()}
            if not {METRIC, "steps"} <= sizes.keys() or len(set(sizes.values())) > 1 or 0 in sizes.values():
                raise ValueError(f"{where} must have curves {METRIC} and steps of one length, and has {sizes}")
            if None in execution.curves["steps"] or (execution.diverged_at is None and execution.final is None):
                raise ValueError(f"{where} must have finite numbers where it is healthy")
    return study


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)
