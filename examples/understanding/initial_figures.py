"""The figures of what was measured at initialisation."""

import io
import math
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np

from examples.understanding.initial_gradients import BINS, PARTS
from examples.understanding.initial_jacobians import ACTIVATIONS, KINDS, RANKS, WEIGHTS
from examples.understanding.initial_labels import COLORS, KIND_LABELS, NETWORK_LABELS
from examples.understanding.initial_results import MATRICES, Results, resnet_name, stack_name
from examples.understanding.network import NORMALIZED

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BAND = "band from lowest to highest"
SCHEMES = ("#222222", "#c0265a", "#1f5fa8", "#2a8a4a", "#c9a400", "#8a3fa0", "#b5520b", "#5f7d8c")
LAYERS = ("#1f5fa8", "#2a8a4a", "#c9a400", "#c0265a", "#8a3fa0", "#222222")
PLACE_LABELS = {"convolution": "output of a block's first convolution", "block": "output of a block"}
MOMENT_LABELS = {"mean": "mean of a channel, rms", "deviation": "standard deviation of a channel, rms"}


def activations(results: Results) -> bytes | None:
    """Moments against depth: a color for each initializer, dashed without normalization."""
    if not any(results.of(resnet_name("all", each)) for each in results.initializers):
        return None
    fig, axes = plt.subplots(2, 2, figsize=(11, 7.4), sharex=True, layout="constrained")
    for row, (moment, of_moment) in zip(axes, MOMENT_LABELS.items(), strict=True):
        for ax, (place, of_place) in zip(row, PLACE_LABELS.items(), strict=True):
            for color, initializer in zip(SCHEMES, results.initializers, strict=False):
                for normalized, style in (("all", "-"), ("none", "--")):
                    found = [
                        each["moments"][place][moment] for each in results.of(resnet_name(normalized, initializer))
                    ]
                    label = f"{NETWORK_LABELS[normalized]}, {initializer}"
                    _band(ax, None, found, label, color=color, linestyle=style)
            ax.set(yscale="log", ylabel=of_moment)
            ax.set_title(of_place, fontsize=9)
    for ax in axes[1]:
        ax.set_xlabel("block")
        ax.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, fontsize=8, loc="outside right center")
    return _finished(fig, axes, f"{_title(results)}; median over {_seeds(results)}, {BAND}")


def gradients(results: Results) -> bytes | None:
    """Histograms of the middle layer's gradient, what of it lies far out, and kurtosis by layer."""
    initializer = next(iter(results.initializers), None)
    networks = [each for each in NORMALIZED if initializer and results.of(resnet_name(each, initializer))]
    if not networks:
        return None
    fig = plt.figure(figsize=(11, 7.4), layout="constrained")
    top, bottom = fig.add_gridspec(2, 1)
    axes = []
    for place, normalized in zip(top.subgridspec(1, 3), networks, strict=False):
        middle = results.of(resnet_name(normalized, initializer))[0]["gradients"]["middle"]
        ax = fig.add_subplot(place)
        edges = np.linspace(-middle["max"], middle["max"], BINS + 1)
        label = f"{NETWORK_LABELS[normalized]}, layer {middle['layer']}, one seed"
        ax.stairs(middle["counts"], edges, fill=True, color=COLORS[normalized], label=label)
        ax.set(yscale="log", ylim=(0.6, None), xlabel="entry of the gradient", ylabel="entries")
        ax.locator_params(axis="x", nbins=5)
        ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        axes.append(ax)
    tail, by_layer = (fig.add_subplot(place) for place in bottom.subgridspec(1, 2))
    parts = np.array(PARTS[:-1])
    for normalized in networks:
        found = [each["gradients"] for each in results.of(resnet_name(normalized, initializer))]
        style = {"color": COLORS[normalized], "label": NETWORK_LABELS[normalized]}
        tails = np.array([each["middle"]["tail"][:-1] for each in found])
        tail.fill_betweenx(1 - parts, tails.min(0), tails.max(0), color=COLORS[normalized], alpha=0.2, linewidth=0)
        tail.plot(np.median(tails, axis=0), 1 - parts, **style)
        _band(by_layer, found[0]["layers"], [each["kurtosis"] for each in found], **style)
    x = np.linspace(0, 3.3, 100)
    gaussian = {"color": "#222222", "linewidth": 1, "linestyle": ":", "label": "Gaussian"}
    tail.plot(x, [math.erfc(each / math.sqrt(2)) for each in x], **gaussian)
    tail.set(yscale="log", xlabel="size, in units of the root mean square", ylabel="part of entries that are larger")
    by_layer.axhline(3, **gaussian)
    by_layer.set(yscale="log", xlabel="layer", ylabel="kurtosis of the gradient")
    for ax in (tail, by_layer):
        ax.legend(frameon=False, fontsize=8)
    title = f"{_title(results)}, {initializer}; below: median over {_seeds(results)}, {BAND}"
    return _finished(fig, [*axes, tail, by_layer], title)


def outputs(results: Results) -> bytes | None:
    """The gradient at the outputs as a picture, images by classes, for each network."""
    found = {
        normalized: each["output"]
        for normalized in NORMALIZED
        for initializer in results.initializers
        for each in results.of(resnet_name(normalized, initializer))
        if "gradient" in each["output"]
    }
    if not found:
        return None
    fig, axes = plt.subplots(1, len(found), figsize=(3.6 * len(found), 6), squeeze=False, layout="constrained")
    for ax, (normalized, output) in zip(axes[0], found.items(), strict=True):
        gradient = np.array(output["gradient"])
        shown = ax.imshow(gradient, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="none")
        ax.set_title(f"{NETWORK_LABELS[normalized]}\ncoherence {output['coherence']:.2f}", fontsize=9)
        ax.set(xlabel="class", ylabel="image", xticks=range(gradient.shape[1]))
    bar = fig.colorbar(shown, ax=list(axes[0]), shrink=0.7)
    bar.set_label("gradient of an image's loss with respect to its outputs")
    return _finished(fig, [], f"{_title(results)}, {results.initializers[0]}; one seed")


