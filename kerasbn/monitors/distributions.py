"""How far apart two distributions are: moments, Kullback-Leibler divergence, Wasserstein distance; for each channel.

All take samples with the channels on the last axis, and compute in float64.
"""

from typing import Any

import numpy as np

from kerasbn.arguments import count
from kerasbn.arrays import is_real


def gaussian_kl(mean_p: Any, variance_p: Any, mean_q: Any, variance_q: Any) -> np.ndarray:
    """Kullback-Leibler divergence between Gaussians, in nats.

        KL(P || Q) = (log(var_Q / var_P) + (var_P + (mean_P - mean_Q)^2) / var_Q - 1) / 2

    Args:
        mean_p: Array, the means of P.
        variance_p: Array, its variances, not negative.
        mean_q: Array, the means of Q.
        variance_q: Array, its variances, not negative.

    Returns:
        Array of the broadcast shape, in float64, not negative. Two constants that are equal are 0 apart; a constant and
        anything else are infinitely far apart.

    Raises:
        ValueError: If a variance is negative, if the shapes do not broadcast, or if it is not numbers that came.

    Example:
    >>> gaussian_kl(0.0, 1.0, 1.0, 1.0), gaussian_kl(0.0, 1.0, 0.0, 1.0)
    (np.float64(0.5), np.float64(0.0))

    Reference:
        S. Kullback & R. A. Leibler, On Information and Sufficiency, 1951.
    """
    given = {"mean_p": mean_p, "variance_p": variance_p, "mean_q": mean_q, "variance_q": variance_q}
    numbers = {name: _numbers(name, value) for name, value in given.items()}
    for name in ("variance_p", "variance_q"):
        if (numbers[name] < 0).any():
            raise ValueError(f"Argument `{name}` must not be negative. Received: {numbers[name].min():g}.")
    mean_p, variance_p, mean_q, variance_q = np.broadcast_arrays(*numbers.values())
    with np.errstate(all="ignore"):
        ratio = variance_p / variance_q
        kl = (-np.log(ratio) + ratio + (mean_p - mean_q) ** 2 / variance_q - 1) / 2
    same = (variance_p == variance_q) & (mean_p == mean_q)
    constant = (variance_p == 0) | (variance_q == 0)
    return np.maximum(np.where(same, 0.0, np.where(constant, np.inf, kl)), 0.0)


def histogram_kl(p: Any, q: Any, bins: int = 32) -> np.ndarray:
    """Kullback-Leibler divergence between the histograms of two samples, in nats.

        KL(P || Q) = sum_b P_b log(P_b / Q_b),    P_b = (count_b + 1/2) / (n + bins/2)

    The bins are those between the quantiles of both samples together, so that each holds as many of them. Half a count
    in each (Krichevsky & Trofimov) keeps it finite where one sample has none. Of two samples of one distribution it is
    not 0 but about (bins - 1) / 2 * (1 / n_P + 1 / n_Q).

    Args:
        p: Array ``[n, channels]``.
        q: Array ``[m, channels]``.
        bins: Integer above 1.

    Returns:
        Array ``[channels]``, float64; NaN where a value is.

    Raises:
        ValueError: If the samples have not the same channels, or are not numbers; if `bins` is out of its range.

    Example:
    >>> x = np.linspace(0.0, 1.0, 1000)[:, None]
    >>> histogram_kl(x, x), histogram_kl(x, x + 0.5)[0] > 1
    (array([0.]), np.True_)

    Reference:
        S. Kullback & R. A. Leibler, On Information and Sufficiency, 1951.
    """
    p, q = samples(p, q)
    count("bins", bins, 2)
    edges = np.quantile(np.concatenate([p, q]), np.linspace(0, 1, bins + 1)[1:-1], axis=0)

    def counts(values: np.ndarray) -> np.ndarray:
        below = np.array([np.count_nonzero(values < edge, axis=0) for edge in edges])  # all channels of a bin at once
        return np.diff(below, axis=0, prepend=0, append=len(values))

    in_p, in_q = counts(p), counts(q)
    used = in_p + in_q > 0  # a value that is taken often is the edge of several bins
    parts = [(each + 0.5) / (each.sum(0) + 0.5 * used.sum(0)) for each in (in_p, in_q)]
    divergences = np.sum(parts[0] * np.log(parts[0] / parts[1]), axis=0, where=used)
    return np.where(np.isnan(edges).any(0), np.nan, divergences)


def wasserstein(p: Any, q: Any) -> np.ndarray:
    """The 1-Wasserstein distance between two samples, exact, in their unit.

        W1 = integral over x of |F_P(x) - F_Q(x)|; with as many values in each: mean of |p_(i) - q_(i)|, sorted

    Args:
        p: Array ``[n, channels]``.
        q: Array ``[m, channels]``.

    Returns:
        Array ``[channels]``, float64.

    Raises:
        ValueError: If the samples have not the same channels, or are not numbers.

    Example:
    >>> x = np.arange(6.0)[:, None]
    >>> wasserstein(x, x + 2)
    array([2.])

    Reference:
        L. V. Kantorovich, On the Translocation of Masses, 1942.
    """
    p, q = samples(p, q)
    if len(p) == len(q):
        return np.mean(np.abs(np.sort(p, 0) - np.sort(q, 0)), 0)
    return np.array([_between_distributions(a, b) for a, b in zip(p.T, q.T, strict=True)])


def _between_distributions(p: np.ndarray, q: np.ndarray) -> float:
    """The area between the distribution functions of two samples, which are constant between neighboring values."""
    values = np.sort(np.concatenate([p, q]))
    below_p, below_q = (np.searchsorted(np.sort(each), values[:-1], side="right") / len(each) for each in (p, q))
    return float(np.sum(np.abs(below_p - below_q) * np.diff(values)))


def samples(p: Any, q: Any, names: tuple[str, str] = ("p", "q")) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64; what the arguments are called is for errors.

    Raises:
        ValueError: If they have not the same channels, or are not numbers.
    """
    p, q = _numbers(names[0], p), _numbers(names[1], q)
    if p.ndim != 2 or q.ndim != 2 or p.shape[1] != q.shape[1] or not len(p) or not len(q):
        raise ValueError(
            f"Arguments `{names[0]}` and `{names[1]}` must be samples of the same channels, [n, channels] and "
            f"[m, channels]. Received: shapes {p.shape} and {q.shape}."
        )
    return p, q


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        found = np.asarray(value)
        if is_real(found.dtype):
            return found.astype("float64")
        came = f"dtype {found.dtype}"
    except (TypeError, ValueError) as error:  # sequences of several lengths
        came = str(error)
    raise ValueError(f"Argument `{name}` must be an array of real numbers. Received: a {type(value).__name__}, {came}.")
