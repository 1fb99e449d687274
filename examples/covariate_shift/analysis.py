"""Does the shift fall, and does it go with faster training? Numbers, intervals and a word for each metric."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from examples.covariate_shift.comparisons import BASELINE, METRIC_LABELS, NETWORKS, PERIODS, PLACES
from examples.covariate_shift.correlation import rank_correlation
from examples.covariate_shift.results import ShiftRun
from examples.results import spread
from kerasbn.intervals import Interval, geometric_mean

Runs = Mapping[str, Sequence[ShiftRun]]


@dataclass(frozen=True)
class Row:
    """One metric at one place.

    Attributes:
        place: A key of `PLACES`.
        metric: A key of `METRIC_LABELS`.
        period: A key of `PERIODS`.
        levels: For each network mean and deviation over seeds of its level.
        ratios: For each other network its level over the baseline's, seed by seed.
        correlation: Of level and speed, over networks and seeds.
        within: The same within networks.
    """

    place: str
    metric: str
    period: str
    levels: dict[str, dict[str, float | None] | None]
    ratios: dict[str, Interval]
    correlation: Interval
    within: Interval


def level(run: ShiftRun, place: str, metric: str, period: str) -> float:
    """The median over the snapshots of a period of a shift, NaN if it was never finite."""
    if run.parts[0] == BASELINE and place == "linear":
        place = "nonlinearity"  # there is nothing in between
    late = period == "late"
    values = run.shift.get(f"{place}/{metric}/{'step' if late else period}", [])
    finite = [value for value in values[len(values) // 2 if late else 0 :] if value is not None]
    return statistics.median(finite) if finite else math.nan


def analyse(compared: Runs) -> list[Row]:
    """A row for each place, period and metric, of the runs that did not diverge."""
    healthy = {name: [run for run in runs if not run.diverged] for name, runs in compared.items()}
    return [_row(healthy, place, metric, period) for place in PLACES for period in PERIODS for metric in METRIC_LABELS]


def _row(healthy: Runs, place: str, metric: str, period: str) -> Row:
    levels = {name: {run.seed: level(run, place, metric, period) for run in runs} for name, runs in healthy.items()}
    base = levels.get(BASELINE, {})
    ratios = {
        name: geometric_mean([_over(value, base[seed]) for seed, value in found.items() if seed in base] or [math.nan])
        for name, found in levels.items()
        if name != BASELINE
    }
    x = [value for found in levels.values() for value in found.values()]
    y = [run.mean_accuracy for runs in healthy.values() for run in runs]
    groups = [name for name, runs in healthy.items() for _ in runs]
    return Row(
        place,
        metric,
        period,
        {name: _spread(found.values()) for name, found in levels.items()},
        ratios,
        rank_correlation(x, y),
        rank_correlation([_log(value) for value in x], y, groups),
    )


def change(ratio: Interval) -> str:
    """What became of it: whether the interval of a ratio to the baseline leaves out 1."""
    return "falls" if ratio.high < 1 else "rises" if ratio.low > 1 else "-"


def goes_with_speed(correlation: Interval) -> str:
    """Whether faster training goes with less shift or with more: whether the interval leaves out 0."""
    return "less" if correlation.high < 0 else "more" if correlation.low > 0 else "-"


def verdict(words: Iterable[str], less: str, more: str) -> str:
    """One word for several: what most say and none denies; otherwise that it depends."""
    words = list(words)
    low, high = words.count(less), words.count(more)
    if low and high:
        return "depends"
    if 2 * max(low, high) > len(words):
        return less if low else more
    return "not shown"


def faster(compared: Runs) -> dict[str, Interval]:
    """Mean accuracy over the training of each other network over the baseline's, seed by seed."""
    base = {run.seed: run for run in compared.get(BASELINE, ()) if not run.diverged}
    return {
        name: geometric_mean(
            [run.mean_accuracy / base[run.seed].mean_accuracy for run in runs if run.seed in base and not run.diverged]
            or [math.nan]
        )
        for name, runs in compared.items()
        if name in NETWORKS and name != BASELINE
    }


def _spread(levels: Iterable[float]) -> dict[str, float | None] | None:
    finite = [value for value in levels if math.isfinite(value)]
    return spread(finite, lambda value: float(f"{value:.3g}"))


def _over(value: float, base: float) -> float:
    return value / base if base else math.nan


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan
