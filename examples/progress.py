"""A training with a bar that shows how far it is."""

from collections.abc import Callable

from tqdm import tqdm

from examples.results import Results, Run


def with_bar(
    results: Results, run: Run, title: str, train: Callable[[Results, Run, Callable[[Run], None]], None]
) -> None:
    """Calls `train(results, run, on_measurement)` unless `run` has ended."""
    if results.has_ended(run):
        return
    start = run.steps[-1] if run.steps else 0
    with tqdm(desc=title, total=results.planned(run.network), initial=start, unit="step", ascii=True) as bar:

        def show(run: Run) -> None:
            bar.update((run.steps[-1] if run.steps else 0) - bar.n)
            bar.set_postfix_str("diverged" if run.diverged else f"accuracy={run.accuracy[-1]:.4f}")

        train(results, run, show)
