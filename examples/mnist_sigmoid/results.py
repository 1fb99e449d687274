"""What an experiment writes down: `results.json`, enough to draw every figure from, safe to kill at any time."""

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

FILE = "results.json"


class SettingsDiffer(Exception):
    """The folder holds results of another experiment; the message says where they differ."""


@dataclass(frozen=True)
class Settings:
    """Every choice that a result depends on. Those that the paper leaves open are marked."""

    dataset: str
    steps: int
    batch_size: int
    learning_rate: float  # ours: the paper gives none
    jit_compile: str
    measurements: int
    initial_stddev: float = 0.1  # ours: "small random Gaussian values"
    optimizer: str = "SGD"  # ours, without momentum
    momentum: float = 0.99  # ours: of the moving statistics, Keras's default
    epsilon: float = 1e-3  # ours: Keras's default
    threshold: float = 0.5  # ours: of the greatest brightness
    sigmoid: int = 0  # ours: which unit of the last hidden layer is "typical", chosen before training


@dataclass
class Run:
    """One training of one network: what was measured, a number (or three) a measurement."""

    network: str
    seed: int
    steps: list[int] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    percentiles: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0

    def steps_to(self, accuracy: float) -> int | None:
        """The first measured step at which the test accuracy is at least `accuracy`, if there is one."""
        return next((step for step, value in zip(self.steps, self.accuracy, strict=True) if value >= accuracy), None)


@dataclass
class Results:
    """All runs of one experiment, kept in a folder."""

    folder: Path
    settings: Settings
    runs: list[Run] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, settings: Settings) -> "Results":
        """Goes on with the results in `folder`, or starts new ones there.

        Raises:
            SettingsDiffer: If `folder` has results of other settings, which are left as they are.
        """
        path = folder / FILE
        if not path.exists():
            return cls(folder, settings)
        try:
            stored = json.loads(path.read_text())
            runs = [Run(**run) for run in stored["runs"]]
            before = stored["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise SettingsDiffer(
                f"{path} is not a results file of this experiment ({error}). Nothing was changed. "
                "Name another folder with `--out`, or remove the file."
            ) from None
        now = asdict(settings)
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

    def run(self, network: str, seed: int) -> Run:
        """The run of `network` with `seed`, empty if it was not begun."""
        for run in self.runs:
            if (run.network, run.seed) == (network, seed):
                return run
        self.runs.append(Run(network, seed))
        return self.runs[-1]

    def complete(self, network: str) -> list[Run]:
        """The finished runs of `network`, by seed."""
        runs = [
            run for run in self.runs if run.network == network and run.steps and run.steps[-1] == self.settings.steps
        ]
        return sorted(runs, key=lambda run: run.seed)

    def save(self) -> None:
        """Writes `results.json`, whole or not at all."""
        packages = ("tensorflow", "keras", "kerasbn", "numpy")
        content = {
            "experiment": "Ioffe & Szegedy 2015, Sec. 4.1",
            "settings": asdict(self.settings),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "summary": summary(self),
            "runs": [asdict(run) for run in self.runs],
        }
        temporary = self.folder / f"{FILE}.tmp"
        temporary.write_text(json.dumps(content, separators=(",", ":")) + "\n")
        os.replace(temporary, self.folder / FILE)


def summary(results: Results) -> dict[str, dict]:
    """What the table shows, from finished runs: for each network final and best accuracy over seeds; and how much
    sooner the normalized network reaches the best accuracy that the plain one has with the same seed. Spread is the
    sample standard deviation, `None` with one seed.
    """
    plain, normalized = results.complete("plain"), results.complete("batch_norm")
    table: dict[str, dict] = {}
    best = {run.seed: max(run.accuracy) for run in plain}
    for network, runs in (("plain", plain), ("batch_norm", normalized)):
        if not runs:
            continue
        steps = [run.steps_to(best[run.seed]) for run in runs if run.seed in best]
        table[network] = {
            "seeds": len(runs),
            "final_accuracy": _spread([run.accuracy[-1] for run in runs]),
            "best_accuracy": _spread([max(run.accuracy) for run in runs]),
            "steps_to_plain_best": _spread([step for step in steps if step is not None]),
            "reached_plain_best": [sum(step is not None for step in steps), len(steps)],
            "seconds": round(sum(run.seconds for run in runs), 1),
        }
    ratios = []
    for run in normalized:
        partner = next((p for p in plain if p.seed == run.seed), None)
        reached = run.steps_to(best[run.seed]) if partner else None
        if partner and reached:
            ratios.append(partner.steps_to(best[run.seed]) / reached)
    if ratios:
        table["batch_norm"]["times_fewer_steps"] = _spread(ratios)
    return table


def _spread(values: list[float]) -> dict[str, float | None] | None:
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {
        "mean": round(statistics.fmean(values), 5),
        "stdev": None if deviation is None else round(deviation, 5),
        "min": min(values),
        "max": max(values),
    }
