"""`python -m examples.ensemble.report RESULTS`: the tables and the figure, without training anything."""

import sys

from examples import command

FIGURE = "figure.png"


def main(arguments: list[str] | None = None) -> int:
    return command.report(arguments, "ensemble", f"Prints the tables and writes table.md and {FIGURE}.")


if __name__ == "__main__":  # above the imports of `make`, which take seconds
    sys.exit(main())

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.report import markdown, table, write_whole
from examples.ensemble.members import MEMBERS, REFERENCE
from examples.ensemble.results import Results
from examples.results import ResultsMissing, spread, text

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = dict(zip((REFERENCE, *MEMBERS), ("#222222", *(f"C{i}" for i in (1, 2, 3, 4, 5, 6))), strict=True))


def rows(results: Results) -> list[list[str]]:
    """Each network and the ensembles, below a line for the names of the columns."""
    summary = results.summary()
    lines = [["network", "seeds", "top-1 error", f"top-{results.settings.top_k} error"]]
    for name, row in summary["networks"].items():
        seeds = f"{row['seeds']}, {row['diverged']} diverged" if row["diverged"] else str(row["seeds"])
        errors = (text(row[error], "{:.2%}") for error in ("top_1_error", "top_k_error"))
        lines.append([results.networks[name].label, seeds, *errors])
    found = summary["ensembles"].values()
    if found:
        errors = (text(spread([each[error]["ensemble"] for each in found]), "{:.2%}") for error in ("top_1", "top_k"))
        sizes = sorted({len(each["top_1"]["members"]) for each in found})
        lines.append([f"ensemble of {' or '.join(map(str, sizes))}", str(len(found)), *errors])
    return lines


def difference_rows(results: Results) -> list[list[str]]:
    """The error of each ensemble less that of its members, in points."""
    k = results.settings.top_k
    lines = [["the ensemble's error less that of", "ensemble", *(f"top-{n} error, points (95 %)" for n in (1, k))]]
    for seed, found in results.ensembles.items():
        for difference, label in (
            ("to_mean", "mean of its members"),
            ("to_best", f"its best member, {results.networks[found['best']].label}"),
        ):
            lines.append([label, str(seed + 1), *(_points(found[error][difference]) for error in ("top_1", "top_k"))])
    return lines


def as_text(results: Results, form: Any = table) -> str:
    """The tables, by `benchmarks.report.table` or `markdown`."""
    parts = [form(rows(results))]
    if results.ensembles:
        parts.append(form(difference_rows(results)))
    return "\n\n".join(parts)


def write(results: Results, folder: Path) -> list[Path]:
    """Writes `table.md` and, if there is an ensemble, `figure.png`, each whole or not at all."""
    contents = {"table.md": (as_text(results, markdown) + "\n").encode()}
    if results.ensembles:
        contents[FIGURE] = _figure(results)
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def _points(interval: dict[str, float]) -> str:
    mean, low, high = (100 * interval[name] for name in ("mean", "low", "high"))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def _figure(results: Results) -> bytes:
    """The errors against how many of the networks are averaged."""
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    networks = results.summary()["networks"]
    for ax, error, label in zip(axes, ("top_1", "top_k"), ("top-1", f"top-{results.settings.top_k}"), strict=True):
        named: set[str] = set()
        for seed, found in results.ensembles.items():
            blue = plt.get_cmap("Blues")(0.9 - 0.4 * seed / (max(results.ensembles) or 1))
            sizes = range(1, len(found[error]["by_size"]) + 1)
            mean, low, high = (
                [100 * size[name] for size in found[error]["by_size"]] for name in ("mean", "min", "max")
            )
            of = f"ensemble {seed + 1}, " if len(results.ensembles) > 1 else ""
            ax.fill_between(sizes, low, high, color=blue, alpha=0.15, linewidth=0)
            ax.plot(sizes, mean, "o-", color=blue, label=f"{of}mean over choices of so many, band: best to worst")
            for i, (name, value) in enumerate(found[error]["members"].items()):  # side by side: some are equal
                marker = {"color": COLORS[name], "markersize": 5, "linestyle": "none", "clip_on": False, "zorder": 3}
                own = None if name in named else f"alone: {results.networks[name].label}"
                ax.plot(0.45 + 0.07 * i, 100 * value, "D", label=own, **marker)
                named.add(name)
            ax.set_xticks(sizes)
        if REFERENCE in networks and networks[REFERENCE][f"{error}_error"]:
            value = 100 * networks[REFERENCE][f"{error}_error"]["mean"]
            name = results.networks[REFERENCE].label
            ax.axhline(value, color=COLORS[REFERENCE], linestyle=":", linewidth=1, label=f"alone: {name}")
        ax.set(xlabel="networks averaged (all with batch normalization)", ylabel=f"{label} test error, %")
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    images = next(iter(results.ensembles.values()))["images"]
    axes[0].set_title(f"{results.settings.dataset}, {images:,} test images", fontsize=9, loc="left")
    named_handles = sorted(zip(*axes[0].get_legend_handles_labels(), strict=True), key=lambda pair: "alone" in pair[1])
    fig.legend(*zip(*named_handles, strict=True), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=130, format="png", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()


def make(path: Path, out: Path | None) -> tuple[str, Callable[[], list[Path]]]:
    """The tables of the results in `path`, and what writes the files.

    Raises:
        ResultsMissing: If there is nothing to be shown.
    """
    results = Results.read(path)
    if not results.summary()["networks"]:
        raise ResultsMissing(f"No training of {results.path} has ended yet. Run `python -m examples.ensemble`.")
    return as_text(results), lambda: write(results, out or results.folder)
