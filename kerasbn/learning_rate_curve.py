"""The loss against the learning rate, what can be read from it, and its picture."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasbn.table import table

#: Columns of the text.
WIDTH = 120
#: How much of what the loss had gained it may have lost again where a rate still counts as stable.
LOST = 0.1


@dataclass(frozen=True, repr=False)
class LearningRateCurve:
    """What a sweep over learning rates found; see `find_learning_rate`. As text it is a short table.

    Of the three rates that are read from it, take `suggested`, which is `valley`: the loss falls all around it, and it
    depends less on noise than `steepest`, one point of the curve. `largest_stable` is a bound: higher rates undo what
    was learned. A rate that falls during training, or that is warmed up, may begin between the two.

    Attributes:
        name: Name of the model.
        rates: Array of the rates tried, ascending.
        losses: Array of as many losses: that of the batch after a step at the rate.
        smoothed: Array of as many: the losses with Gaussian weights over neighbouring rates, so without delay.
        diverged: The rate that ended the sweep, as the loss exploded or was not finite; `None` if all were tried.
        compared: Curves of other models, for the same rates and data.
        ran_out: Whether the data ended before all rates were tried.

    Raises:
        ValueError: If there are fewer than 3 rates.

    Example:
    >>> rates = np.logspace(-4, 0, 9)
    >>> losses = np.array([2.0, 1.99, 1.95, 1.8, 1.2, 0.9, 0.85, 1.5, 9.0])
    >>> curve = LearningRateCurve("model", rates, losses, losses)
    >>> [f"{rate:.4f}" for rate in (curve.steepest, curve.valley, curve.largest_stable)]
    ['0.0100', '0.0100', '0.1000']
    >>> print(curve)
    learning rate         loss
    --------------  ----  ----
    steepest        0.01  1.2
    valley          0.01  1.2
    largest stable  0.1   0.85
    <BLANKLINE>
    model: 9 learning rates from 0.0001 to 1.
    Suggested: 0.01, the valley: the loss falls from 2 to 0.85, and around this rate it does most of that. Above 0.1 it
    rises again.
    """

    name: str
    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: float | None = None
    compared: tuple["LearningRateCurve", ...] = ()
    ran_out: bool = False

    def __post_init__(self) -> None:
        """Checks that there is a curve."""
        if len(self.rates) < 3:
            why = "." if self.diverged is None else f", as the loss diverged at {self.diverged:g}."
            why = ", as the data ended." if self.ran_out else why
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

    @property
    def suggested(self) -> float | None:
        """The rate to take: `valley`, or `None` if the loss falls by no more than its noise."""
        return self.valley if self._gain() > self._noise() else None

    def __str__(self) -> str:
        """The rates with their losses, and the one that is suggested, with the reason; for each model."""
        return "\n\n".join([self._text(), *map(str, self.compared)])

    def __repr__(self) -> str:
        """How many rates were tried, and the one that is suggested."""
        rate = "none" if self.suggested is None else f"{self.suggested:.2g}"
        return f"<LearningRateCurve {self.name!r}: {len(self.rates)} learning rates, suggested: {rate}>"

    def _text(self) -> str:
        tried = f"{self.name}: {len(self.rates)} learning rates from {self.rates[0]:.2g} to {self.rates[-1]:.2g}"
        tried += "." if self.diverged is None else f"; the loss diverged at {self.diverged:.2g}."
        if self.ran_out:
            tried += " The data ended there, before all rates were tried: give more for higher ones."
        first, lowest = self.smoothed[0], self.smoothed.min()
        if self.suggested is None:
            return f"{tried}\n" + textwrap.fill(
                f"No rate is suggested: the loss falls by {self._gain():.2g}, which is within its noise from batch to "
                "batch. Try larger batches, more rates or others, and see whether the model learns at all.",
                WIDTH,
            )
        points = [(name, getattr(self, name.replace(" ", "_"))) for name in ("steepest", "valley", "largest stable")]
        rows = [(name, f"{rate:.2g}", f"{self._smoothed_at(rate):.3g}") for name, rate in points]
        reason = (
            f"Suggested: {self.suggested:.2g}, the valley: the loss falls from {first:.3g} to {lowest:.3g}, and around "
            "this rate it does most of that. "
        )
        if self._stable_end() < len(self.rates) - 1 or self.diverged is not None:
            reason += f"Above {self.largest_stable:.2g} it rises again."
        else:
            reason += "It did not rise again: higher rates may do as well."
        return "\n".join([table([("learning rate", "", "loss"), *rows]), "", tried, textwrap.fill(reason, WIDTH)])

    def _smoothed_at(self, rate: float) -> float:
        return float(np.interp(np.log(rate), np.log(self.rates), self.smoothed))

    def _gain(self) -> float:
        return float(self.smoothed[0] - self.smoothed.min())

    def _noise(self) -> float:
        """What the smoothed loss may fall by chance, from its first value to the lowest of all.

        A loss without noise falls to its minimum and then rises. Moves the other way are noise: in losses that are
        nothing else, their root mean square is the standard deviation. So many of these as are exceeded by one in a
        thousand of simulated flat curves with 50 to 200 rates: 7 without smoothing, fewer with more of it.
        """
        rough, smooth = (self._wrong_way(each) for each in (self.losses, self.smoothed))
        return (1.5 + 5.5 * math.sqrt(min(smooth / rough, 1.0))) * rough if rough else 0.0

    def _wrong_way(self, losses: np.ndarray) -> float:
        moves, lowest = np.diff(losses), int(np.argmin(self.smoothed))
        wrong = np.concatenate([np.maximum(moves[:lowest], 0.0), np.minimum(moves[lowest:], 0.0)])
        return float(np.sqrt(np.mean(wrong**2)))

    def _stable_end(self) -> int:
        lowest = int(np.argmin(self.smoothed))
        limit = self.smoothed[lowest] + LOST * (self.smoothed[0] - self.smoothed[lowest])
        beyond = np.flatnonzero(self.smoothed[lowest:] > limit)
        return lowest + int(beyond[0]) - 1 if len(beyond) else len(self.rates) - 1

    def plot(self, ax: Any = None, labels: Sequence[str] | None = None) -> Any:
        """Draws the curve, and those that it is compared with. Rates are marked where one is suggested.

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
        own = ax is None
        if own:
            _, ax = pyplot.subplots(figsize=(9.5, 4.5), layout="constrained")
        curves = (self, *self.compared)
        labels = [curve.name for curve in curves] if labels is None else labels
        if len(labels) != len(curves):
            raise ValueError(
                f"Argument `labels` must have a label for each of {len(curves)} curves. Received: {labels!r}."
            )
        first = max(curve.smoothed[0] for curve in curves)
        lowest = min(curve.smoothed.min() for curve in curves)
        height = max(first - lowest, *(np.ptp(np.sort(each.losses)[: -len(each.losses) // 4]) for each in curves), 1e-6)
        top, bottom = first + 0.35 * height, lowest - 0.15 * height
        for i, (curve, label) in enumerate(zip(curves, labels, strict=True)):
            curve._draw(ax, f"C{i}", label, top, line=sum(each.diverged is not None for each in curves[:i]))
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss after a step at the rate", ylim=(bottom, top))
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)} if own else {}  # where it covers nothing
        ax.legend(fontsize=9, framealpha=0.85, edgecolor="none", **beside)
        return ax

    def _draw(self, ax: Any, color: str, label: str, top: float, line: int) -> None:
        """In one color; that it diverged is written in a line of its own, as others may at the same rate."""
        ax.plot(self.rates, self.losses, color=color, alpha=0.3, linewidth=0.8)
        ax.plot(self.rates, self.smoothed, color=color, linewidth=2, label=label)
        points = (("v", "steepest"), ("o", "valley"), ("D", "largest_stable"))
        for marker, name in points if self.suggested is not None else ():
            rate = getattr(self, name)
            style = {"color": color, "markersize": 7, "markeredgecolor": "white", "linestyle": "none"}
            text = f"{name.replace('_', ' ')}: {rate:.2g}{', suggested' if name == 'valley' else ''}"
            ax.plot(rate, self._smoothed_at(rate), marker, label=text, **style)
        if self.diverged is not None:
            ax.plot(self.diverged, top, "x", color=color, markersize=9, markeredgewidth=2, clip_on=False)
            style = {"color": color, "fontsize": 9, "ha": "right", "va": "center"}
            ax.annotate("diverged", (self.diverged, top), (-2, -13 * (line + 1)), textcoords="offset points", **style)


def smooth(losses: np.ndarray, width: float) -> np.ndarray:
    """`losses` with Gaussian weights of standard deviation `width`, in numbers of values."""
    if not width:
        return losses
    distance = np.subtract.outer(np.arange(len(losses)), np.arange(len(losses)))
    weights = np.exp(-0.5 * (distance / width) ** 2)
    return weights @ losses / weights.sum(1)
