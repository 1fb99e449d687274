"""What an experiment writes down: `results.json`, enough to draw every figure from, whole at any time."""

import json
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

from benchmarks.report import write_whole
from examples.errors import Refused
from examples.parsed import parsed, read

FILE = "results.json"


class SettingsDiffer(Refused):
    """The folder holds results of another experiment; the message says where they differ."""


class ResultsMissing(Refused):
    """There are no results where they were looked for; the message says so."""


@dataclass
class Entry:
    """What is known of one network with one seed. An experiment adds fields of its own."""

    network: str
    seed: int


@dataclass
class Run(Entry):
    """One training of one network: what was measured, an entry a measurement. An experiment adds fields of its own."""

    steps: list[int] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    @property
    def diverged(self) -> bool:
        """Whether the training was ended because it diverged."""
        return False

    def steps_to(self, accuracy: float) -> int | None:
        """The first measured step at which the test accuracy is at least `accuracy`, if there is one."""
        return next((step for step, value in zip(self.steps, self.accuracy, strict=True) if value >= accuracy), None)

    def forget(self) -> None:
        """Becomes a run that was not begun."""
        vars(self).update(vars(type(self)(self.network, self.seed)))


@dataclass
class Results:
    """All runs of one experiment, kept in a folder. An experiment says which, and of what classes its parts are.

    Where they are no trainings, it says by `has_ended` when one of them is whole.
    """

    folder: Path
    settings: Any
    runs: list[Any] = field(default_factory=list)

    experiment: ClassVar[str]
    settings_class: ClassVar[type]
    run_class: ClassVar[type[Entry]]
    file: ClassVar[str] = FILE

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.file

    @classmethod
    def open(cls, folder: Path, settings: Any) -> Self:
        """Goes on with the results in `folder`, or starts new ones there.

        Raises:
            SettingsDiffer: If `folder` has results of other settings, which are left as they are.
        """
        path = folder / cls.file
        if not path.exists():
            return cls(folder, settings)
        try:
            before, runs = cls._parsed(path)
        except (OSError, ValueError) as error:
            raise SettingsDiffer(
                f"{path} is not a results file of this experiment ({error}). Nothing was changed. "
                "Name another folder with `--out`, or remove the file."
            ) from None
        now = json.loads(json.dumps(asdict(settings)))
        different = [
            f"{name} (there {before.get(name)!r}, asked for {now[name]!r})"
            for name in now
            if before.get(name) != now[name]
        ]
        if different:
            raise SettingsDiffer(
                f"{path} has results of other settings: {', '.join(different)}. "
                "Nothing was changed. Name another folder with `--out`, or ask for the same settings to go on."
            )
        return cls(folder, settings, runs)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The results in a file, or in the folder that the file is in, whatever their settings.

        Raises:
            ResultsMissing: If there are none.
        """
        file = path / cls.file if path.is_dir() else path
        try:
            settings, runs = cls._parsed(file)
            return cls(file.parent, parsed(cls.settings_class, settings, "settings"), runs)
        except OSError as error:
            raise ResultsMissing(
                f"There are no results in {path}: {error.strerror}. Name the folder that a training wrote to."
            ) from error
        except ValueError as error:
            raise ResultsMissing(
                f"{file} is not a results file of this experiment ({error}). Name the folder that a training wrote to."
            ) from error

    @classmethod
    def _parsed(cls, path: Path) -> tuple[dict[str, Any], list[Any]]:
        stored = parsed(dict[str, Any], read(path))
        if not {"settings", "runs"} <= stored.keys():
            raise ValueError("it has no settings and runs")
        runs = parsed(list[cls.run_class], stored["runs"], "runs")
        for number, run in enumerate(runs):
            sizes = {name: len(value) for name, value in vars(run).items() if isinstance(value, list)}
            if len(set(sizes.values())) > 1:
                raise ValueError(f"runs[{number}] has lists of several lengths, {sizes}")
        return parsed(dict[str, Any], stored["settings"], "settings"), runs

    def run(self, network: str, seed: int) -> Any:
        """The run of `network` with `seed`, empty if it was not begun."""
        for run in self.runs:
            if (run.network, run.seed) == (network, seed):
                return run
        self.runs.append(self.run_class(network, seed))
        return self.runs[-1]

    def planned(self, network: str) -> int:
        """How many steps `network` is trained for."""
        return self.settings.steps

    def is_complete(self, run: Any) -> bool:
        """Whether `run` has made all its steps."""
        return bool(run.steps) and run.steps[-1] == self.planned(run.network)

    def has_ended(self, run: Any) -> bool:
        """Whether there is nothing more to train."""
        return run.diverged or self.is_complete(run)

    def complete(self, network: str) -> list[Any]:
        """The runs of `network` that made all their steps, by seed."""
        runs = [run for run in self.runs if run.network == network and self.is_complete(run)]
        return sorted(runs, key=lambda run: run.seed)

    def summary(self) -> dict[str, Any]:
        """What the table shows, from finished runs."""
        raise NotImplementedError

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        packages = ("tensorflow", "keras", "kerasbn", "numpy")
        content = {
            "experiment": self.experiment,
            "settings": asdict(self.settings),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "summary": self.summary(),
            "runs": [asdict(run) for run in self.runs],
        }
        write_whole(self.path, (json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n").encode())


def spread(
    values: list[float], rounded: Callable[[float], float] = lambda value: round(value, 5)
) -> dict[str, float | None] | None:
    """Mean and sample standard deviation over seeds, `None` of no values; one has no deviation."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {
        "mean": rounded(statistics.fmean(values)),
        "stdev": None if deviation is None else rounded(deviation),
        "min": min(values),
        "max": max(values),
    }


def text(found: dict[str, float | None] | None, form: str) -> str:
    """A `spread` for a table, in the format `form`, as in "56.5% ± 1.6%"."""
    if found is None:
        return "-"
    mean = form.format(found["mean"])
    return mean if found["stdev"] is None else f"{mean} ± {form.format(found['stdev'])}"
