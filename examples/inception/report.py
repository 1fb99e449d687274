"""`python -m examples.inception.report RESULTS`: the table of Fig. 3 and both figures, without training anything."""

import sys

from examples import command


def main(arguments: list[str] | None = None) -> int:
    return command.report(
        arguments,
        "inception",
        "Prints the table of Fig. 3 and writes table.md, figure2.png and figure2_time.png.",
    )


if __name__ == "__main__":  # above the imports of `make`, which take seconds
    sys.exit(main())

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks.report import markdown, table, write_whole
from examples.inception.networks import BASELINE, NETWORKS
from examples.inception.results import Results
from examples.measured import CLASSES, Measured
from examples.results import ResultsMissing, text

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = dict(zip(NETWORKS, ("#222222", "#b5520b", "#1f5fa8", "#2a8a4a", "#8a3fa0", "#c9a400", "#c0265a"), strict=True))
FIGURES = {"figure2.png": "training steps", "figure2_time.png": "seconds of training, first steps included"}


def rows(results: Results) -> list[list[str]]:
    """The table of Fig. 3, with a line for the names of the columns."""
    lines = [
        [
            "network",
            "seeds",
            "initial rate",
            "steps to the baseline's best",
            "times fewer (95 %)",
            "times less time (95 %)",
            "max accuracy",
        ]
    ]
    for name, row in results.summary()["networks"].items():
        lines.append(
            [
                NETWORKS[name].label,
                str(row["seeds"]),
                "-" if row["initial_rate"] is None else f"{row['initial_rate']:g}",
                _steps(row),
                "" if name == BASELINE else _ratio(row["times_fewer_steps"]),
                "" if name == BASELINE else _ratio(row["times_less_time"]),
                text(row["max_accuracy"], "{:.1%}"),
            ]
        )
    return lines


def search_rows(results: Results) -> list[list[str]]:
    """The search for the baseline's learning rate."""
    lines = [["learning rate", "seeds", f"max accuracy in {results.settings.search_steps:,} steps"]]
    for row in results.searched().values():
        accuracy = text(row["max_accuracy"], "{:.1%}") if row["max_accuracy"] else "diverged"
        lines.append([f"{row['rate']:g}", str(row["seeds"]), accuracy])
    return lines


def remark(results: Results) -> str:
    """Whether the search says where its best rate is."""
    best, tried = results.learning_rate, sorted(results.search.values())
    if best is None or len(tried) < 2 or best not in (tried[0], tried[-1]):
        return ""
    end = "lowest" if best == tried[0] else "highest"
    return f"The best rate, {best:g}, is the {end} that was tried: a better one may lie beyond."


def as_text(results: Results, form: Any = table) -> str:
    """Both tables, by `benchmarks.report.table` or `markdown`."""
    parts = [form(search_rows(results)), remark(results)] if results.search else []
    return "\n\n".join(part for part in (*parts, form(rows(results))) if part)


def write(results: Results, folder: Path) -> list[Path]:
    """Writes `table.md` and both figures, each whole or not at all."""
    write_whole(folder / "table.md", (as_text(results, markdown) + "\n").encode())
    for name, label in FIGURES.items():
        write_whole(folder / name, _figure(results, label, against_time="time" in name))
    return [folder / name for name in ("table.md", *FIGURES)]


def _steps(row: dict[str, Any]) -> str:
    reached, of = row["reached"]
    diverged = row["diverged_at"]
    if len(diverged) == row["seeds"]:
        return f"diverged at step {min(diverged):,}" + (f" to {max(diverged):,}" if len(diverged) > 1 else "")
    if not of:
        return "-"
    steps = text(row["steps_to_target"], "{:,.0f}") if reached else f"not in {row['steps']:,}"
    notes = [f"{reached} of {of} seeds"] if 0 < reached < of else []
    notes += [f"{len(diverged)} diverged"] if diverged else []
    return steps + (f" ({', '.join(notes)})" if notes else "")


def _ratio(ratio: dict[str, float | None] | None) -> str:
    if ratio is None:
        return "-"
    mean = f"{ratio['mean']:.2f}"
    return mean if ratio["low"] is None else f"{mean} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _figure(results: Results, label: str, against_time: bool) -> bytes:
    """Test accuracy: mean over seeds, band from lowest to highest, a cross where a training diverged."""
    fig, ax = plt.subplots(figsize=(9, 5.2), layout="constrained")
    for name, network in NETWORKS.items():
        ended = results.ended(name)
        healthy, dead = results.complete(name), [run for run in ended if run.diverged]
        seeds = f"{len(ended)} seeds" if len(ended) > 1 else "1 seed"
        if healthy:
            x = np.mean([_x(run, against_time) for run in healthy], axis=0)
            accuracy = np.array([run.accuracy for run in healthy])
            ax.fill_between(x, accuracy.min(0), accuracy.max(0), color=COLORS[name], alpha=0.2, linewidth=0)
            ax.plot(x, accuracy.mean(0), color=COLORS[name], linewidth=1.5, label=f"{network.label} ({seeds})")
        _crosses(ax, name, dead, against_time, f"{network.label}: {len(dead)} of {seeds} diverged")
    best = [max(run.accuracy) for run in results.complete(BASELINE)]
    if best:
        mean = float(np.mean(best))
        ax.axhline(mean, color=COLORS[BASELINE], linewidth=0.8, linestyle=":", label=f"Inception's best, {mean:.1%}")
    ax.set(xlabel=label, ylabel="test accuracy")
    ax.set_xlim(left=0)
    several = any(len(results.ended(name)) > 1 for name in NETWORKS)
    band = "mean over seeds, band from lowest to highest" if several else "one seed"
    ax.set_title(f"{results.settings.dataset}: {band}", fontsize=9, loc="left")
    if ax.has_data():
        ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=130, format="png", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()


def _x(run: Measured, against_time: bool) -> list[float]:
    return run.seconds if against_time else run.steps


def _crosses(ax: Any, name: str, dead: Sequence[Measured], against_time: bool, label: str) -> None:
    """Where each diverged: at the step, or at the last second that was measured, and at its last accuracy."""
    if not dead:
        return
    last = [(_x(run, against_time) or [0.0])[-1] for run in dead]
    x = last if against_time else [run.diverged_at for run in dead]
    y = [run.accuracy[-1] if run.accuracy else 1 / CLASSES for run in dead]
    for run in dead:
        ax.plot(_x(run, against_time), run.accuracy, color=COLORS[name], linewidth=1, linestyle="--")
    ax.plot(x, y, linestyle="none", marker="X", markersize=8, color=COLORS[name], label=label, zorder=5, clip_on=False)


def make(path: Path, out: Path | None) -> tuple[str, Callable[[], list[Path]]]:
    """The tables of the results in `path`, and what writes the files.

    Raises:
        ResultsMissing: If there is nothing to be shown.
    """
    results = Results.read(path)
    if not any(map(results.ended, NETWORKS)):
        raise ResultsMissing(f"No training of {results.path} has ended yet. Run `python -m examples.inception`.")
    return as_text(results), lambda: write(results, out or results.folder)
