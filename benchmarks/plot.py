"""Draws the results in a folder: a picture of each comparison of kernels, and one of whole networks."""

import argparse
import sys
from pathlib import Path

from benchmarks import options, tables
from benchmarks.ending import ADVICE, ended


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plot",
        description=__doc__,
        epilog="Example: python -m benchmarks.plot docs/performance",
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=tables.FOLDER, help="with the JSON files (default: %(default)s)"
    )
    folder = parser.parse_args(arguments).folder
    try:
        found = tables.results(folder)
        if not found:
            parser.error(f"there is no JSON file in {folder}; python -m benchmarks writes some")
        options.run("plot", folder, found)
    except tables.NotResults as error:
        parser.error(str(error))


if __name__ == "__main__":  # above the import of Matplotlib, which takes long
    sys.exit(ended(main, ADVICE))

import io

import matplotlib

from benchmarks import report

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

COLORS = {"no BN": "#9a9a9a", "keras": "#b5520b", "kerasbn": "#1f5fa8", "kerasbn, activation=": "#7fb0de"}
LABELS = {
    "no BN": "without normalization",
    "keras": "Keras",
    "kerasbn": "kerasbn",
    "kerasbn, activation=": "kerasbn with the activation inside",
}
MODES = {"graph": "in a graph", "xla": "under XLA"}
# Peers in the kernels' picture: what each is called in the results, in the legend, and its mark.
PEERS = (
    ("fused {mode}", "TensorFlow's fused operation", {"marker": "D", "color": "#b8860b"}),
    ("torch", "PyTorch, channels first", {"marker": "s", "color": "#2a8c4a"}),
    ("torch channels_last", "PyTorch, channels last", {"marker": "o", "color": "#2a8c4a"}),
    ("floor", "floor: passes over memory", {"marker": "|", "color": "black"}),
)


def save(figure, path):
    """Writes the picture whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=130, format="png")
    plt.close(figure)
    report.write_whole(path, picture.getvalue())
    print(f"Written: {path}")


def kernels(content):
    """How many times faster than Keras's layer each is, shape by shape."""
    results = content["results"]
    rows = range(len(results))
    figure, axes = plt.subplots(1, 2, figsize=(11, 1.9 + 0.42 * len(results)), sharey=True, layout="constrained")
    for ax, mode in zip(axes, MODES, strict=True):

        def speed(name, mode=mode):
            times = [result["milliseconds"] for result in results]
            return [time[f"keras {mode}"] / time[name] if name in time else float("nan") for time in times]

        ours = speed(f"kerasbn {mode}")
        ax.barh(rows, [s - 1 for s in ours], left=1, height=0.6, color=COLORS["kerasbn"], alpha=0.75, label="kerasbn")
        for name, label, style in PEERS:
            name = name.format(mode=mode)
            if any(name in result["milliseconds"] for result in results):
                size = {"s": 70, "linewidths": 2} if style["marker"] == "|" else {"s": 26}
                ax.scatter(speed(name), rows, label=label, zorder=3, **style, **size)
        ax.axvline(1, color=COLORS["keras"], linewidth=1.5, label="Keras")
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_title(MODES[mode], fontsize=10, loc="left")
        ax.set_xlabel("times as fast as Keras (log scale)")
        ax.grid(axis="x", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(rows, [f"{'x'.join(map(str, r['shape']))}  ({r['megabytes']:.1f} MB)" for r in results])
    axes[0].invert_yaxis()
    figure.suptitle(
        f"A training step of batch normalization: {content['dtype']}, channels {content['layout']}, "
        f"{content['threads']} threads, {content['machine']['cpu']}",
        fontsize=10,
    )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False, fontsize=8.5)
    return figure


def overheads(result):
    """What each layer adds to the step without it, in percent."""
    times = result["milliseconds"]
    return {layer: 100 * (times[layer] / times["no BN"] - 1) for layer in times if layer != "no BN"}


# The panels of the networks' picture: title, unit, how a number is written, and the bars of one result.
PANELS = {
    "models": ("What normalization adds to a step", "% of the step without it", "{:.0f}", overheads),
    "memory": ("Memory of a step, large batch", "MB", "{:.0f}", lambda result: result["megabytes"]),
}


def networks(contents):
    """A panel for each of the benchmarks of whole networks."""
    most = max(len(content["results"]) for content in contents.values())
    figure, axes = plt.subplots(
        1, len(contents), figsize=(1.2 + 4.2 * len(contents), 1.3 + 0.55 * most), squeeze=False, layout="constrained"
    )
    for ax, (name, content) in zip(axes[0], contents.items(), strict=True):
        title, unit, written, bars_of = PANELS[name]
        bars = [bars_of(result) for result in content["results"]]
        height = 0.8 / len(bars[0])
        for i, layer in enumerate(bars[0]):
            places = [row + height * (i - (len(bars[0]) - 1) / 2) for row in range(len(bars))]
            drawn = ax.barh(places, [bar[layer] for bar in bars], height, color=COLORS[layer], label=LABELS[layer])
            ax.bar_label(drawn, fmt=written, padding=2, fontsize=7)
        ax.set_yticks(range(len(bars)), [f"{r['model']}, {r['batch']}\n{MODES[r['mode']]}" for r in content["results"]])
        ax.tick_params(axis="y", labelsize=8)
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_xlabel(unit)
        ax.grid(axis="x", alpha=0.3)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    legend = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(legend.values(), legend, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5)
    return figure


def startup(content):
    """The time to each step beside Keras's, network by network."""
    results = [result for result in content["results"] if result["mode"] == "graph"]
    figure, ax = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    for result, marker in zip(results, "osD^", strict=False):
        ratios = result["kerasbn / keras"]
        label = f"{result['model']}, batches of {result['batch']}"
        ax.plot([int(step) for step in ratios], ratios.values(), marker=marker, label=label)
    ax.axhline(1, color=COLORS["keras"], linewidth=1.5)
    ax.annotate("Keras", (1, 1), (2, 3), textcoords="offset points", color=COLORS["keras"], fontsize=8.5)
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("training steps since the start of the process")
    ax.set_ylabel("time / time with Keras's layer")
    ax.set_title("What a user waits for, in a graph", fontsize=10, loc="left")
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8.5)
    return figure


def run(folder, found):
    """Draws what was found in the folder.

    Raises:
        NotResults: If one of the files holds something else.
    """
    for name, content in found.items():
        if content["benchmark"] == "kernels":
            with tables.understood(folder / f"{name}.json"):
                save(kernels(content), folder / f"{name}.png")
        if content["benchmark"] == "startup":
            with tables.understood(folder / f"{name}.json"):
                save(startup(content), folder / f"{name}.png")
    whole = {name: found[name] for name in PANELS if name in found}
    if whole:
        with tables.understood(folder / f"{' or '.join(whole)}.json"):
            save(networks(whole), folder / "networks.png")
