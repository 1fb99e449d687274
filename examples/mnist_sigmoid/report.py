"""The table on the terminal and Figure 1."""

import os
from pathlib import Path

import matplotlib
import numpy as np

from examples.mnist_sigmoid.network import NETWORKS
from examples.mnist_sigmoid.results import Results, summary

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"plain": "#b5520b", "batch_norm": "#1f5fa8"}


def table(results: Results) -> str:
    """What the finished runs say, as text; values are mean ± standard deviation over seeds."""
    rows = [
        ("network", "seeds", "final accuracy", "best accuracy", "steps to plain's best", "times fewer", "training time")
    ]
    found = summary(results)
    for network, label in NETWORKS.items():
        if network not in found:
            continue
        row = found[network]
        reached, of = row["reached_plain_best"]
        steps = _text(row["steps_to_plain_best"], "{:,.0f}") if reached else "not reached"
        if reached < of:
            steps += f" ({reached} of {of} seeds)"
        rows.append(
            (
                label,
                str(row["seeds"]),
                _text(row["final_accuracy"], "{:.2%}"),
                _text(row["best_accuracy"], "{:.2%}"),
                steps,
                _text(row.get("times_fewer_steps"), "{:.1f}"),
                f"{row['seconds']:.0f} s",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def figure(results: Results) -> Path | None:
    """Draws Figure 1 of the paper from the finished runs; `None` where there is none.

    a: test accuracy, mean over seeds with the band from the lowest to the highest. b, c: percentiles of the inputs of
        one
    sigmoid of the last hidden layer, of the first seed, as in the paper of one network.
    """
    runs = {network: results.complete(network) for network in NETWORKS}
    runs = {network: found for network, found in runs.items() if found}
    if not runs:
        return None
    settings = results.settings
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.8), width_ratios=(1.5, 1, 1), layout="constrained")
    for network, found in runs.items():
        steps = found[0].steps
        accuracy = np.array([run.accuracy for run in found])
        axes[0].fill_between(steps, accuracy.min(0), accuracy.max(0), color=COLORS[network], alpha=0.25, linewidth=0)
        axes[0].plot(steps, accuracy.mean(0), color=COLORS[network], label=NETWORKS[network], linewidth=1.5)
    lowest = min(np.mean([run.accuracy for run in found], axis=0)[len(found[0].steps) // 10] for found in runs.values())
    axes[0].set(xlabel="training steps", ylabel="test accuracy", ylim=(max(0.0, min(lowest, 0.9) - 0.1), 1.0))
    seeds = min(map(len, runs.values()))
    axes[0].set_title(
        f"a  {settings.dataset}: mean over {seeds} seed{'s' * (seeds > 1)}, band from lowest to highest",
        fontsize=9,
        loc="left",
    )
    axes[0].legend(loc="lower right", frameon=False)
    axes[0].grid(alpha=0.3)
    for letter, ax, (network, label) in zip("bc", axes[1:], NETWORKS.items(), strict=True):
        ax.set_title(f"{letter}  sigmoid inputs, {label}", fontsize=9, loc="left")
        ax.set(xlabel="training steps")
        ax.grid(alpha=0.3)
        if network not in runs:
            continue
        run = runs[network][0]
        low, middle, high = np.transpose(run.percentiles)
        for values, name, style in ((high, "85th", ":"), (middle, "50th", "-"), (low, "15th", "--")):
            ax.plot(run.steps, values, style, color=COLORS[network], label=f"{name} percentile", linewidth=1.2)
        ax.legend(fontsize=7, frameon=False)
    axes[1].set_ylabel("input of one last-layer sigmoid")
    path = results.folder / "figure1.png"
    temporary = path.with_suffix(".tmp.png")
    fig.savefig(temporary, dpi=130)
    os.replace(temporary, path)
    plt.close(fig)
    return path


def _text(spread: dict | None, form: str) -> str:
    if spread is None:
        return "-"
    text = form.format(spread["mean"])
    return text if spread["stdev"] is None else f"{text} ± {form.format(spread['stdev'])}"
