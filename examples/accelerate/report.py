"""`python -m examples.accelerate.report RESULTS`: the table and the figure, without training anything."""

import sys

from examples import command


def main(arguments: list[str] | None = None) -> int:
    return command.report(arguments, "accelerate", "Prints the table and writes figure.png.")


if __name__ == "__main__":  # above the imports of `make`, which take seconds
    sys.exit(main())

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.report import write_whole
from examples.accelerate.training import NETWORKS, Results
from examples.results import ResultsMissing, text

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"baseline": "#b5520b", "accelerated": "#1f5fa8"}


def table(results: Results) -> str:
    """Finished runs; mean ± standard deviation over seeds."""
    rows = [("network", "seeds", "best accuracy", "final accuracy", "steps to baseline's best", "times fewer")]
    for network, row in results.summary().items():
        reached, of = row["reached"]
        steps = text(row["steps_to_baseline_best"], "{:,.0f}")
        if reached < of:
            steps += f" ({reached} of {of} seeds)"
        ratio = "" if network == "baseline" else text(row["times_fewer_steps"], "{:.1f}")
        accuracies = (text(row[name], "{:.2%}") for name in ("best_accuracy", "final_accuracy"))
        rows.append((network, str(row["seeds"]), *accuracies, steps, ratio))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def write(results: Results, folder: Path) -> list[Path]:
    """Writes `figure.png`: test accuracy against steps and seconds; mean over seeds, band from lowest to highest.

    Raises:
        ResultsMissing: If no training has ended.
    """
    if not any(map(results.complete, NETWORKS)):
        raise ResultsMissing(f"No training of {results.path} has ended yet. Run `python -m examples.accelerate`.")
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
    for network, label in NETWORKS.items():
        runs = results.complete(network)
        if not runs:
            continue
        accuracy = np.array([run.accuracy for run in runs])
        for ax, x in zip(axes, (runs[0].steps, np.mean([run.seconds for run in runs], 0)), strict=True):
            ax.fill_between(x, accuracy.min(0), accuracy.max(0), color=COLORS[network], alpha=0.25, linewidth=0)
            ax.plot(x, accuracy.mean(0), color=COLORS[network], label=label, linewidth=1.5)
    best = [max(run.accuracy) for run in results.complete("baseline")]
    if best:
        for ax in axes:
            ax.axhline(np.mean(best), color=COLORS["baseline"], linewidth=0.8, linestyle=":")
    axes[0].set(xlabel="training steps", ylabel="test accuracy")
    axes[1].set(xlabel="seconds of training, first steps included")
    seeds = min(len(runs) for runs in map(results.complete, NETWORKS) if runs)
    band = f"mean of {seeds} seeds, band from lowest to highest" if seeds > 1 else "one seed"
    axes[0].set_title(f"{results.settings.dataset}: {band}", fontsize=9, loc="left")
    axes[1].set_title("dotted: the baseline's best", fontsize=9, loc="left")
    axes[0].legend(loc="lower right", frameon=False, fontsize=9)
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    path = folder / "figure.png"
    picture = io.BytesIO()
    fig.savefig(picture, dpi=130, format="png")
    plt.close(fig)
    write_whole(path, picture.getvalue())
    return [path]


def make(path: Path, out: Path | None) -> tuple[str, Callable[[], list[Path]]]:
    """The table of the results in `path`, and what writes the figure."""
    results = Results.read(path)
    return table(results), lambda: write(results, out or results.folder)
