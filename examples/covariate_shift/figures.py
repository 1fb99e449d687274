"""Accuracy against steps, each metric against steps, and shift against speed."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from examples.covariate_shift.analysis import analyse, level
from examples.covariate_shift.comparisons import BASELINE, COMPARISONS, METRIC_LABELS, NETWORKS, PLACES, SINCE
from examples.covariate_shift.results import Results, ShiftRun

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

COLORS = dict(zip(NETWORKS, ("#222222", "#1f5fa8", "#c9541a"), strict=True))
MARKERS = dict(zip(NETWORKS, "osD", strict=True))
#: Both sides of the nonlinearity, which are drawn; what is before BN is added to the first, dashed.
SIDES = ("nonlinearity", "layer")


def draw(results: Results) -> dict[str, bytes]:
    """The figures as PNG by the names of their files."""
    files = {"accuracy.png": _accuracy(results)}
    for comparison in COMPARISONS:
        if results.compared(comparison):
            files[f"shift_{comparison}_rate.png"] = _shifts(results, comparison)
            files[f"speed_{comparison}_rate.png"] = _speed(results, comparison)
    return files


def _accuracy(results: Results) -> bytes:
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
    for ax, (comparison, label) in zip(axes, COMPARISONS.items(), strict=True):
        for name, runs in results.compared(comparison).items():
            healthy = [run for run in runs if not run.diverged]
            if healthy:
                rate = f"{NETWORKS[name]}, rate {runs[0].parts[1]:g}, {len(healthy)} of {len(runs)} seeds"
                _band(ax, healthy[0].steps, [run.accuracy for run in healthy], name, label=rate)
        ax.set_title(f"{results.settings.dataset}, {results.settings.activation}: {label}", fontsize=9, loc="left")
        ax.set_xlabel("training steps")
        ax.set_xlim(left=0)
        _plain(ax)
        if ax.has_data():
            ax.legend(frameon=False, fontsize=8, loc="lower right")
    axes[0].set_ylabel("test accuracy (mean, band: lowest to highest)")
    return _png(fig)


def _shifts(results: Results, comparison: str) -> bytes:
    compared = results.compared(comparison)
    columns = [(place, since) for place in SIDES for since in SINCE]
    fig, axes = plt.subplots(
        len(METRIC_LABELS),
        len(columns),
        figsize=(11, 1.75 * len(METRIC_LABELS) + 1),
        sharex=True,
        layout="constrained",
    )
    for row, (metric, label) in zip(axes, METRIC_LABELS.items(), strict=True):
        row[0].set_ylabel(label, fontsize=8)
        for ax, (place, since) in zip(row, columns, strict=True):
            for name, runs in compared.items():
                healthy = [run for run in runs if not run.diverged]
                _curve(ax, healthy, f"{place}/{metric}/{since}", name)
                if place == "nonlinearity":
                    _curve(ax, healthy, f"linear/{metric}/{since}", name, linestyle=":", band=False)
            if ax.has_data():
                ax.set_yscale("log")
                _few_ticks(ax.yaxis)
            _plain(ax)
    for ax, (place, since) in zip(axes[0], columns, strict=True):
        ax.set_title(f"{PLACES[place]},\n{SINCE[since]}", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("training steps", fontsize=8)
    handles: list[Any] = [Line2D([], [], color=COLORS[name], label=NETWORKS[name]) for name in compared]
    handles += [
        Line2D([], [], color=COLORS[name], linestyle=":", label=f"{NETWORKS[name]}: what comes into BN")
        for name in compared
        if name != BASELINE
    ]
    handles.append(Patch(color="#999999", alpha=0.3, label="lowest to highest seed"))
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    fig.suptitle(f"{results.settings.dataset}, {results.settings.activation}: {COMPARISONS[comparison]}", fontsize=10)
    return _png(fig)


def _speed(results: Results, comparison: str) -> bytes:
    compared = results.compared(comparison)
    correlations = {(row.place, row.metric, row.period): row.correlation for row in analyse(compared)}
    lines = [(place, since) for place in SIDES for since in SINCE]
    fig, axes = plt.subplots(
        len(lines), len(METRIC_LABELS), figsize=(13, 2.1 * len(lines) + 0.8), sharey=True, layout="constrained"
    )
    for row, (place, since) in zip(axes, lines, strict=True):
        row[0].set_ylabel(f"{PLACES[place]},\n{SINCE[since]}\n\nmean test accuracy", fontsize=8)
        for ax, metric in zip(row, METRIC_LABELS, strict=True):
            for name, runs in compared.items():
                healthy = [run for run in runs if not run.diverged]
                levels = {run.seed: level(run, place, metric, since) for run in healthy}
                shown = [run for run in healthy if levels[run.seed] > 0]  # not NaN
                if not shown:
                    continue
                x, y = [levels[run.seed] for run in shown], [run.mean_accuracy for run in shown]
                ax.scatter(x, y, s=18, marker=MARKERS[name], color=COLORS[name], alpha=0.8, linewidths=0)
            if ax.has_data():
                ax.set_xscale("log")
                _few_ticks(ax.xaxis)
            found = correlations[place, metric, since]
            if np.isfinite(found.mean):
                ax.set_title(rf"$\rho$ = {found.mean:.2f} ({found.low:.2f} to {found.high:.2f})", fontsize=8)
            _plain(ax)
    for ax, label in zip(axes[-1], METRIC_LABELS.values(), strict=True):
        ax.set_xlabel(label, fontsize=8)
    handles = [
        Line2D([], [], color=COLORS[name], marker=MARKERS[name], linestyle="none", label=NETWORKS[name])
        for name in compared
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    title = "shift (median over the training) against speed, a point a seed; Spearman's $\\rho$ (95 %)"
    fig.suptitle(
        f"{results.settings.dataset}, {results.settings.activation}, {COMPARISONS[comparison]}: {title}", fontsize=10
    )
    return _png(fig)


def _curve(ax: Any, runs: Sequence[ShiftRun], key: str, name: str, band: bool = True, **style: Any) -> None:
    runs = [run for run in runs if key in run.shift]
    if runs:
        values = [[np.nan if value is None else value for value in run.shift[key]] for run in runs]
        _band(ax, runs[0].steps, values, name, band=band, **style)


def _band(
    ax: Any, steps: Sequence[int], values: Sequence[Sequence[float]], name: str, band: bool = True, **style: Any
) -> None:
    """Mean over seeds, and the band from lowest to highest. Zeros are left out: the axis is logarithmic."""
    found = np.array(values, "float64")
    found[found == 0] = np.nan
    whole = np.isfinite(found).all(0)
    if not whole.any():
        return
    x, found = np.asarray(steps)[whole], found[:, whole]
    if band:
        ax.fill_between(x, found.min(0), found.max(0), color=COLORS[name], alpha=0.2, linewidth=0)
    ax.plot(x, found.mean(0), color=COLORS[name], linewidth=1.3, **style)


def _few_ticks(axis: Any) -> None:
    """Names 1, 2 and 5 times each power of ten where there are few of these, and else the powers."""
    axis.axes.tick_params(labelsize=7)
    low, high = axis.get_data_interval()
    narrow = 0 < low < high < 30 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=4))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _plain(ax: Any) -> None:
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)


def _png(fig: Any) -> bytes:
    drawn, small = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, dpi=110, format="png")
    plt.close(fig)
    with Image.open(drawn) as image:  # many small curves: with a palette a quarter of the size
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()
