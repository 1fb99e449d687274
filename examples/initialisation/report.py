"""`python -m examples.initialisation.report RESULTS`: the table and the heat maps, without training anything."""

import sys

from examples import command

FIGURE = "heatmaps.png"


def main(arguments: list[str] | None = None) -> int:
    return command.report(arguments, "initialisation", f"Prints the table and writes table.md and {FIGURE}.")


if __name__ == "__main__":  # above the imports of `make`, which take seconds
    sys.exit(main())

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks.report import markdown, table, write_whole
from examples.initialisation.network import NETWORKS
from examples.initialisation.results import CHANCE, WITHIN, Results
from examples.results import ResultsMissing, text

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Patch, Rectangle

SCALED = {"all": "scale of the initial weights", "convolutions": "scale of the convolutions' initial weights"}
GREY = "#9a9a9a"


def rows(results: Results) -> list[list[str]]:
    """A line for each network, below one for the names of the columns."""
    within = f"{100 * WITHIN:.0f} points"
    lines = [
        [
            "network",
            "seeds",
            "best accuracy",
            "at scale, rate",
            f"within {within} of its best, of all cells",
            "at chance or diverged, of all cells",
            f"scales within {within}, at its best rate (95 %)",
            "the same, at any rate (95 %)",
        ]
    ]
    for name, row in results.summary().items():
        lines.append(
            [
                NETWORKS[name],
                str(row["seeds"]),
                text(row["best_accuracy"], "{:.1%}"),
                "; ".join(f"{scale:g}, {rate:g}" for scale, rate in row["best_scale_and_rate"]),
                text(row["good"], "{:.0%}"),
                text(row["failed"], "{:.0%}"),
                _factor(row["width_at_best_rate"]),
                _factor(row["width_at_any_rate"]),
            ]
        )
    return lines


def as_text(results: Results, form: Any = table) -> str:
    """The table, by `benchmarks.report.table` or `markdown`."""
    return form(rows(results))


def write(results: Results, folder: Path) -> list[Path]:
    """Writes `table.md` and `heatmaps.png`, each whole or not at all."""
    write_whole(folder / "table.md", (as_text(results, markdown) + "\n").encode())
    write_whole(folder / FIGURE, _figure(results))
    return [folder / "table.md", folder / FIGURE]


def _factor(width: dict[str, float | None]) -> str:
    if width["mean"] == 1:
        return "one scale alone"
    mean = f"a factor of {width['mean']:.3g}"
    if width["low"] is None or width["low"] == width["high"]:
        return mean
    return f"{mean} ({width['low']:.3g} to {width['high']:.3g})"


def _figure(results: Results) -> bytes:
    """A heat map for each network, one color scale for both; numbers are percent, means over seeds."""
    settings = results.settings
    networks = [name for name in NETWORKS if results.seeds(name)]
    means = {name: results.accuracy(name).mean(0) for name in networks}
    highest = max(mean.max() for mean in means.values())
    fig, axes = plt.subplots(1, len(networks), figsize=(5.6 * len(networks), 5.2), layout="constrained", squeeze=False)
    for ax, name in zip(axes[0], networks, strict=True):
        image = ax.imshow(100 * means[name], origin="lower", vmin=10, vmax=100 * highest, cmap="viridis", aspect="auto")
        _mark(ax, means[name], results.diverged(name).sum(0), len(results.seeds(name)))
        seeds = len(results.seeds(name))
        ax.set_title(f"{NETWORKS[name]} ({seeds} {'seed' if seeds == 1 else 'seeds'})", fontsize=11)
        ax.set_xticks(range(len(settings.rates)), [f"{rate:g}" for rate in settings.rates])
        ax.set_yticks(range(len(settings.scales)), [f"{scale:g}" for scale in settings.scales])
        ax.set(xlabel="learning rate", ylabel=f"{SCALED[settings.scaled]} (1: He's)")
    fig.colorbar(image, ax=axes, label=f"test accuracy after {settings.steps:,} steps, %, mean over seeds")
    within = f"within {100 * WITHIN:.0f} points of the network's best"
    legend = [
        Patch(facecolor="none", edgecolor="red", linewidth=2, label=within),
        Patch(facecolor="#440154", edgecolor="white", hatch="///", label=f"at chance, not above {CHANCE:.0%}"),
        Patch(facecolor=GREY, label="diverged, with every seed"),
    ]
    fig.suptitle(f"{settings.dataset}; small numbers: how many of {_counts(results)} seeds diverged", fontsize=9)
    fig.legend(handles=legend, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=130, format="png", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()


def _counts(results: Results) -> str:
    return " and ".join(sorted({str(len(results.seeds(name))) for name in NETWORKS if results.seeds(name)}))


def _mark(ax: Any, mean: np.ndarray, diverged: np.ndarray, seeds: int) -> None:
    """Numbers in the cells, and what cells are more than a number."""
    good = mean >= mean.max() - WITHIN
    for (row, column), accuracy in np.ndenumerate(mean):
        corner = (column - 0.5, row - 0.5)
        dead = diverged[row, column]
        if dead == seeds:
            ax.add_patch(Rectangle(corner, 1, 1, facecolor=GREY))
            ax.text(column, row, "diverged", ha="center", va="center", fontsize=7)
            continue
        if accuracy <= CHANCE:
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", alpha=0.35, linewidth=0, hatch="///"))
        if good[row, column]:
            frame = (column - 0.45, row - 0.45)
            ax.add_patch(Rectangle(frame, 0.9, 0.9, fill=False, edgecolor="red", linewidth=1.8))
        low, high = ax.images[0].get_clim()
        color = "black" if 100 * accuracy > (low + high) / 2 else "white"
        ax.text(column, row, f"{100 * accuracy:.0f}", ha="center", va="center", fontsize=10, color=color)
        if dead:
            ax.text(column + 0.4, row - 0.4, dead, ha="right", va="bottom", fontsize=7, color=color)


def make(path: Path, out: Path | None) -> tuple[str, Callable[[], list[Path]]]:
    """The tables of the results in `path`, and what writes the files.

    Raises:
        ResultsMissing: If there is nothing to be shown.
    """
    results = Results.read(path)
    if not any(map(results.seeds, NETWORKS)):
        raise ResultsMissing(
            f"No network of {results.path} has the whole grid of a seed yet. Run `python -m examples.initialisation`."
        )
    return as_text(results), lambda: write(results, out or results.folder)
