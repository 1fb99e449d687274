"""Two trainings side by side, on the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Training:
    name: str
    seconds: float
    history: dict[str, list[float]]  # what `fit` has measured, a number an epoch
    weights: list[np.ndarray]


def table(trainings: Sequence[Training]) -> str:
    """A line for each, and how far the weights of the last one are from those of the first."""
    width = max(len(training.name) for training in trainings)
    lines = [f"{'':{width}}  training time  last training loss  test accuracy"]
    for t in trainings:
        loss, accuracy = t.history["loss"][-1], t.history["val_accuracy"][-1]
        lines.append(f"{t.name:{width}}  {t.seconds:11.1f} s  {loss:18.6f}  {accuracy:13.2%}")
    difference = largest_difference(trainings[-1].weights, trainings[0].weights)
    lines += ["", f"largest relative difference of a weight: {difference:.1e}"]
    if trainings[0].weights[0].dtype == "float32":
        lines.append("In float32 what is rounded otherwise grows with every step; --dtype float64 leaves that out.")
    return "\n".join(lines)


def largest_difference(weights: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """The largest difference between two models, relative to the largest value of each weight."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(weights, others, strict=True))
