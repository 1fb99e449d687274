"""`python -m examples.covariate_shift.report RESULTS`: tables and figures, without training anything."""

import sys

from examples import command


def main(arguments: list[str] | None = None) -> int:
    return command.report(arguments, "covariate_shift", "Prints the tables, and writes table.md and the figures.")


if __name__ == "__main__":  # above the imports of `make`, which take seconds
    sys.exit(main())

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import markdown, table, write_whole
from examples.covariate_shift import figures
from examples.covariate_shift.analysis import Row, analyse, change, faster, goes_with_speed, verdict
from examples.covariate_shift.comparisons import BASELINE, COMPARISONS, METRIC_LABELS, NETWORKS, PERIODS, PLACES
from examples.covariate_shift.results import Results
from examples.inception.comparison import compare
from examples.results import ResultsMissing, spread, text
from kerasbn.intervals import Interval

Rows = list[list[str]]


def search_rows(results: Results) -> Rows:
    """The mean accuracy of each network at each rate of the search."""
    rates = [f"{rate:g}" for rate in results.settings.rates]
    lines = [["mean accuracy over the training, rate", *rates, "taken"]]
    for network, row in results.searched().items():
        cells = [text(row[rate]["mean_accuracy"], "{:.1%}") if rate in row else "" for rate in rates]
        taken = results.rate(network)
        lines.append([NETWORKS[network], *cells, "" if taken is None else f"{taken:g}"])
    return lines


def speed_rows(results: Results, comparison: str) -> Rows:
    """How fast each network trains."""
    lines = [
        [
            "network",
            "rate",
            "seeds",
            "mean accuracy over the training",
            "over the baseline's (95 %)",
            "final accuracy",
            "steps to the baseline's best",
            "times fewer (95 %)",
        ]
    ]
    compared = results.compared(comparison)
    ratios, rows = faster(compared), compare(compared, BASELINE)
    for name, runs in compared.items():
        row, healthy = rows[name], [run for run in runs if not run.diverged]
        reached, of = row["reached"]
        steps = text(row["steps_to_target"], "{:,.0f}") + (f" ({reached} of {of} seeds)" if reached < of else "")
        fewer = row["times_fewer_steps"]
        diverged = f" ({len(row['diverged_at'])} diverged)" if row["diverged_at"] else ""
        lines.append(
            [
                NETWORKS[name],
                f"{runs[0].parts[1]:g}",
                f"{len(runs)}{diverged}",
                text(spread([run.mean_accuracy for run in healthy]), "{:.1%}"),
                "" if name == BASELINE else _interval(ratios[name]),
                text(row["final_accuracy"], "{:.1%}"),
                steps,
                _interval(Interval(*map(_number, fewer.values()))) if fewer else "" if name == BASELINE else "-",
            ]
        )
    return lines


def shift_rows(results: Results, comparison: str) -> Rows:
    """Every metric at every place."""
    others = [name for name in NETWORKS if name != BASELINE]
    lines = [
        [
            "where",
            "shift",
            "metric",
            *NETWORKS.values(),
            *(f"{NETWORKS[name]} / without" for name in others),
            "BN",
            "noise",
            "rank correlation with speed",
            "within networks",
        ]
    ]
    for row in analyse(results.compared(comparison)):
        nan = Interval(math.nan, math.nan, math.nan)
        ratios = [row.ratios.get(name, nan) for name in others]
        lines.append(
            [
                PLACES[row.place],
                PERIODS[row.period],
                METRIC_LABELS[row.metric],
                *(text(row.levels.get(name), "{:.3g}") for name in NETWORKS),
                *map(_interval, ratios),
                *map(change, ratios),
                *map(_interval, (row.correlation, row.within)),
            ]
        )
    return lines


def verdict_rows(results: Results) -> Rows:
    """For each metric one word, of both sides of the nonlinearity, all periods and both comparisons."""
    lines = [
        [
            "metric",
            "with BN it",
            "with BN and noise it",
            "faster training goes with",
            "within networks with",
        ]
    ]
    rows = [row for name in COMPARISONS for row in analyse(results.compared(name)) if row.place != "linear"]
    nan = Interval(math.nan, math.nan, math.nan)
    sources: list[tuple[Callable[[Row], str], tuple[str, str]]] = [
        (lambda row: change(row.ratios.get("batch_norm", nan)), ("falls", "rises")),
        (lambda row: change(row.ratios.get("noisy", nan)), ("falls", "rises")),
        (lambda row: goes_with_speed(row.correlation), ("less", "more")),
        (lambda row: goes_with_speed(row.within), ("less", "more")),
    ]
    for metric, label in METRIC_LABELS.items():
        cells = []
        for word, names in sources:
            words = [word(row) for row in rows if row.metric == metric]
            counts = Counter(words)
            cells.append(f"{verdict(words, *names)} ({', '.join(f'{counts[n]} {n}' for n in names)} of {len(words)})")
        lines.append([label, *cells])
    return lines


def as_text(results: Results, form: Callable[[Rows], str] = table, *, whole: bool = False) -> str:
    """The tables, by `benchmarks.report.table` or `markdown`; if `whole`, with that of every metric at every place."""
    parts = [form(search_rows(results)), remark(results)] if results.searched() else []
    found = {name: label for name, label in COMPARISONS.items() if results.compared(name)}
    for name, label in found.items():
        parts += [f"Speed, {label}:", form(speed_rows(results, name))]
    parts += ["The shift, over both sides of the nonlinearity, periods and comparisons:", form(verdict_rows(results))]
    for name, label in found.items() if whole else ():
        parts += [f"The shift, {label}:", form(shift_rows(results, name))]
    return "\n\n".join(part for part in parts if part)


def remark(results: Results) -> str:
    """Where the best rate is at an end of those that were tried."""
    rates = results.settings.rates
    ends = [NETWORKS[name] for name in NETWORKS if results.rate(name) in (rates[0], rates[-1])]
    return f"At an end of the rates that were tried: {', '.join(ends)}." if ends else ""


def write(results: Results, folder: Path) -> list[Path]:
    """Writes `table.md` and the figures, each whole or not at all."""
    files = {"table.md": (as_text(results, markdown, whole=True) + "\n").encode(), **figures.draw(results)}
    for name, content in files.items():
        write_whole(folder / name, content)
    return [folder / name for name in files]


def _interval(found: Interval) -> str:
    if not math.isfinite(found.mean):
        return "-"
    if not math.isfinite(found.high):  # one seed
        return f"{found.mean:.3g}"
    return f"{found.mean:.3g} ({found.low:.3g} to {found.high:.3g})"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def make(path: Path, out: Path | None) -> tuple[str, Callable[[], list[Path]]]:
    """The tables of the results in `path`, and what writes the files.

    Raises:
        ResultsMissing: If there is nothing to be shown.
    """
    results = Results.read(path)
    if not any(map(results.compared, COMPARISONS)):
        raise ResultsMissing(f"No training of {results.path} has ended yet. Run `python -m examples.covariate_shift`.")
    return as_text(results), lambda: write(results, out or results.folder)
