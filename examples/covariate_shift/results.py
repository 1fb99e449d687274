"""What was trained, at which rates, and what was measured."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from examples.covariate_shift.comparisons import COMPARISONS, NETWORKS, OWN
from examples.measured import Measured
from examples.results import Results as AnyResults
from examples.results import spread

SEARCH = "search_"
#: The seeds of the search begin here, so that no training that is reported has chosen its own rate.
FIRST_SEARCH_SEED = 1000


@dataclass(frozen=True)
class Settings:
    """Every choice that a result depends on."""

    dataset: str
    activation: str
    steps: int
    every: int  # steps between two measurements
    batch_size: int
    rates: tuple[float, ...]  # of SGD, those that each network is tried at
    search_seeds: int
    probe: int  # training examples that the distributions are those of
    noise: tuple[float, ...] = (0.5, 1.25, 0.1, 0.1)  # see `ShiftingNoise`
    initial_stddev: float = 0.1
    momentum: float = 0.9  # of the moving statistics
    bins: int = 32


@dataclass
class ShiftRun(Measured):
    """One training. `network` is a key of `NETWORKS` with the rate, as in ``plain@0.3``, in the search after `search_`.

    `shift` has a list for each `place/metric/since`, with a number a measurement; null where it is not finite.
    """

    shift: dict[str, list[float | None]] = field(default_factory=dict)

    @property
    def is_search(self) -> bool:
        """Whether it is there to find a rate."""
        return self.network.startswith(SEARCH)

    @property
    def parts(self) -> tuple[str, float]:
        """Which of `NETWORKS` it is, and its learning rate."""
        network, rate = self.network.removeprefix(SEARCH).split("@")
        return network, float(rate)

    @property
    def mean_accuracy(self) -> float:
        """How fast it trains: the test accuracy, averaged over the training."""
        return statistics.fmean(self.accuracy)


class Results(AnyResults):
    """The trainings of the search and of both comparisons."""

    experiment = "Ioffe & Szegedy 2015, Sec. 2; Santurkar et al. 2018, Sec. 2"
    settings_class, run_class = Settings, ShiftRun

    def search(self) -> list[tuple[str, int]]:
        """The trainings of the search, by name and seed; none if there is one rate."""
        if len(self.settings.rates) == 1:
            return []
        seeds = range(FIRST_SEARCH_SEED, FIRST_SEARCH_SEED + self.settings.search_seeds)
        return [
            (f"{SEARCH}{network}@{rate:g}", seed)
            for network in NETWORKS
            for rate in self.settings.rates
            for seed in seeds
        ]

    def searched(self) -> dict[str, dict[str, Any]]:
        """For each network and rate of the search the mean accuracy over the training; `None` if a seed diverged."""
        found: dict[str, dict[str, Any]] = {}
        by_name: dict[str, list[ShiftRun]] = {}
        for run in self.runs:
            if run.is_search and self.has_ended(run):
                by_name.setdefault(run.network, []).append(run)
        for runs in by_name.values():
            network, rate = runs[0].parts
            healthy = None if any(run.diverged for run in runs) else spread([run.mean_accuracy for run in runs])
            found.setdefault(network, {})[f"{rate:g}"] = {"seeds": len(runs), "mean_accuracy": healthy}
        return found

    def rate(self, network: str) -> float | None:
        """The rate at which `network` trains fastest, once the search of it is through and one did not diverge."""
        rates, seeds = self.settings.rates, self.settings.search_seeds
        if len(rates) == 1:
            return rates[0]
        rows = self.searched().get(network, {})
        if sum(row["seeds"] for row in rows.values()) < len(rates) * seeds:
            return None
        means = {float(rate): row["mean_accuracy"]["mean"] for rate, row in rows.items() if row["mean_accuracy"]}
        return max(means, key=lambda rate: means[rate]) if means else None

    def names(self, comparison: str) -> dict[str, str]:
        """The trainings of a comparison by their network, as far as rates are known."""
        rates = {name: self.rate(name if comparison == OWN else "plain") for name in NETWORKS}
        return {name: f"{name}@{rate:g}" for name, rate in rates.items() if rate is not None}

    def trainings(self) -> list[str]:
        """The trainings of both comparisons, each once."""
        return list(dict.fromkeys(name for each in COMPARISONS for name in self.names(each).values()))

    def ended(self, name: str) -> list[ShiftRun]:
        """The runs of a training that made all their steps or diverged, by seed."""
        runs = [run for run in self.runs if run.network == name and self.has_ended(run)]
        return sorted(runs, key=lambda run: run.seed)

    def compared(self, comparison: str) -> dict[str, list[ShiftRun]]:
        """The ended runs of a comparison by their network."""
        found = {network: self.ended(name) for network, name in self.names(comparison).items()}
        return {network: runs for network, runs in found.items() if runs}

    def summary(self) -> dict[str, Any]:
        """The search, and what came of it; the comparisons are in the report."""
        return {"search": self.searched(), "rates": {network: self.rate(network) for network in NETWORKS}}
