"""`python -m examples.understanding.report RESULTS`: tables and figures, without training anything."""

import sys

from examples import command


def main(arguments: list[str] | None = None) -> int:
    return command.report(
        arguments,
        "understanding",
        "Prints the tables and writes table.md and a figure or two for each part that was measured.",
    )


if __name__ == "__main__":  # above the imports of `make`, which take seconds
    sys.exit(main())

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import markdown, table, write_whole
from examples.results import ResultsMissing
from examples.understanding import claims, figures
from examples.understanding.claims import NAMES, accuracy, interval
from examples.understanding.results import Depth, Divergence, Rates, StepSize

Rows = list[list[str]]


def rates_rows(results: Rates) -> Rows:
    """The final accuracy at each rate."""
    lines = [["network", "rate", "seeds", "final test accuracy", "the paper's, ResNet-110"]]
    for name, row in results.summary().items():
        paper = "diverges" if name in claims.DIVERGES else claims.ACCURACY.get(name, "-")
        lines.append([NAMES[row["normalized"]], f"{row['rate']:g}", str(row["seeds"]), accuracy(row), paper])
    return lines


def depth_rows(results: Depth) -> Rows:
    """The largest stable rates."""
    lines = [["layers", "seeds", "largest stable rate, BN (95 %)", "no BN (95 %)", "ratio (95 %)"]]
    for depth, row in results.summary().items():
        lines.append([depth, str(row["seeds"]), *(interval(row[name]) for name in ("all", "none", "ratio"))])
    return lines


def step_size_rows(results: StepSize) -> Rows:
    """What one step does to the loss."""
    lines = [["network", "stage", "seeds", "best step (95 %)", "relative loss", "above 1 from", "above 1,000 from"]]
    for name, row in results.summary().items():
        normalized, stage = name.split("_")
        from_on = [f"{row[at]:.2g}" if row[at] else "never" for at in ("worse_from", "diverges_from")]
        best = [interval(row["best_step"]), interval(row["best_relative_loss"])]
        lines.append([NAMES[normalized], claims.STAGES[stage], str(row["seeds"]), *best, *from_on])
    return lines


def divergence_rows(results: Divergence) -> Rows:
    """What one step does to the variance of layers."""
    layers = results.layers
    grows = [f"variance of layer {layer}, times" for layer in layers]
    lines = [["network", "seeds", "step", "relative loss", *grows]]
    for name, row in results.summary().items():
        growth = [interval(row["growth"][layer - 1]) for layer in layers]
        step, loss = interval(row["step_size"]), interval(row["relative_loss"])
        lines.append([figures.STEPS[name], str(row["seeds"]), step, loss, *growth])
    return lines


#: For each part its class, its table, its claims and its figures.
PARTS: dict[str, tuple[Any, Callable[[Any], Rows], Callable[[Any], Rows], dict[str, Callable[[Any], bytes]]]] = {
    "rates": (Rates, rates_rows, claims.of_rates, {"rates.png": figures.rates}),
    "depth": (Depth, depth_rows, claims.of_depth, {"depth.png": figures.depth}),
    "step_size": (StepSize, step_size_rows, claims.of_step_size, {"step_size.png": figures.step_size}),
    "divergence": (
        Divergence,
        divergence_rows,
        claims.of_divergence,
        {"divergence.png": figures.divergence, "channels.png": figures.channels},
    ),
}


def read(folder: Path) -> dict[str, Any]:
    """The results of each part that has some.

    Raises:
        ResultsMissing: If there are none at all, or a file holds something else.
    """
    found = {name: part[0].read(folder) for name, part in PARTS.items() if (folder / part[0].file).exists()}
    found = {name: results for name, results in found.items() if results.summary()}
    if not found:
        raise ResultsMissing(f"There are no results in {folder}. Run `python -m examples.understanding`.")
    return found


def as_text(folder: Path, form: Callable[[Rows], str] = table) -> str:
    """The table of each part and that of the claims, by `benchmarks.report.table` or `markdown`."""
    found = read(folder)
    parts = [form(PARTS[name][1](results)) for name, results in found.items()]
    judged = [row for name, results in found.items() for row in PARTS[name][2](results)]
    return "\n\n".join([*parts, form([claims.HEAD, *judged])] if judged else parts)


def write(folder: Path, out: Path | None = None) -> list[Path]:
    """Writes `table.md` and the figures, each whole or not at all."""
    out = out or folder
    write_whole(out / "table.md", (as_text(folder, markdown) + "\n").encode())
    written = [out / "table.md"]
    for name, results in read(folder).items():
        for file, draw in PARTS[name][3].items():
            write_whole(out / file, draw(results))
            written.append(out / file)
    return written


def make(folder: Path, out: Path | None) -> tuple[str, Callable[[], list[Path]]]:
    """The tables of the results in `folder`, and what writes the files."""
    return as_text(folder), lambda: write(folder, out)
