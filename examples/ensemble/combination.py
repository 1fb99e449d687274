"""What the mean of the networks' probabilities is worth, on test images: pure arithmetic on arrays."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def wrong(probabilities: np.ndarray, classes: np.ndarray, k: int) -> np.ndarray:
    """Whether the true class is not among the `k` most probable ones, ``[n]``. A tie with it counts against it.

    Args:
        probabilities: ``[n, classes]``. What is not a number is wrong.
        classes: The true ones, ``[n]``, integers.
        k: How many may be named.
    """
    own = np.take_along_axis(probabilities, classes[:, None], axis=1)
    return (probabilities < own).sum(1) < probabilities.shape[1] - k


def combine(
    probabilities: Mapping[str, np.ndarray], classes: np.ndarray, k: int, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Errors of each network and of their arithmetic mean, and how certain the differences are.

    Args:
        probabilities: Those of each network, ``[n, classes]``, by its name; two networks at least.
        classes: The true ones, ``[n]``.
        k: Of the second error, top-k.
        resamples: How many times images are drawn, as many as there are, with replacement.
        seed: Of that.

    Returns:
        A dictionary that JSON can hold: for `"top_1"` and `"top_k"` the error of each network (`"members"`), of all
        together (`"ensemble"`), for each number of networks the mean, lowest and highest error over all choices of so
        many (`"by_size"`), and the error of all less the mean error of the members (`"to_mean"`), and less that of the
        one with the lowest top-1 error (`"to_best"`, named by `"best"`), with the interval in which 95 % of the
        resamples are, paired: the networks see the same images.
    """
    names = list(probabilities)
    each = np.stack([probabilities[name] for name in names]).astype("float64")
    counts = np.random.default_rng(seed).multinomial(len(classes), np.full(len(classes), 1 / len(classes)), resamples)
    best = int(np.argmin([wrong(p, classes, 1).mean() for p in each]))
    found: dict[str, Any] = {"best": names[best], "images": len(classes)}
    for name, size in (("top_1", 1), ("top_k", k)):
        single = np.stack([wrong(p, classes, size) for p in each]).astype("float64")
        joint = wrong(each.mean(0), classes, size).astype("float64")
        found[name] = {
            "members": {member: _rounded(error) for member, error in zip(names, single.mean(1), strict=True)},
            "ensemble": _rounded(joint.mean()),
            "by_size": [_over_choices(each, classes, size, number) for number in range(1, len(names) + 1)],
            "to_mean": _interval(joint - single.mean(0), counts),
            "to_best": _interval(joint - single[best], counts),
        }
    return found


def _over_choices(each: np.ndarray, classes: np.ndarray, k: int, number: int) -> dict[str, float]:
    choices: Sequence[tuple[int, ...]] = list(itertools.combinations(range(len(each)), number))
    errors = [wrong(each[list(choice)].mean(0), classes, k).mean() for choice in choices]
    return {"mean": _rounded(np.mean(errors)), "min": _rounded(min(errors)), "max": _rounded(max(errors))}


def _interval(differences: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """The mean of `differences`, one an image, and where 95 % of the means over resampled images are."""
    low, high = np.percentile(counts @ differences / len(differences), (2.5, 97.5))
    return {"mean": _rounded(differences.mean()), "low": _rounded(low), "high": _rounded(high)}


def _rounded(value: float) -> float:
    return round(float(value), 5)
