"""How certain a mean over a few seeds is."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean over seeds with its confidence interval; without one, infinite, if there is one seed.

    Attributes:
        mean: The mean, or the geometric mean.
        low: The lower end of the interval.
        high: The upper end.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """As in ``6.1 (4.8 to 7.7)``."""
        return f"{self.mean:.3g} ({self.low:.3g} to {self.high:.3g})"


def geometric_mean(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Geometric mean of independent positive numbers, with the interval of Student's t on their logarithms.

        exp(mean(log v) ± t * stdev(log v) / sqrt(n))

    It is NaN if one of the values is not a finite number above 0.
    """
    if not all(0 < value < math.inf for value in values):
        return Interval(math.nan, math.nan, math.nan)
    logs = [math.log(value) for value in values]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return Interval(math.exp(mean), 0.0, math.inf)
    from scipy import stats

    margin = float(stats.t.ppf((1 + confidence) / 2, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Interval(math.exp(mean), math.exp(mean - margin), math.exp(mean + margin))
