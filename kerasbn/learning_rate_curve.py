"""The loss against the learning rate, what can be read from it, and its picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: How much of what the loss had gained it may have lost again where a rate still counts as stable.
LOST = 0.1


@dataclass(frozen=True)
class LearningRateCurve:
    """What a sweep over learning rates found; see `find_learning_rate`.

    Attributes:
        name: Name of the model.
        rates: Array of the rates tried, ascending.
        losses: Array of as many losses: that of the batch after a step at the rate.
        smoothed: Array of as many: the losses with Gaussian weights over neighbouring rates, so without delay.
        diverged: The rate that ended the sweep, as the loss exploded or was not finite; `None` if all were tried.
        compared: Curves of other models, for the same rates and data.

    Raises:
        ValueError: If there are fewer than 3 rates.

    Example:
    >>> rates = np.logspace(-4, 0, 9)
    >>> losses = np.array([2.0, 1.99, 1.95, 1.8, 1.2, 0.9, 0.85, 1.5, 9.0])
    >>> curve = LearningRateCurve("model", rates, losses, losses)
    >>> [f"{rate:.4f}" for rate in (curve.steepest, curve.valley, curve.largest_stable)]
    ['0.0100', '0.0100', '0.1000']
    """

    name: str
    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: float | None = None
    compared: tuple["LearningRateCurve", ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Checks that there is a curve."""
        if len(self.rates) < 3:
            why = "." if self.diverged is None else f", as the loss diverged at {self.diverged:g}."
            raise ValueError(
                f"A curve needs at least 3 learning rates. Received: {len(self.rates)} for model {self.name!r}{why} "
                "Begin with a smaller `lowest`, or give more data."
            )

    @property
    def largest_stable(self) -> float:
        """The largest rate up to which the smoothed loss, from its minimum on, loses less than a tenth of its gain."""
        return float(self.rates[self._stable_end()])

    @property
    def steepest(self) -> float:
        """The stable rate at which the smoothed loss falls fastest with the logarithm of the rate (Smith 2017)."""
        slopes = np.gradient(self.smoothed, np.log(self.rates))
        return float(self.rates[np.argmin(slopes[: self._stable_end() + 1])])

    @property
    def valley(self) -> float:
        """The rate in the middle of the way down: between a tenth and nine tenths of what the smoothed loss gains."""
        lowest = int(np.argmin(self.smoothed))
        gained = (self.smoothed[0] - self.smoothed[: lowest + 1]) / ((self.smoothed[0] - self.smoothed[lowest]) or 1)
        begin, end = (int(np.argmax(gained >= share)) for share in (0.1, 0.9))
        return float(np.sqrt(self.rates[begin] * self.rates[end]))

    def _stable_end(self) -> int:
        lowest = int(np.argmin(self.smoothed))
        limit = self.smoothed[lowest] + LOST * (self.smoothed[0] - self.smoothed[lowest])
        beyond = np.flatnonzero(self.smoothed[lowest:] > limit)
        return lowest + int(beyond[0]) - 1 if len(beyond) else len(self.rates) - 1

    def plot(self, ax: Any = None, labels: Sequence[str] | None = None) -> Any:
        """Draws the curve, and those that it is compared with.

        Args:
            ax: `matplotlib.axes.Axes` to draw into, or `None` for a new figure.
            labels: Names for the legend, of this curve and each that it is compared with. Default: the models' names.

        Returns:
            The axes.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If there is not one label for each curve.
        """
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError("`plot` needs matplotlib. Install it: pip install matplotlib") from error
        if ax is None:
            _, ax = pyplot.subplots(figsize=(7.5, 4.5), layout="constrained")
        curves = (self, *self.compared)
        labels = [curve.name for curve in curves] if labels is None else labels
        if len(labels) != len(curves):
            raise ValueError(
                f"Argument `labels` must have a label for each of {len(curves)} curves. Received: {labels!r}."
            )
        first = max(curve.smoothed[0] for curve in curves)
        lowest = min(curve.smoothed.min() for curve in curves)
        top, bottom = first + 0.35 * (first - lowest), lowest - 0.15 * (first - lowest)
        for i, (curve, label) in enumerate(zip(curves, labels, strict=True)):
            curve._draw(ax, f"C{i}", label, top)
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss after a step at the rate", ylim=(bottom, top))
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=9)
        return ax

    def _draw(self, ax: Any, color: str, label: str, top: float) -> None:
        ax.plot(self.rates, self.losses, color=color, alpha=0.3, linewidth=0.8)
        ax.plot(self.rates, self.smoothed, color=color, linewidth=2, label=label)
        for marker, name in (("v", "steepest"), ("o", "valley"), ("D", "largest_stable")):
            rate = getattr(self, name)
            loss = np.interp(np.log(rate), np.log(self.rates), self.smoothed)
            style = {"color": color, "markersize": 7, "markeredgecolor": "white", "linestyle": "none"}
            ax.plot(rate, loss, marker, label=f"{name.replace('_', ' ')}: {rate:.2g}", **style)
        if self.diverged is not None:
            ax.plot(self.diverged, top, "x", color=color, markersize=9, markeredgewidth=2, clip_on=False)
            ax.annotate(
                "diverged",
                (self.diverged, top),
                (-7, -3),
                textcoords="offset points",
                ha="right",
                color=color,
                fontsize=9,
            )


def smooth(losses: np.ndarray, width: float) -> np.ndarray:
    """`losses` with Gaussian weights of standard deviation `width`, in numbers of values."""
    if not width:
        return losses
    distance = np.subtract.outer(np.arange(len(losses)), np.arange(len(losses)))
    weights = np.exp(-0.5 * (distance / width) ** 2)
    return weights @ losses / weights.sum(1)