def terms(results: Results) -> bytes | None:
    """How much of a kernel's gradient cancels, by layer."""
    if not results.initializers:
        return None
    fig, ax = plt.subplots(figsize=(9, 5.2), layout="constrained")
    markers = dict(zip(results.initializers, "osD^vPX*", strict=False))
    for n, normalized in enumerate(NORMALIZED):
        for i, (initializer, marker) in enumerate(markers.items()):
            found = [each["gradients"]["terms"] for each in results.of(resnet_name(normalized, initializer))]
            if found:
                ratios = np.array([[layer["absolute"] / layer["summed"] for layer in each] for each in found])
                middle = np.median(ratios, axis=0)
                x = np.arange(ratios.shape[1]) + (n * (len(markers) + 1) + i) * 0.8 / (3 * len(markers) + 3) - 0.35
                ax.errorbar(
                    x,
                    middle,
                    (middle - ratios.min(0), ratios.max(0) - middle),
                    linestyle="none",
                    marker=marker,
                    markersize=5,
                    color=COLORS[normalized],
                    label=f"{NETWORK_LABELS[normalized]}, {initializer}",
                )
                ax.set_xticks(range(len(middle)), [f"layer {layer['layer']}" for layer in found[0]])
    ax.axhline(1, color="#222222", linewidth=1, linestyle=":", label="all terms of one sign")
    ax.set(yscale="log", ylabel="Σ |d| / |Σ d| of a kernel's gradient")
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _finished(fig, [ax], f"{_title(results)}; median over {_seeds(results)}, bars from lowest to highest")


def singular_values(results: Results, weights: str) -> bytes | None:
    """Singular values by rank: of products of random matrices, of stacks of layers without normalization and with."""
    found = {activation: results.of(stack_name(activation, weights)) for activation in ACTIVATIONS}
    matrices = results.of(MATRICES)
    if not matrices or not all(found.values()):
        return None
    fig, axes = plt.subplots(2, 4, figsize=(13, 7), sharex=True, sharey=True, layout="constrained")
    size = results.settings.matrix_size
    _spectra(axes[0][0], matrices, f"products of Gaussian matrices, {size} x {size}")
    for row, (activation, seeds) in zip(axes, found.items(), strict=True):
        for ax, kind in zip(row[1:], KINDS, strict=True):
            _spectra(ax, [each[kind] for each in seeds], f"{activation}, {KIND_LABELS[kind]}")
    for ax in axes.flat:
        ax.set(yscale="log", ylim=(1e-6, 300))
    for ax in (axes[0][0], axes[1][1]):
        ax.set_ylabel("singular value")
        ax.tick_params(labelleft=True)
    for ax in (axes[0][0], *axes[1][1:]):
        ax.set_xlabel("rank, as a part of all")
        ax.tick_params(labelbottom=True)
    handles, labels = axes[0][0].get_legend_handles_labels()
    legend = axes[1][0]
    legend.axis("off")
    legend.legend(handles, labels, frameon=False, fontsize=9, loc="center")
    settings = results.settings
    title = f"layers of {settings.width} units, {weights} weights, batch of {settings.stack_batch}"
    return _finished(fig, axes, f"{title}; median over {_counted(len(matrices))}, {BAND}")


def _spectra(ax: Any, seeds: list[dict[str, Any]], title: str) -> None:
    for color, count in zip(LAYERS, seeds[0], strict=False):
        label = f"{count} matrices or layers" if count != "1" else "1 matrix or layer"
        values = np.maximum([each[count]["quantiles"] for each in seeds], 1e-12)
        _band(ax, RANKS, values, label, color=color)
    ax.axhline(1, color="#222222", linewidth=1, linestyle=":", label="1, as conjectured for a layer")
    ax.set_title(title, fontsize=9)


def _band(ax: Any, x: Any, found: Any, label: str, **style: Any) -> None:
    """Median over seeds, and a band from lowest to highest; blocks are counted from 1 where `x` is `None`."""
    if len(found):
        values = np.array(found, float)
        x = np.arange(1, values.shape[1] + 1) if x is None else x
        ax.fill_between(x, values.min(0), values.max(0), color=style["color"], alpha=0.2, linewidth=0)
        ax.plot(x, np.median(values, axis=0), label=label, linewidth=1.4, **style)


def _title(results: Results) -> str:
    return f"{results.settings.dataset}, ResNet-{results.settings.depth} at initialisation"


def _seeds(results: Results) -> str:
    return _counted(len({run.seed for run in results.runs if run.network.startswith("resnet") and run.values}))


def _counted(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def _finished(fig: Any, axes: Any, title: str) -> bytes:
    for ax in np.ravel(axes):
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    fig.suptitle(title, fontsize=9, x=0.01, ha="left")
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()


FIGURES: dict[str, Callable[[Results], bytes | None]] = {
    "initial_activations.png": activations,
    "initial_gradients.png": gradients,
    "initial_outputs.png": outputs,
    "initial_terms.png": terms,
    **{
        f"initial_singular_values_{weights}.png": lambda results, weights=weights: singular_values(results, weights)
        for weights in WEIGHTS
    },
}
