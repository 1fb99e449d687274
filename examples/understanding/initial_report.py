"""The tables of what was measured at initialisation, and its files, without measuring anything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import markdown, table, write_whole
from examples.results import ResultsMissing, text
from examples.understanding.initial_figures import FIGURES
from examples.understanding.initial_jacobians import ACTIVATIONS, KINDS, WEIGHTS
from examples.understanding.initial_labels import KIND_LABELS, NETWORK_LABELS
from examples.understanding.initial_results import Results, resnet_name
from examples.understanding.network import NORMALIZED

Rows = list[list[str]]


def report(source: Path, out: Path) -> tuple[str, Callable[[], list[Path]]]:
    """The tables of `source` as text, and what writes them and the figures to `out`.

    Raises:
        ResultsMissing: If there is nothing to be shown.
    """
    results = Results.read(source)
    if not any(map(results.has_ended, results.runs)):
        raise ResultsMissing(
            f"Nothing of {results.path} has been measured yet. Run `python -m examples.understanding.initialisation`."
        )
    return as_text(results), lambda: write(results, out)


def write(results: Results, folder: Path) -> list[Path]:
    """Writes `initial_table.md` and those figures that there are numbers for, each whole or not at all."""
    content = {"initial_table.md": (as_text(results, markdown) + "\n").encode()}
    content |= {name: drawn for name, draw in FIGURES.items() if (drawn := draw(results))}
    for name, data in content.items():
        write_whole(folder / name, data)
    return [folder / name for name in content]


def as_text(results: Results, form: Callable[[Rows], str] = table) -> str:
    """All tables, by `benchmarks.report.table` or `markdown`, each below its heading."""
    summary = results.summary()
    parts = {
        "Activations and gradients": of_networks(summary),
        "Terms of a kernel's gradient: sum of sizes by size of the sum": of_terms(summary),
        "Singular values": of_spectra(summary),
    }
    return "\n\n".join(f"{title}\n\n{form(rows)}" for title, rows in parts.items() if len(rows) > 1)


def of_networks(summary: dict[str, Any]) -> Rows:
    """A line for each network and initializer."""
    rows = [
        [
            "network",
            "initializer",
            "seeds",
            "deviation, last block by first",
            "gradient in the middle, rms",
            "largest",
            "kurtosis",
            "same class predicted",
            "coherence at the outputs",
        ]
    ]
    for name, row in _sorted(summary["resnet"]):
        _, normalized, initializer = name.split("/")
        rows.append(
            [
                NETWORK_LABELS[normalized],
                initializer,
                str(row["seeds"]),
                power(row["growth_of_block"]) if "growth_of_block" in row else "as without",
                power(row["middle_rms_power_of_ten"]),
                power(row["middle_max_power_of_ten"]),
                text(row["middle_kurtosis"], "{:.1f}"),
                text(row["output_same_prediction"], "{:.0%}"),
                text(row["output_coherence"], "{:.2f}"),
            ]
        )
    return rows


def of_terms(summary: dict[str, Any]) -> Rows:
    """``sum |d| / |sum d|`` of the layers of the paper's table; and of examples, each of which is summed up first."""
    layers = [each["layer"] for row in list(summary["resnet"].values())[:1] for each in row["terms"]]
    columns = {"terms": "absolute_by_summed", "examples": "by_example_by_summed"}
    rows = [["network", "initializer", *(f"{what}, layer {layer}" for what in columns for layer in layers)]]
    for name, row in _sorted(summary["resnet"]):
        _, normalized, initializer = name.split("/")
        ratios = [text(each[ratio], "{:.1f}") for ratio in columns.values() for each in row["terms"]]
        rows.append([NETWORK_LABELS[normalized], initializer, *ratios])
    return rows


def of_spectra(summary: dict[str, Any]) -> Rows:
    """A line for each number of factors or layers."""
    rows = [["of", "layers", "zero", "rms", "5 %", "median", "95 %", "between 1/2 and 2", "largest by smallest"]]
    spectra = {"random matrices": summary["matrices"]}
    for weights in WEIGHTS:
        for activation in ACTIVATIONS:
            for kind in KINDS:
                found = summary["stacks"].get(f"{activation}, {weights}, {kind}", {})
                spectra[f"{activation}, {weights}, {KIND_LABELS[kind]}"] = found
    for name, found in spectra.items():
        for count, row in found.items():
            rows.append(
                [
                    name,
                    count,
                    text(row["zero"], "{:.1%}"),
                    *(text(row[each], "{:.2g}") for each in ("rms", "low", "median", "high")),
                    text(row["near_one"], "{:.0%}"),
                    _range(row["condition"]),
                ]
            )
    return rows


def power(found: dict[str, float | None]) -> str:
    """Powers of ten as what they are of: their geometric mean over seeds, and the lowest and highest."""
    mean, low, high = (f"{10 ** found[each]:.2g}" for each in ("mean", "min", "max"))
    return mean if found["stdev"] is None else f"{mean} ({low} to {high})"


def _range(found: dict[str, float] | None) -> str:
    return "-" if found is None else f"{found['min']:.2g} to {found['max']:.2g}"


def _sorted(networks: dict[str, Any]) -> list[tuple[str, Any]]:
    """By initializer, and within by what is normalized."""
    initializers = list(dict.fromkeys(name.split("/")[2] for name in networks))
    names = [resnet_name(normalized, each) for each in initializers for normalized in NORMALIZED]
    return [(name, networks[name]) for name in names if name in networks]
