"""`python -m examples.mnist_sigmoid.report RESULTS`: the table and Figure 1, without training anything."""

import sys

from examples import command


def main(arguments: list[str] | None = None) -> int:
    return command.report(arguments, "mnist_sigmoid", "Prints the table and writes figure1.png.", published="mnist")


if __name__ == "__main__":  # above the imports of `make`, which take seconds
    sys.exit(main())

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.report import write_whole
from examples.mnist_sigmoid.network import NETWORKS
from examples.mnist_sigmoid.results import Results, Run
from examples.results import ResultsMissing, text

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"plain": "#b5520b", "batch_norm": "#1f5fa8"}


def table(results: Results) -> str:
    """What the finished runs say, as text; values are mean ± standard deviation over seeds."""
    rows = [
        ("network", "seeds", "final accuracy", "best accuracy", "steps to plain's best", "times fewer", "training time")
    ]
    found = results.summary()
    for network, label in NETWORKS.items():
        if network not in found:
            continue
        row = found[network]
        reached, of = row["reached_plain_best"]
        steps = text(row["steps_to_plain_best"], "{:,.0f}") if reached else "not reached"
        if reached < of:
            steps += f" ({reached} of {of} seeds)"
        rows.append(
            (
                label,
                str(row["seeds"]),
                text(row["final_accuracy"], "{:.2%}"),
                text(row["best_accuracy"], "{:.2%}"),
                steps,
                text(row.get("times_fewer_steps"), "{:.1f}"),
                f"{row['seconds']:.0f} s",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def write(results: Results, folder: Path) -> list[Path]:
    """Writes `figure1.png`, Figure 1 of the paper, from the finished runs.

    a: test accuracy, mean over seeds with the band from the lowest to the highest. b, c: percentiles of the inputs of
    one sigmoid of the last hidden layer, of the first seed, as in the paper of one network.

    Raises:
        ResultsMissing: If no training has ended.
    """
    runs = {network: results.complete(network) for network in NETWORKS}
    runs = {network: found for network, found in runs.items() if found}
    if not runs:
        raise ResultsMissing(f"No training of {results.path} has ended yet. Run `python -m examples.mnist_sigmoid`.")
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.8), width_ratios=(1.5, 1, 1), layout="constrained")
    axes[2].sharey(axes[1])
    _draw_accuracy(axes[0], runs, results.settings.dataset)
    for letter, ax, network in zip("bc", axes[1:], NETWORKS, strict=True):
        ax.set_title(f"{letter}  inputs of one sigmoid, {NETWORKS[network]}", fontsize=9, loc="left")
        if network in runs:
            _draw_percentiles(ax, runs[network][0], COLORS[network])
    axes[1].set_ylabel("15th, 50th and 85th percentile")
    for ax in axes:
        ax.set_xlabel("training steps")
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    path = folder / "figure1.png"
    picture = io.BytesIO()
    fig.savefig(picture, dpi=130, format="png")
    plt.close(fig)
    write_whole(path, picture.getvalue())
    return [path]


def _draw_accuracy(ax: plt.Axes, runs: dict[str, list[Run]], dataset: str) -> None:
    lowest = 1.0
    for network, found in runs.items():
        steps, accuracy = found[0].steps, np.array([run.accuracy for run in found])
        ax.fill_between(steps, accuracy.min(0), accuracy.max(0), color=COLORS[network], alpha=0.25, linewidth=0)
        ax.plot(steps, accuracy.mean(0), color=COLORS[network], label=NETWORKS[network], linewidth=1.5)
        lowest = min(lowest, accuracy.mean(0)[len(steps) // 10])
    # The first tenth would squeeze what is to be seen into a line at the top.
    ax.set(ylabel="test accuracy", ylim=(max(0.0, lowest - 0.1), 1.0))
    seeds = min(map(len, runs.values()))
    band = f"mean of {seeds} seeds, band from lowest to highest" if seeds > 1 else "one seed"
    ax.set_title(f"a  {dataset}: {band}", fontsize=9, loc="left")
    ax.legend(loc="lower right", frameon=False)


def _draw_percentiles(ax: plt.Axes, run: Run, color: str) -> None:
    for values, name, style in zip(np.transpose(run.percentiles), ("15", "50", "85"), ("--", "-", ":"), strict=True):
        ax.plot(run.steps, values, style, color=color, linewidth=1.2)
        ax.annotate(
            name, (run.steps[-1], values[-1]), (4, 0), textcoords="offset points", va="center", fontsize=8, color=color
        )


def make(path: Path, out: Path | None) -> tuple[str, Callable[[], list[Path]]]:
    """The table of the results in `path`, and what writes the figure."""
    results = Results.read(path)
    return table(results), lambda: write(results, out or results.folder)
