"""What a study is: every choice that its results depend on."""

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.report import write_whole
from examples.errors import Refused
from examples.parsed import parsed, read
from tuning.results import METRIC, PROJECT

FILE = "study.json"
OBJECTIVES = ("final", "area", "steps")
#: Training steps, measurements of the accuracy in them, training examples held out to measure it, width of the layers.
DATASETS = {
    "digits": (300, 6, 450, 64),
    "mnist": (1000, 10, 2000, 16),
    "fashion_mnist": (1000, 10, 2000, 16),
    "cifar10": (1500, 10, 2000, 16),
}


class CannotRun(Refused):
    """What was asked for cannot be run; the message says why."""


@dataclass(frozen=True)
class Settings:
    """Every choice that the results of a study depend on."""

    dataset: str
    trials: int
    seeds: int
    steps: int  # of each training
    measurements: int  # of the accuracy in it
    learning_rate: float  # yours: the factors multiply it
    factors: tuple[float, float]  # the smallest and the largest
    oracle: str
    objective: str
    target: float  # of the objective "steps"
    vary: tuple[str, ...]
    stable_steps: int  # of each training that looks for the largest stable rate; 0 for none

    def content(self) -> dict[str, Any]:
        """As it is written to files."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def options(self) -> list[str]:
        """The options of `python -m tuning.study` that ask for these settings."""
        names = (
            "dataset",
            "trials",
            "seeds",
            "steps",
            "oracle",
            "objective",
            "target",
            "learning_rate",
            "stable_steps",
        )
        given = [f"--{name.replace('_', '-')}={getattr(self, name)}" for name in names]
        return [*given, "--factors", *map(str, self.factors), *(["--vary", *self.vary] if self.vary else [])]

    def measured(self) -> Any:
        """The objective."""
        from kerasbn.tuner import AreaUnderCurve, FinalValue, StepsToTarget  # which import TensorFlow

        if self.objective == "steps":
            return StepsToTarget(self.target, self.steps, METRIC)
        return AreaUnderCurve(METRIC) if self.objective == "area" else FinalValue(METRIC)


def chosen(options: argparse.Namespace) -> Settings:
    """The settings that the options of `python -m tuning.study` ask for.

    Raises:
        CannotRun: If an option is out of its range.
    """
    steps, measurements, _, _ = DATASETS[options.dataset]
    steps = options.steps or steps
    measurements = min(measurements, steps)
    if options.factors[0] >= options.factors[1]:
        raise CannotRun(f"--factors must be the smallest and the largest one. Received: {options.factors}.")
    if options.stable_steps and options.stable_steps < 4:
        raise CannotRun(f"--stable-steps must be 0 or at least 4. Received: {options.stable_steps}.")
    return Settings(
        dataset=options.dataset,
        trials=options.trials,
        seeds=options.seeds,
        steps=steps // measurements * measurements,
        measurements=measurements,
        learning_rate=options.learning_rate,
        factors=tuple(options.factors),
        oracle=options.oracle,
        objective=options.objective,
        target=options.target,
        vary=tuple(sorted(options.vary)),
        stable_steps=options.stable_steps,
    )


def begin(out: Path, asked: Settings, resume: bool) -> None:
    """Makes `out` the folder of the study `asked`, or goes on with it. More trials may be asked for than before.

    Raises:
        CannotRun: As `check` does.
    """
    check(out, asked, resume)
    write_whole(out / FILE, (json.dumps(asked.content(), indent=1) + "\n").encode())


def check(out: Path, asked: Settings, resume: bool) -> None:
    """Looks whether `out` can be the folder of the study `asked`.

    Raises:
        CannotRun: If there is a study already and `resume` is not set, or if it is another one.
    """
    file = out / FILE
    if not file.exists():
        if resume:
            raise CannotRun(f"There is no study in {out} to go on with. Leave out `--resume` to begin one.")
        if (out / PROJECT).exists():
            raise CannotRun(
                f"{out} has trials but no {FILE} that says what they are of. Nothing was changed. Name another folder "
                "with `--out`."
            )
        return
    try:
        found = parsed(Settings, read(file))
    except (OSError, ValueError) as error:
        raise CannotRun(
            f"{file} cannot be read ({error}). Nothing was changed. Put it right, or name another folder with `--out`."
        ) from error
    if not resume:
        raise CannotRun(
            f"There is a study in {out} already. Nothing was changed. Go on with it by `--resume`, or name another "
            "folder with `--out`."
        )
    if replace(found, trials=asked.trials) != asked or asked.trials < found.trials:
        was, now = found.content(), asked.content()
        differ = ", ".join(f"{name} {was[name]}, now {now[name]}" for name in was if was[name] != now[name])
        raise CannotRun(
            f"The study in {out} has other settings: {differ}. Nothing was changed. Ask for the same settings, or for "
            "more trials, or name another folder with `--out`."
        )
