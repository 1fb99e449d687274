"""Do two things go together?"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from kerasbn.intervals import Interval


def rank_correlation(
    x: Sequence[float], y: Sequence[float], groups: Sequence[str] | None = None, confidence: float = 0.95
) -> Interval:
    """Spearman's correlation of `x` and `y`, with the interval of Bonett & Wright (2000).

        tanh(atanh(r) ± z * sqrt((1 + r^2 / 2) / (n - 3)))

    With `groups` each group's mean is taken off first: what is left is how they go together within groups, of n less
    the number of groups but one. Fewer than 5 pairs, or equal ones, give NaN. The interval is that of independent
    pairs, which the runs of one network are not: see it as the narrowest that it may be.
    """
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    n, none = len(x), Interval(math.nan, math.nan, math.nan)
    if groups is not None:
        kinds = np.asarray(groups)
        x, y = (
            values - sum(np.where(kinds == g, values[kinds == g].mean(), 0) for g in set(groups)) for values in (x, y)
        )
        n -= len(set(groups)) - 1
    if n < 5 or not np.isfinite([*x, *y]).all() or np.ptp(x) == 0 or np.ptp(y) == 0:
        return none
    r = float(stats.spearmanr(x, y).statistic)
    z = math.atanh(min(max(r, -1 + 1e-12), 1 - 1e-12))
    margin = float(stats.norm.ppf((1 + confidence) / 2)) * math.sqrt((1 + r * r / 2) / (n - 3))
    return Interval(r, math.tanh(z - margin), math.tanh(z + margin))
