"""What was trained, and what the ensembles of it are worth."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from examples.ensemble.members import MEMBERS, REFERENCE, networks
from examples.inception.networks import Network
from examples.measured import Measured
from examples.results import Results as AnyResults
from examples.results import spread


@dataclass(frozen=True)
class Settings:
    """Every choice that a result depends on."""

    dataset: str
    steps: int
    every: int  # steps between two measurements
    batch_size: int
    learning_rate: float  # of Inception, which `factor` is multiplied with
    factor: float
    larger: float  # times He's initial weights, where they are larger
    top_k: int
    momentum: float = 0.9  # of the moving statistics

    @property
    def decay_steps(self) -> int:
        """In how many steps Inception's rate would fall to a tenth; accelerated, it falls to a hundredth in `steps`."""
        return 3 * self.steps


@dataclass
class Trained(Measured):
    """One network, with its top-k error after the last step."""

    top_k_error: float | None = None


@dataclass
class Results(AnyResults):
    """The trainings, seed by seed, and by seed what `combine` found of those that did not diverge."""

    ensembles: dict[int, dict[str, Any]] = field(default_factory=dict)

    experiment = "Ioffe & Szegedy 2015, Sec. 4.2.3"
    settings_class, run_class = Settings, Trained

    @classmethod
    def open(cls, folder: Path, settings: Settings) -> Self:
        return super().open(folder, settings)._with_ensembles()

    @classmethod
    def read(cls, path: Path) -> Self:
        return super().read(path)._with_ensembles()

    def _with_ensembles(self) -> Self:
        """They are part of the summary, as it takes the probabilities to find them again."""
        if self.path.exists():
            stored = json.loads(self.path.read_text())["summary"]["ensembles"]
            self.ensembles = {int(seed): found for seed, found in stored.items()}
        return self

    @property
    def networks(self) -> dict[str, Network]:
        """The reference and the six."""
        return networks(self.settings.factor, self.settings.larger)

    def probabilities(self, run: Trained) -> Path:
        """Where the test probabilities of a network are, which its ensemble is made of."""
        return self.folder / f"probabilities-{run.network}-{run.seed}.npy"

    def lost(self, run: Trained) -> bool:
        """Whether `run` has ended, but its probabilities are neither there nor in an ensemble."""
        there = run.seed in self.ensembles or self.probabilities(run).exists()
        return run.network in MEMBERS and self.is_complete(run) and not there

    def members(self, seed: int) -> list[Trained]:
        """Those of the six that made all their steps."""
        return [run for name in MEMBERS for run in self.complete(name) if run.seed == seed]

    def summary(self) -> dict[str, Any]:
        """Errors of each network over its seeds, and the ensembles."""
        table = {}
        for name in (REFERENCE, *MEMBERS):
            runs = [run for run in self.runs if run.network == name and self.has_ended(run)]
            healthy = [run for run in runs if not run.diverged]
            if runs:
                table[name] = {
                    "seeds": len(runs),
                    "diverged": len(runs) - len(healthy),
                    "top_1_error": spread([round(1 - run.accuracy[-1], 5) for run in healthy]),
                    "top_k_error": spread([run.top_k_error for run in healthy]),
                }
        return {"networks": table, "ensembles": self.ensembles}
