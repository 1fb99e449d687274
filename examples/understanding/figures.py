"""The figures, each from the results of one part."""

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from examples.measured import CLASSES
from examples.understanding.claims import NAMES, STAGES
from examples.understanding.results import DIVERGENCE, DROPS, Depth, Divergence, Moments, Rates, StepSize, network

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm

COLORS = {"all": "#1f5fa8", "none": "#b5520b", "last": "#2a8a4a"}
#: Of rates, from the highest on.
SHADES = ("#7a1f5c", "#1f5fa8", "#d08a00", "#444444", "#2a8a4a")
STEPS = {
    "none": "no BN, the step at which it diverges",
    "all": "BN, the same step",
    "all_own": "BN, the step at which it diverges",
}


def rates(results: Rates) -> bytes:
    """Test accuracy against training, a panel for each place of normalization."""
    normalized = results.settings.normalized
    fig, axes = plt.subplots(1, len(normalized), figsize=(11, 4), layout="constrained", sharey=True, squeeze=False)
    titles = {"all": "BN behind each convolution", "none": "no BN", "last": "BN on the last layer alone"}
    for ax, where in zip(axes[0], normalized, strict=True):
        for color, rate in zip(_shades(results.settings.learning_rates), results.settings.learning_rates, strict=True):
            name = network(where, rate)
            ended, complete = results.ended(name), results.complete(name)
            if complete:
                accuracy = np.array([run.accuracy for run in complete])
                steps = complete[0].steps
                ax.fill_between(steps, accuracy.min(0), accuracy.max(0), color=color, alpha=0.2, linewidth=0)
                ax.plot(steps, accuracy.mean(0), color=color, label=f"rate {rate:g} ({_seeds(complete)})")
            dead = [run for run in ended if run.diverged]
            if dead:
                label = f"rate {rate:g}: {len(dead)} of {_seeds(ended)} diverged"
                x, y = [run.diverged_at for run in dead], [([1 / CLASSES, *run.accuracy])[-1] for run in dead]
                ax.plot(x, y, "X", color=color, markersize=8, label=label, clip_on=False, zorder=5)
        for part in DROPS:
            ax.axvline(part * results.settings.steps, color="#999999", linewidth=0.8, linestyle=":")
        ax.set(title=titles[where], xlabel="training steps", xlim=(0, results.settings.steps), ylim=(0, 1))
        _plain(ax)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8, loc="lower right")
    axes[0][0].set_ylabel("test accuracy")
    note = "mean over seeds, band from lowest to highest; dotted: the rate falls to a tenth"
    return _png(fig, f"{_data(results)}: {note}")


def depth(results: Depth) -> bytes:
    """The largest stable rate against depth, each seed, and the geometric mean with its interval."""
    fig, ax = plt.subplots(figsize=(9, 4), layout="constrained")
    rows, depths = results.summary(), results.settings.depths
    for normalized, shift in (("all", -0.15), ("none", 0.15)):
        color, name = COLORS[normalized], NAMES[normalized]
        means = {int(depth): row[normalized] for depth, row in rows.items() if row[normalized]}
        means = {depth: each for depth, each in means.items() if each["mean"]}
        ends = [(each["low"] or each["mean"], each["mean"], each["high"] or each["mean"]) for each in means.values()]
        low, mean, high = np.array(ends).reshape(-1, 3).T
        x = np.array(list(means), float) + shift
        ax.errorbar(x, mean, (mean - low, high - mean), color=color, capsize=4, label=f"{name}: geometric mean, 95 %")
        found = [(depth, rate) for depth in depths for rate in results.rates(normalized, depth).values()]
        x, y = np.array([each for each in found if 0 < each[1] < math.inf]).reshape(-1, 2).T
        ax.plot(x + shift, y, "o", color=color, alpha=0.5, markersize=5, label=f"{name}: each seed")
    ax.set(yscale="log", xlabel="layers of the ResNet", ylabel="largest stable learning rate", xticks=depths)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    _plain(ax)
    note = f"{_data(results, with_depth=False)}, trainings of {results.settings.steps} steps"
    return _png(fig, f"{note}, found to a factor of {results.settings.tolerance:g}")


def step_size(results: StepSize) -> bytes:
    """Loss after one step over that before, each mini-batch and their median."""
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained", sharey=True)
    grid = results.settings.grid
    for ax, (stage, when) in zip(axes, STAGES.items(), strict=True):
        for normalized in results.networks:
            if not results.complete(normalized):
                continue
            relative, color = results.relative(normalized, stage), COLORS[normalized]
            for row in relative:
                ax.plot(grid, row, color=color, alpha=0.25, linewidth=0.8)
            label = f"{NAMES[normalized]}: median of {len(relative)}"
            ax.plot(grid, np.median(relative, 0), color=color, linewidth=2, label=label)
        ax.axhline(1, color="#666666", linewidth=0.8)
        ax.axhline(DIVERGENCE, color="#c0265a", linewidth=0.8, linestyle="--", label="divergence, by the paper")
        ax.axvspan(0.03, 0.1, color=COLORS["all"], alpha=0.12, linewidth=0, label="best with BN in the paper")
        ax.axvline(1e-3, color=COLORS["none"], linewidth=1, linestyle=":", label="explodes without BN in the paper")
        ax.set(xscale="log", yscale="log", title=when, xlabel="step size (learning rate of one step)", ylim=(0.1, 1e6))
        _plain(ax)
    axes[0].set_ylabel("loss after the step / before")
    axes[0].legend(fontsize=8, loc="upper left")
    trained = f"trained: {results.settings.trained_steps} steps at {results.settings.trained_rate:g}"
    return _png(fig, f"{_data(results)}, mini-batches of {results.settings.batch_size}; {trained}")


