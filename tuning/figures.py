"""The pictures of a study."""

import io
import math
from typing import Any

import matplotlib
import numpy as np

from tuning.results import ARMS, METRIC, Study
from tuning.summary import names

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"plain": "#b5520b", "normalized": "#1f5fa8"}
MARKERS = {"plain": "o", "normalized": "s"}
DIVERGED = "#a3123a"


def rates(study: Study, accuracy: float | None) -> bytes:
    """Accuracy at the end and steps to `accuracy` against the learning rate, divergence marked, for both arms."""
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for arm in ARMS:
        _accuracies(axes[0], study, arm)
        if accuracy is not None:
            _steps(axes[1], study, arm, accuracy)
        for ax in axes:
            _stable(ax, study, arm)
    title = f"{study.settings['dataset']}: mean of {study.settings['seeds']} seeds, bars of one standard deviation"
    axes[0].set(ylabel="accuracy at the end", title=title)
    axes[1].set(
        ylabel="steps", title="" if accuracy is None else f"steps to {accuracy:.1%}, the best of the plain ones"
    )
    for ax in axes:
        ax.set(xscale="log", xlabel="learning rate")
        ax.set_title(ax.get_title(), fontsize=9)
        _plain_axes(ax)
    found = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    labels = sorted(found, key=lambda label: not label.startswith("plain"))
    fig.legend(
        [found[label] for label in labels], labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    return _png(fig)


def _accuracies(ax: Any, study: Study, arm: str) -> None:
    healthy = [trial for trial in study.of(arm) if trial.accuracy is not None]
    ax.errorbar(
        [study.rate(trial) for trial in healthy],
        [trial.accuracy for trial in healthy],
        [trial.spread for trial in healthy],
        color=COLORS[arm],
        marker=MARKERS[arm],
        markersize=5,
        linestyle="none" if names(study) else "-",
        linewidth=1,
        capsize=2,
        label=arm,
    )
    dead = [study.rate(trial) for trial in study.of(arm) if trial.accuracy is None]
    ax.plot(
        dead,
        [0.02 if arm == "plain" else 0.05] * len(dead),
        color=COLORS[arm],
        linestyle="none",
        marker="x",
        markersize=6,
        transform=ax.get_xaxis_transform(),
        label=f"{arm}: diverged" if dead else None,
    )


def _steps(ax: Any, study: Study, arm: str, accuracy: float) -> None:
    reached, censored = [], []
    for trial in study.of(arm):
        steps = [each for each in trial.steps_to(accuracy) if each is not None]
        if not trial.diverged:
            (reached if len(steps) == len(trial.executions) else censored).append((study.rate(trial), steps))
    style: dict[str, Any] = {"color": COLORS[arm], "marker": MARKERS[arm], "markersize": 5}
    line = "none" if names(study) else "-"
    ax.plot([rate for rate, _ in reached], [np.mean(s) for _, s in reached], linestyle=line, linewidth=1, **style)
    above = study.settings["steps"] * (1.03 if arm == "plain" else 1.08)
    ax.plot(
        [rate for rate, _ in censored],
        [above] * len(censored),
        linestyle="none",
        markerfacecolor="none",
        label=f"{arm}: not reached by every seed",
        **style,
    )
    dead = [study.rate(trial) for trial in study.of(arm) if trial.diverged]
    ax.plot(dead, [above] * len(dead), color=COLORS[arm], linestyle="none", marker="x", markersize=6)
    ax.set_ylim(0, study.settings["steps"] * 1.14)


def _stable(ax: Any, study: Study, arm: str) -> None:
    found = [rate for rate in (study.stable or {}).get(arm, ()) if rate]
    if found:
        mean = math.exp(np.mean(np.log(found)))
        ax.axvspan(min(found), max(found), color=COLORS[arm], alpha=0.12, linewidth=0)
        ax.axvline(mean, color=COLORS[arm], linestyle=":", linewidth=1, label=f"{arm}: largest stable rate")


def curves(study: Study) -> bytes:
    """Accuracy against steps for the best trial of each arm: each seed, and the mean."""
    fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for arm in ARMS:
        best = study.best(arm)
        if best is None:
            continue
        steps = best.executions[0].curves["steps"]
        accuracies = np.array([each.curves[METRIC] for each in best.executions], dtype=float)
        ax.plot(steps, accuracies.T, color=COLORS[arm], alpha=0.3, linewidth=0.8)
        label = f"{arm}, learning rate {study.rate(best):.2g}"
        ax.plot(steps, accuracies.mean(0), color=COLORS[arm], marker=MARKERS[arm], markersize=4, label=label)
    ax.set(xlabel="training steps", ylabel="accuracy on examples held out")
    ax.set_title("The best trial of each arm: mean of its seeds, and each of them", fontsize=9)
    if ax.lines:
        ax.legend(frameon=False, loc="lower right")
    _plain_axes(ax)
    return _png(fig)


def parallel(study: Study) -> bytes:
    """Parallel coordinates: a line for each trial through its hyperparameters to its accuracy."""
    columns = ["arm", "learning rate", *(name.removeprefix("kerasbn/") for name in names(study)), "accuracy"]
    fig, ax = plt.subplots(figsize=(max(7.0, 2.2 * len(columns)), 4.4), layout="constrained")
    values = [
        [trial.arm, study.rate(trial), *(trial.values.get(name) for name in names(study)), trial.accuracy]
        for trial in study.trials
    ]
    scaled = np.column_stack([_scaled(ax, i, [row[i] for row in values]) for i in range(len(columns))])
    best = np.argsort([-1.0 if row[-1] is None else row[-1] for row in values])
    for index in best:  # the best on top
        trial, line = study.trials[index], scaled[index]
        if trial.accuracy is None:
            ax.plot(range(len(columns)), line, color=DIVERGED, alpha=0.35, linewidth=1, linestyle="--")
        else:
            ax.plot(range(len(columns)), line, color=COLORS[trial.arm], alpha=0.75, linewidth=1.2)
    ax.set_xticks(range(len(columns)), columns)
    ax.set(yticks=[], xlim=(-0.35, len(columns) - 0.5), ylim=(-0.12, 1.08))
    ax.set_title("Each line a trial; dashed: one or more of its trainings diverged", fontsize=9)
    ax.spines[:].set_visible(False)
    return _png(fig)


def _scaled(ax: Any, column: int, values: list[Any]) -> np.ndarray:
    """The values of a column from 0 to 1, with the axis that they are read on; -0.08 for none."""
    known = [value for value in values if value is not None]
    ax.axvline(column, color="#888888", linewidth=0.8)
    style: dict[str, Any] = {"fontsize": 8, "ha": "right", "va": "center", "color": "#333333", "zorder": 5}
    style["bbox"] = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
    if any(None is value for value in values):
        ax.text(column - 0.04, -0.08, "diverged", **style)
    if not known:
        return np.full(len(values), -0.08)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        logs = min(known) > 0 and max(known) / min(known) > 20
        move = math.log10 if logs else float
        low, high = move(min(known)), move(max(known))
        for share in np.linspace(0, 1, 5 if high > low else 1):
            at = low + share * (high - low)
            ax.text(column - 0.04, share, f"{10**at if logs else at:.2g}", **style)
        return np.array([-0.08 if v is None else (move(v) - low) / ((high - low) or 1) for v in values])
    kinds = sorted(set(map(str, known)))
    for i, kind in enumerate(kinds):
        ax.text(column - 0.04, i / max(1, len(kinds) - 1), kind, **style)
    return np.array([-0.08 if v is None else kinds.index(str(v)) / max(1, len(kinds) - 1) for v in values])


def _plain_axes(ax: Any) -> None:
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)


def _png(fig: Any) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=130, format="png", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()
