"""What a diagnosis says."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from kerasbn.population import LayerPopulation
from kerasbn.table import table

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        severity: `"error"` for what makes inference wrong; `"warning"` for what makes it or training worse; `"note"`
            for what costs something, or is unusual.
        kind: What it is, as in ``"moving statistics"``; the kinds are those of the table in `diagnose`.
        layer: The path of the layer.
        value: The number that it was found by.
        advice: Sentences: what it is, with the numbers, and what to do.
    """

    severity: str
    kind: str
    layer: str
    value: float
    advice: str


#: What is said in place of numbers of layers.
NOT_MEASURED = "Nothing was measured: weights or statistics are not finite."


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; as text it is a table.

    Attributes:
        findings: All findings, the most severe first. Empty if the model is healthy.
        layers: What the data say of each layer, as `recalibrate` measures it. Empty if weights or statistics make
            values in the model NaN or infinite: then nothing can be measured.
        batches: How many batches were read.
        samples: How many samples were in them.
        output_gap: How far the outputs in inference are from those with the statistics of the data: the root of the
            mean square of the difference, as a part of the deviation of the latter over the samples of the first batch.
            NaN if nothing was measured, or if outputs in inference are not finite.
        skipped: The paths of the normalization layers that were not looked at: frozen, called in inference mode, or not
            among `layers`.
    """

    findings: list[Finding]
    layers: list[LayerPopulation]
    batches: int
    samples: int
    output_gap: float
    skipped: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        """A line for each finding, and what it means below."""
        outputs = (
            "outputs in inference are NaN or infinite"
            if np.isnan(self.output_gap)
            else f"outputs in inference differ by {self.output_gap:.2g} of their standard deviation"
        )
        layers = f"{len(self.layers)} normalization layer{'s' * (len(self.layers) != 1)}"
        looked = f"{layers}, {self.samples} samples in {self.batches} batches; {outputs}"
        if not self.layers:
            looked = NOT_MEASURED
        if self.skipped:
            some = ", ".join(self.skipped[:3]) + ", ..." * (len(self.skipped) > 3)
            looked += (
                f"\n{len(self.skipped)} not looked at (frozen, called in inference mode or not selected): {some}. "
                "Name them in `layers` to look at them."
            )
        if self.healthy:
            return f"{looked}\nNothing was found."
        rows = [(f.severity, f.kind, f.layer, f"{f.value:.3g}") for f in self.findings]
        lines = [self._advice(kind) for kind in dict.fromkeys(f.kind for f in self.findings)]
        return "\n".join([looked, "", table([("severity", "what", "layer", "value"), *rows]), "", *lines])

    def _advice(self, kind: str) -> str:
        """What is said of all findings of a kind: the advice for the worst one."""
        found = [finding for finding in self.findings if finding.kind == kind]
        worst = max(found, key=lambda finding: finding.value)
        return f"{kind}{f' ({len(found)} layers; worst: {worst.layer})' * (len(found) > 1)}: {worst.advice}"

    def to_json(self) -> str:
        """All of it as JSON, with `null` for what is not finite."""
        layers = [
            {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in each._asdict().items()}
            for each in self.layers
        ]
        content = {
            "healthy": self.healthy,
            "batches": self.batches,
            "samples": self.samples,
            "output_gap": self.output_gap,
            "skipped": self.skipped,
            "findings": [asdict(finding) for finding in self.findings],
            "layers": layers,
        }
        return json.dumps(_finite(content), allow_nan=False)

    def plot(self, axes: Sequence[Any] | None = None) -> Sequence[Any]:
        """Draws how far the moving statistics of each layer are from those of the data: its channels as a box.

        Channels whose statistics are not finite are left out. If nothing was measured, the picture says so.

        Args:
            axes: Two `matplotlib.axes.Axes`, or `None` for a new figure.

        Returns:
            The axes.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError("`plot` needs matplotlib. Install it: pip install matplotlib") from error
        if axes is None:
            width = max(6.0, 0.35 * len(self.layers) + 2)
            _, axes = pyplot.subplots(2, 1, figsize=(width, 5.5), sharex=True, layout="constrained")
        if not self.layers:
            for ax in axes:
                ax.set_axis_off()
            axes[0].text(0.5, 0.5, NOT_MEASURED, ha="center", va="center", transform=axes[0].transAxes)
            return axes
        marked = {finding.layer for finding in self.findings if finding.severity != "note"}
        names = [each.layer for each in self.layers]
        for ax, values, label, line in (
            (axes[0], [_drawn(each.shift) for each in self.layers], "moving mean off by (sigmas)", 0.0),
            (axes[1], [_drawn(each.stretch) for each in self.layers], "moving sigma, times that of data", 1.0),
        ):
            boxes = ax.boxplot(values, showfliers=True, patch_artist=True, flierprops={"markersize": 3})
            for box, name in zip(boxes["boxes"], names, strict=True):
                box.set_facecolor("#e8a0a8" if name in marked else "#c9d8ea")
            ax.axhline(line, color="#555555", linewidth=0.8, linestyle=":")
            ax.set_ylabel(label, fontsize=9)
            ax.grid(alpha=0.3)
            ax.spines[["top", "right"]].set_visible(False)
        axes[1].set_yscale("log")
        axes[1].set_xticks(range(1, len(names) + 1), names, rotation=90 if len(names) > 4 else 0, fontsize=8)
        axes[0].set_title("Red: a warning or an error", fontsize=9, loc="left")
        return axes


def _drawn(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
