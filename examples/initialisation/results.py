"""What was trained, and how much of the grid each network can be trained in."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from examples.initialisation.network import NETWORKS
from examples.measured import CLASSES, Measured
from examples.results import Results as AnyResults
from examples.results import spread
from kerasbn.intervals import geometric_mean

#: Up to which accuracy a network has learned nothing, or next to it: that of guessing is 0.1.
CHANCE = 0.15
#: How far below the best of the grid an accuracy may be to count as good.
WITHIN = 0.05


@dataclass(frozen=True)
class Settings:
    """Every choice that a result depends on."""

    dataset: str
    scales: tuple[float, ...]  # of the initial kernels, in units of He's
    rates: tuple[float, ...]
    steps: int  # of each training
    batch_size: int
    scaled: str = "all"  # which kernels: "all", or the "convolutions" only
    momentum: float = 0.9  # of SGD
    moving_momentum: float = 0.9  # of the moving statistics: Keras's 0.99 is a hundred steps behind the network


@dataclass(frozen=True)
class Cell:
    """One training of the grid, but for its seed."""

    network: str
    scale: float
    rate: float

    @property
    def name(self) -> str:
        return f"{self.network}_x{self.scale:g}_at_{self.rate:g}"


class Results(AnyResults):
    """The grid of both networks. A run is called by its cell's name, and is measured once, at its end."""

    experiment = "Ioffe & Szegedy 2015, abstract and Sec. 3.3"
    settings_class, run_class = Settings, Measured

    def cells(self, network: str) -> list[Cell]:
        """Those of a network, scale by scale."""
        return [Cell(network, scale, rate) for scale in self.settings.scales for rate in self.settings.rates]

    def ended(self) -> set[tuple[str, int]]:
        """Name and seed of each training that has ended."""
        return {(run.network, run.seed) for run in self.runs if self.has_ended(run)}

    def seeds(self, network: str) -> list[int]:
        """The seeds with which the whole grid of `network` was trained."""
        names = {cell.name for cell in self.cells(network)}
        by_seed: dict[int, set[str]] = {}
        for name, seed in self.ended():
            by_seed.setdefault(seed, set()).add(name)
        return [seed for seed in sorted(by_seed) if names <= by_seed[seed]]

    def accuracy(self, network: str) -> np.ndarray:
        """Test accuracy, ``[seed, scale, rate]``; that of guessing where the training diverged."""
        return self._grid(network, lambda run: 1 / CLASSES if run.diverged else run.accuracy[-1])

    def diverged(self, network: str) -> np.ndarray:
        """Whether the training diverged, ``[seed, scale, rate]``."""
        return self._grid(network, lambda run: run.diverged)

    def _grid(self, network: str, value: Callable[[Measured], float]) -> np.ndarray:
        seeds, settings = self.seeds(network), self.settings
        runs = {(run.network, run.seed): run for run in self.runs}
        flat = [value(runs[cell.name, seed]) for seed in seeds for cell in self.cells(network)]
        return np.array(flat).reshape(len(seeds), len(settings.scales), len(settings.rates))

    def summary(self) -> dict[str, Any]:
        """For each network, seed by seed against its own best of the grid: where it is within 5 points of that.

        Widths are factors from the lowest scale to the highest without a gap, as geometric mean over seeds with the
        interval of 95 %: at the rate that is best, and with the best rate for each scale.
        """
        table = {}
        for network in NETWORKS:
            if not self.seeds(network):
                continue
            grids = self.accuracy(network)
            at_best = [grid[:, np.unravel_index(grid.argmax(), grid.shape)[1]] for grid in grids]
            table[network] = {
                "seeds": len(grids),
                "best_accuracy": spread([float(grid.max()) for grid in grids]),
                "best_scale_and_rate": [self._best(grid) for grid in grids],
                "good": spread([round(float((grid >= grid.max() - WITHIN).mean()), 4) for grid in grids]),
                "failed": spread([round(float((grid <= CHANCE).mean()), 4) for grid in grids]),
                "width_at_best_rate": _interval(self._width(column) for column in at_best),
                "width_at_any_rate": _interval(self._width(grid.max(1)) for grid in grids),
            }
        return table

    def _best(self, grid: np.ndarray) -> list[float]:
        row, column = np.unravel_index(grid.argmax(), grid.shape)
        return [self.settings.scales[row], self.settings.rates[column]]

    def _width(self, accuracy: np.ndarray) -> float:
        """From the lowest scale to the highest, around the best one, all good. One scale alone is a factor of 1."""
        good, best = accuracy >= accuracy.max() - WITHIN, int(accuracy.argmax())
        low = high = best
        while low > 0 and good[low - 1]:
            low -= 1
        while high < len(good) - 1 and good[high + 1]:
            high += 1
        return self.settings.scales[high] / self.settings.scales[low]


def _interval(widths: Iterable[float]) -> dict[str, float | None]:
    """The interval of one seed is infinite, which JSON cannot say."""
    found = geometric_mean(list(widths))
    return {name: round(value, 4) if 0 < value < float("inf") else None for name, value in found._asdict().items()}