def divergence(results: Divergence) -> bytes:
    """The relative loss while the step is made, and the variance by layer before and after."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 5.4), layout="constrained")
    percent = np.linspace(0, 100, results.settings.parts + 1)
    for name, label in STEPS.items():
        runs, color, line = results.complete(name), COLORS[name.split("_")[0]], "--" if name == "all_own" else "-"
        if not runs:
            continue
        _band(left, percent, _array([run.relative for run in runs]), color, line, f"{label}: {_span(runs)}")
        before, after = (_array([run.variance[at] for run in runs]) for at in (0, -1))
        layers = np.arange(1, before.shape[1] + 1)
        _band(right, layers, after, color, line, f"{label}: after")
        if name != "all_own":
            _band(right, layers, before, color, ":", f"{NAMES[name]}: before")
    left.axhline(DIVERGENCE, color="#c0265a", linewidth=0.8, linestyle="-.", label="divergence, by the paper")
    left.set(yscale="log", xlabel="% of the step", ylabel="loss / loss before the step")
    right.set(yscale="log", xlabel="convolution, from the input on", ylabel="variance, mean over channels")
    for ax in (left, right):
        ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=1)
        _plain(ax)
    seeds = _seeds(results.complete("none"))
    return _png(fig, f"{_data(results)}: geometric mean over {seeds}, band from lowest to highest")


def channels(results: Divergence) -> bytes:
    """The moments of each channel of three layers while the same step is made, as in the paper; of the first seed."""
    runs = [run for run in results.runs if run.network in ("none", "all") and run.channel_variances]
    runs.sort(key=lambda run: run.network, reverse=True)
    layers = [str(layer) for layer in results.layers]
    kinds = {"variance": "channel_variances", "|mean|": "channel_means"}
    rows = len(kinds) * max(len(runs), 1)
    fig, axes = plt.subplots(rows, len(layers), figsize=(11, 1 + 1.8 * rows), layout="constrained", squeeze=False)
    for place, (kind, attribute) in enumerate(kinds.items()):
        values = [[np.abs(_array(getattr(run, attribute)[layer])) for layer in layers] for run in runs]
        limits = _limits([each for row in values for each in row])
        own = axes[place * len(runs) : (place + 1) * len(runs)]
        for row, run, of_layers in zip(own, runs, values, strict=True):
            for ax, layer, each in zip(row, layers, of_layers, strict=True):
                extent = (0.5, each.shape[1] + 0.5, 0, 100)
                clipped, norm = np.clip(each, *limits), LogNorm(*limits)
                image = ax.imshow(clipped, aspect="auto", origin="lower", extent=extent, norm=norm)
                ax.set_title(f"{NAMES[run.network]}: {kind}, layer {layer}", fontsize=9)
                ax.tick_params(labelsize=7)
            row[0].set_ylabel("% of the step", fontsize=8)
        if runs:
            fig.colorbar(image, ax=list(own.ravel()), pad=0.01, label=f"{kind} of a channel")
    for ax in axes[-1]:
        ax.set_xlabel("channel", fontsize=8)
    return _png(fig, f"{_data(results)}, first seed: both networks make a step of {_span(runs)}")


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Of colors: finite, with nothing below a hundred-thousandth of the median, which would be all that is seen."""
    flat = np.concatenate([each.ravel() for each in values])
    flat = flat[np.isfinite(flat) & (flat > 0)]
    return (max(flat.min(), float(np.median(flat)) * 1e-5), float(flat.max())) if flat.size else (1e-3, 1.0)


def _array(values: Any) -> np.ndarray:
    """Numbers as they are in JSON: what is not finite there is infinite."""
    return np.array([[math.inf if v is None else v for v in row] for row in values], "float64")


def _band(ax: Any, x: np.ndarray, values: np.ndarray, color: str, line: str, label: str) -> None:
    """The geometric mean over seeds, ``[seeds, ...]``, and all from the lowest to the highest."""
    ax.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
    ax.plot(x, np.exp(np.log(values).mean(0)), line, color=color, label=label)


def _span(runs: Sequence[Moments]) -> str:
    """From the smallest to the largest step."""
    found = sorted(run.step_size for run in runs if run.step_size is not None)
    if not found:
        return "none"
    return f"{found[0]:.3g}" if found[0] == found[-1] else f"{found[0]:.3g} to {found[-1]:.3g}"


def _shades(values: Sequence[float]) -> list[str]:
    return [SHADES[i % len(SHADES)] for i in range(len(values))]


def _seeds(runs: Sequence[Any]) -> str:
    return "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"


def _data(results: Any, with_depth: bool = True) -> str:
    return f"ResNet-{results.settings.depth} on {results.settings.dataset}" if with_depth else results.settings.dataset


def _plain(ax: Any) -> None:
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)


def _png(fig: Any, title: str) -> bytes:
    fig.suptitle(title, fontsize=9, x=0.01, ha="left")
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()
