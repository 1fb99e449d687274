"""What was trained, and which learning rate was found."""

from dataclasses import dataclass
from typing import Any

from examples.inception.comparison import compare
from examples.inception.networks import BASELINE, NETWORKS, Network
from examples.measured import Measured
from examples.results import Results as AnyResults
from examples.results import spread

SEARCH = "search_"


@dataclass(frozen=True)
class Settings:
    """Every choice that a result depends on."""

    dataset: str
    baseline_steps: int  # of the baseline and BN-Baseline, in which their rate falls to a tenth
    steps: int  # of the others
    every: int  # steps between two measurements
    batch_size: int
    learning_rate: float | None  # of the baseline, at its start; None: the best of the search
    search_rates: tuple[float, ...]
    search_steps: int  # of each training of the search, in which the rate falls to a tenth
    search_seeds: int
    momentum: float = 0.9  # of the moving statistics. Keras's 0.99 is a hundred steps behind the network


class Results(AnyResults):
    """The trainings of the networks, and of the search, in which the baseline is called `search_` and its rate."""

    experiment = "Ioffe & Szegedy 2015, Sec. 4.2.2"
    settings_class, run_class = Settings, Measured

    @property
    def search(self) -> dict[str, float]:
        """The names of the search's trainings, with their rates."""
        return {f"{SEARCH}{rate:g}": rate for rate in self.settings.search_rates}

    @property
    def learning_rate(self) -> float | None:
        """The baseline's rate: the one asked for, or the best of the search; `None` before that, or if all diverged."""
        if self.settings.learning_rate is not None:
            return self.settings.learning_rate
        rows = self.searched().values()
        if sum(row["seeds"] for row in rows) < len(self.search) * self.settings.search_seeds:
            return None
        means = {row["rate"]: row["max_accuracy"]["mean"] for row in rows if row["max_accuracy"]}
        return max(means, key=lambda rate: means[rate]) if means else None

    def searched(self) -> dict[str, dict[str, Any]]:
        """For each rate of the search: its highest accuracy, over the seeds if none diverged."""
        rows = {}
        for name, rate in self.search.items():
            ended, healthy = self.ended(name), self.complete(name)
            if ended:
                accuracy = None if len(healthy) < len(ended) else spread([max(run.accuracy) for run in healthy])
                rows[name] = {"rate": rate, "seeds": len(ended), "max_accuracy": accuracy}
        return rows

    def planned(self, network: str) -> int:
        if network in self.search:
            return self.settings.search_steps
        return self.settings.baseline_steps if NETWORKS[network].long else self.settings.steps

    def decay_steps(self, network: str) -> int:
        """In how many steps the baseline's rate falls to a tenth: BN-Baseline and the others get theirs from it."""
        return self.settings.search_steps if network in self.search else self.settings.baseline_steps

    def ended(self, network: str) -> list[Measured]:
        """The runs of `network` that made all their steps or diverged, by seed."""
        runs = [run for run in self.runs if run.network == network and self.has_ended(run)]
        return sorted(runs, key=lambda run: run.seed)

    def network(self, name: str) -> Network:
        """What is done to the baseline: nothing, in the search."""
        return NETWORKS[BASELINE if name in self.search else name]

    def rate(self, name: str) -> float | None:
        """The baseline's learning rate for the training called `name`."""
        return self.search[name] if name in self.search else self.learning_rate

    def summary(self) -> dict[str, Any]:
        """The search, and each network beside the baseline."""
        networks = {name: self.ended(name) for name in NETWORKS}
        compared = compare({name: runs for name, runs in networks.items() if runs}, BASELINE)
        for name, row in compared.items():
            row["initial_rate"] = None if self.learning_rate is None else self.learning_rate * NETWORKS[name].factor
            row["steps"] = self.planned(name)
        return {"learning_rate": self.learning_rate, "search": self.searched(), "networks": compared}
