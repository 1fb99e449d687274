"""The table of Fig. 3: each network beside the baseline, seed by seed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from examples.measured import Measured
from examples.results import spread
from kerasbn.intervals import geometric_mean


def compare(networks: Mapping[str, Sequence[Measured]], baseline: str) -> dict[str, dict[str, Any]]:
    """For each network over its seeds: accuracies, and how soon it has the best accuracy of the baseline.

    The target is the baseline's best with the same seed. A run that never has it, or diverges, is censored. Only if no
    seed of a network is, there are ratios: of the baseline's steps, or seconds, to its own best, to the network's to
    the same, as geometric mean over seeds with the interval of 95 %.

    Args:
        networks: The ended runs of each network, one a seed.
        baseline: Its name.
    """
    bases = {run.seed: run for run in networks.get(baseline, ()) if not run.diverged}
    return {name: _row(runs, bases, name == baseline) for name, runs in networks.items()}


def _row(runs: Sequence[Measured], bases: Mapping[int, Measured], is_baseline: bool) -> dict[str, Any]:
    healthy = [run for run in runs if not run.diverged]
    pairs = [(bases[run.seed], run) for run in runs if run.seed in bases]
    reached = [None if run.diverged else run.steps_to(max(base.accuracy)) for base, run in pairs]
    steps = [step for step in reached if step is not None]
    row: dict[str, Any] = {
        "seeds": len(runs),
        "diverged_at": [run.diverged_at for run in runs if run.diverged],
        "max_accuracy": spread([max(run.accuracy) for run in healthy]),
        "final_accuracy": spread([run.accuracy[-1] for run in healthy]),
        "reached": [len(steps), len(pairs)],
        "steps_to_target": spread(steps),
        "times_fewer_steps": None,
        "times_less_time": None,
    }
    if pairs and len(steps) == len(pairs) and not is_baseline:
        targets = [(base, base.steps_to(max(base.accuracy))) for base, _ in pairs]
        row["times_fewer_steps"] = _interval([first / step for (_, first), step in zip(targets, steps, strict=True)])
        row["times_less_time"] = _interval(
            [
                _seconds(base, first) / _seconds(run, step)
                for (base, first), (_, run), step in zip(targets, pairs, steps, strict=True)
            ]
        )
    return row


def _seconds(run: Measured, step: int) -> float:
    return run.seconds[run.steps.index(step)]


def _interval(ratios: list[float]) -> dict[str, float | None]:
    """The interval of one seed is infinite, which JSON cannot say."""
    found = geometric_mean(ratios)
    return {name: round(value, 4) if 0 < value < math.inf else None for name, value in found._asdict().items()}
