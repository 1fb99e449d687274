"""How far the trainings of a command are."""

from collections.abc import Callable, Iterable

from benchmarks.progress import Progress
from examples.results import Results, Run


def of_trainings(results: Results, planned: Iterable[tuple[str, int]]) -> Progress:
    """Progress in training steps, for networks and seeds; what was trained before is done."""
    steps = {each: results.planned(each[0]) for each in planned}
    done = sum(steps[name, seed] * share(results, name, seed) for name, seed in steps)
    return Progress("training", total=sum(steps.values()), done=done)


def train_to_end(
    progress: Progress,
    results: Results,
    run: Run,
    title: str,
    train: Callable[[Results, Run, Callable[[Run], None]], None],
    weight: float | None = None,
) -> None:
    """Calls `train(results, run, on_measurement)` unless `run` has ended, and tells `progress` of each measurement.

    Args:
        progress: The progress of the command.
        results: What `run` is one of.
        run: The run.
        title: What it is called.
        train: What trains it.
        weight: How much work it is for `progress` (default: its steps).
    """
    if results.has_ended(run):
        return
    weight = results.planned(run.network) if weight is None else weight
    before = share(results, run.network, run.seed)

    def show(run: Run) -> None:
        nonlocal before
        now = share(results, run.network, run.seed)
        found = "diverged" if run.diverged else f"accuracy={run.accuracy[-1]:.4f} after {run.steps[-1]:,} steps"
        progress.add(weight * (now - before), f"{title}: {found}")
        before = now

    train(results, run, show)


def share(results: Results, network: str, seed: int) -> float:
    """The part of a training that was done before, or that it does not need because it diverged."""
    for run in results.runs:
        if (run.network, run.seed) == (network, seed):
            return 1.0 if results.has_ended(run) else run.steps[-1] / results.planned(network) if run.steps else 0.0
    return 0.0
