"""What was measured: a file for each of the four parts, with settings of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from examples.measured import Measured
from examples.results import Entry, spread
from examples.results import Results as AnyResults
from kerasbn.intervals import geometric_mean

PAPER = "Bjorck et al. 2018"
#: A loss that is so many times what it was before the step has diverged: the paper's.
DIVERGENCE = 1e3
#: Where the rate falls to a tenth, as parts of a training.
DROPS = (0.5, 0.75)


@dataclass(frozen=True)
class Training:
    """What all trainings have in common. Momentum and weight decay are ours: the paper's text does not say."""

    dataset: str
    batch_size: int
    momentum: float = 0.9  # of SGD, and of the moving statistics
    weight_decay: float = 5e-4


@dataclass(frozen=True)
class RatesSettings(Training):
    """Of accuracy against training."""

    depth: int = 0
    steps: int = 0
    every: int = 0  # steps between two measurements
    normalized: tuple[str, ...] = ()
    learning_rates: tuple[float, ...] = ()
    test_images: int = 0  # how many of them, the first


@dataclass(frozen=True)
class DepthSettings(Training):
    """Of the largest stable rates. There is no weight decay, which would be a part of the loss that is judged."""

    weight_decay: float = 0.0
    depths: tuple[int, ...] = ()
    steps: int = 0  # of each training
    start: float = 0.05  # the rate that is tried first
    lowest: float = 1e-6
    highest: float = 100.0
    tolerance: float = 1.5


@dataclass(frozen=True)
class StepSizeSettings(Training):
    """Of the loss after one step."""

    depth: int = 0
    trained_steps: int = 0
    trained_rate: float = 1e-4
    lowest: float = 1e-5
    highest: float = 10.0
    step_sizes: int = 25
    batches: int = 4

    @property
    def grid(self) -> list[float]:
        """The step sizes."""
        return [float(f"{size:.4g}") for size in np.geomspace(self.lowest, self.highest, self.step_sizes)]


@dataclass(frozen=True)
class DivergenceSettings(Training):
    """Of the moments during one step."""

    depth: int = 0
    trained_steps: int = 0
    trained_rate: float = 1e-4
    smallest_step: float = 1e-4  # doubled until the loss diverges
    doublings: int = 34
    parts: int = 10  # of the step, after each of which it is measured


