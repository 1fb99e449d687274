"""The settings and measurements of this experiment."""

from dataclasses import dataclass, field
from typing import Any

from examples.results import Results as AnyResults
from examples.results import Run as AnyRun
from examples.results import spread


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
class Run(AnyRun):
    """One training of one network: what was measured, a number (or three) a measurement."""

    percentiles: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0


class Results(AnyResults):
    """All runs of both networks."""

    experiment = "Ioffe & Szegedy 2015, Sec. 4.1"
    settings_class, run_class = Settings, Run

    def summary(self) -> dict[str, Any]:
        """What the table shows, from finished runs.

        For each network final and best accuracy over seeds; and how much sooner the normalized network reaches the best
        accuracy that the plain one has with the same seed. Spread is the sample standard deviation.
        """
        plain, normalized = self.complete("plain"), self.complete("batch_norm")
        table: dict[str, dict] = {}
        best = {run.seed: max(run.accuracy) for run in plain}
        for network, runs in (("plain", plain), ("batch_norm", normalized)):
            if not runs:
                continue
            steps = [run.steps_to(best[run.seed]) for run in runs if run.seed in best]
            table[network] = {
                "seeds": len(runs),
                "final_accuracy": spread([run.accuracy[-1] for run in runs]),
                "best_accuracy": spread([max(run.accuracy) for run in runs]),
                "steps_to_plain_best": spread([step for step in steps if step is not None]),
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
            table["batch_norm"]["times_fewer_steps"] = spread(ratios)
        return table