@dataclass
class Search(Entry):
    """The largest stable rate: 0 if none was, `None` if all were up to the highest; and each trial."""

    rate: float | None = None
    trials: list[tuple[float, bool]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Losses(Entry):
    """By stage, initial and trained, for each mini-batch: its loss, and that after one step of each size over it."""

    loss: dict[str, list[float]] = field(default_factory=dict)
    relative: dict[str, list[list[float | None]]] = field(default_factory=dict)  # null where it is not finite


@dataclass
class Moments(Entry):
    """What goes through the convolutions while one step is made, part by part."""

    step_size: float | None = None
    explodes_at: float | None = None  # the smallest of the doubled step sizes that diverges
    relative: list[float | None] = field(default_factory=list)
    mean: list[list[float | None]] = field(default_factory=list)  # [part][layer], root mean square over channels
    variance: list[list[float | None]] = field(default_factory=list)  # [part][layer], mean over channels
    # [part][channel] of three layers, by their number: for the first seed
    channel_means: dict[str, list[list[float | None]]] = field(default_factory=dict)
    channel_variances: dict[str, list[list[float | None]]] = field(default_factory=dict)


def network(normalized: str, number: float) -> str:
    """The name of a network with its learning rate, or its depth."""
    return f"{normalized}_{number:g}"


class Rates(AnyResults):
    """Trainings at several rates."""

    experiment = f"{PAPER}: accuracy at several learning rates"
    settings_class, run_class, file = RatesSettings, Measured, "rates.json"

    @property
    def networks(self) -> dict[str, tuple[str, float]]:
        """What is trained, by name: where it is normalized, and its rate."""
        return {
            network(normalized, rate): (normalized, rate)
            for normalized in self.settings.normalized
            for rate in self.settings.learning_rates
        }

    def ended(self, name: str) -> list[Measured]:
        """The trainings that made all their steps or diverged, by seed."""
        runs = [run for run in self.runs if run.network == name and self.has_ended(run)]
        return sorted(runs, key=lambda run: run.seed)

    def summary(self) -> dict[str, Any]:
        """For each network the accuracy at the end, over the seeds that did not diverge."""
        rows = {}
        for name, (normalized, rate) in self.networks.items():
            ended, complete = self.ended(name), self.complete(name)
            if ended:
                rows[name] = {
                    "normalized": normalized,
                    "rate": rate,
                    "seeds": len(ended),
                    "diverged_at": [run.diverged_at for run in ended if run.diverged],
                    "final_accuracy": spread([run.accuracy[-1] for run in complete]),
                    "best_accuracy": spread([max(run.accuracy) for run in complete]),
                }
        return rows


class _Entries(AnyResults):
    """What is measured of one network in one go: entries are there when they are whole."""

    networks: ClassVar[Any]

    def is_complete(self, run: Any) -> bool:
        return True

    def has_ended(self, run: Any) -> bool:
        return True

    def has(self, name: str, seed: int) -> bool:
        """Whether it was measured."""
        return any((run.network, run.seed) == (name, seed) for run in self.runs)

    def add(self, entry: Entry) -> None:
        """Adds what was measured, and saves."""
        self.runs.append(entry)
        self.save()


class Depth(_Entries):
    """The largest stable rates."""

    experiment = f"{PAPER}: the largest stable learning rate against depth"
    settings_class, run_class, file = DepthSettings, Search, "depth.json"

    @property
    def networks(self) -> dict[str, tuple[str, int]]:
        """What is searched, by name: where it is normalized, and its depth."""
        return {
            network(normalized, depth): (normalized, depth)
            for depth in self.settings.depths
            for normalized in ("all", "none")
        }

    def rates(self, normalized: str, depth: int) -> dict[int, float]:
        """By seed, infinite where all rates were stable, 0 where none was."""
        found = self.complete(network(normalized, depth))
        return {run.seed: math.inf if run.rate is None else run.rate for run in found}

    def summary(self) -> dict[str, Any]:
        """For each depth the rates over seeds as geometric mean, and their ratio, with the intervals of 95 %."""
        rows = {}
        for depth in self.settings.depths:
            found = {normalized: self.rates(normalized, depth) for normalized in ("all", "none")}
            pairs = [found["all"][seed] / rate for seed, rate in found["none"].items() if seed in found["all"] and rate]
            if any(found.values()):
                rows[str(depth)] = {
                    **{normalized: _interval(list(rates.values())) for normalized, rates in found.items()},
                    "ratio": _interval(pairs) if len(pairs) == len(found["none"]) else None,
                    "seeds": min(map(len, found.values())),
                }
        return rows


class StepSize(_Entries):
    """The loss after one step."""

    experiment = f"{PAPER}: the loss after one step along the gradient"
    settings_class, run_class, file = StepSizeSettings, Losses, "step_size.json"
    networks = ("all", "none")

    def relative(self, normalized: str, stage: str) -> np.ndarray:
        """Relative losses, ``[seeds * batches, step sizes]``, infinite where they are not finite."""
        rows = [row for run in self.complete(normalized) for row in run.relative[stage]]
        return np.array([[math.inf if value is None else value for value in row] for row in rows])

    def ratio(self, stage: str) -> dict[str, float | None] | None:
        """How many times larger the best step is with normalization, over the mini-batches that both have."""
        seeds = [{run.seed: run.relative[stage] for run in self.complete(name)} for name in self.networks]
        grid = self.settings.grid
        pairs = [
            [grid[_lowest(row)] for row in rows]
            for seed in seeds[0].keys() & seeds[1].keys()
            for rows in zip(*(found[seed] for found in seeds), strict=True)
        ]
        return _interval([with_it / without for with_it, without in pairs])

    def summary(self) -> dict[str, Any]:
        """For each network and stage, over mini-batches and seeds: which step is best, which is too large."""
        grid, rows = np.array(self.settings.grid), {}
        for normalized in self.networks:
            for stage in ("initial", "trained"):
                relative = self.relative(normalized, stage) if self.complete(normalized) else np.empty((0, 0))
                if relative.size:
                    middle = np.median(relative, axis=0)
                    rows[f"{normalized}_{stage}"] = {
                        "seeds": len(self.complete(normalized)),
                        "best_step": _interval([float(grid[row.argmin()]) for row in relative]),
                        "best_relative_loss": _interval([float(row.min()) for row in relative]),
                        "worse_from": _first(grid, middle > 1),
                        "diverges_from": _first(grid, middle > DIVERGENCE),
                    }
        return rows


class Divergence(_Entries):
    """The moments by layer during one step."""

    experiment = f"{PAPER}: moments by layer in a diverging step"
    settings_class, run_class, file = DivergenceSettings, Moments, "divergence.json"
    #: Without normalization at the step that diverges, with it at the same one, and with it at the one that diverges.
    networks = ("none", "all", "all_own")

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers whose channels are shown, as deep as the paper's 8, 44 and 80 of 110."""
        return [max(1, round(layer / 110 * self.settings.depth)) for layer in (8, 44, 80)]

    def summary(self) -> dict[str, Any]:
        """For each network over seeds: step sizes, and by how much the variance of the last convolution grows."""
        rows = {}
        for name in self.networks:
            runs = self.complete(name)
            if runs:
                rows[name] = {
                    "seeds": len(runs),
                    "step_size": _interval([run.step_size or math.nan for run in runs]),
                    "explodes_at": _interval([run.explodes_at or math.nan for run in runs]),
                    "relative_loss": _interval([_number(run.relative[-1]) for run in runs]),
                    "growth": [_interval([_growth(run.variance, layer) for run in runs]) for layer in self._rows(runs)],
                }
        return rows

    def _rows(self, runs: Sequence[Moments]) -> range:
        return range(len(runs[0].variance[0]))


def _lowest(row: Sequence[float | None]) -> int:
    return int(np.argmin([_number(value) for value in row]))


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def _growth(moments: list[list[float | None]], layer: int) -> float:
    """By what factor the variance of a layer grows in the whole step."""
    first, last = _number(moments[0][layer]), _number(moments[-1][layer])
    return last / first if first else math.nan


def _first(grid: np.ndarray, where: np.ndarray) -> float | None:
    """The smallest step from which on, up to the largest, it is so."""
    if not where[-1]:
        return None
    last_not = np.flatnonzero(~where)
    return float(grid[last_not[-1] + 1]) if last_not.size else float(grid[0])


def _interval(values: list[float]) -> dict[str, float | None] | None:
    """Geometric mean and interval of 95 %, which of one seed is infinite; JSON cannot say that, nor NaN."""
    if not values:
        return None
    found = geometric_mean(values)
    return {
        name: float(f"{value:.4g}") if 0 < value < math.inf else None for name, value in found._asdict().items()
    } | {"lowest": _finite(min(values)), "highest": _finite(max(values))}


def _finite(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
