"""The largest learning rate that a network stands, with batch normalization and without."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from kerasbn.arguments import count, positive
from kerasbn.intervals import Interval, geometric_mean
from kerasbn.layers.arguments import number, one_of
from kerasbn.learning_rate_sweep import Sweep, feed, rate_range
from kerasbn.table import table
from kerasbn.transforms import batch_normalize
from kerasbn.transforms.batch_normalization import Where
from kerasbn.tuner.higher_learning_rate import ARMS, some

#: How far apart the first rates are that are tried, before the interval between a stable and another one is halved.
STRIDE = 4.0


@dataclass(frozen=True)
class StableRates:
    """The largest stable rates of one network.

    Attributes:
        setting: What `build` was called with.
        rates: For each arm the rate of each seed: `inf` if all up to `highest` were stable, `nan` if none was.

    Example:
    >>> StableRates({}, {"plain": [0.1, 0.2], "normalized": [0.4, 0.8]}).ratio().mean
    4.0
    """

    setting: dict[str, Any]
    rates: dict[str, list[float]]

    def rate(self, arm: str, confidence: float = 0.95) -> Interval:
        """Geometric mean over seeds with the interval of Student's t, on the logarithms; see `ratio`."""
        return geometric_mean(self.rates[arm], confidence)

    def ratio(self, confidence: float = 0.95) -> Interval:
        """How many times higher a rate the normalized network stands: geometric mean and interval over seeds.

            exp(mean(d) ± t * stdev(d) / sqrt(seeds)),    d_s = log(rate_s, normalized / rate_s, plain)

        with `t` of Student's distribution. Seeds with a rate that is not known, `inf` or `nan`, make it `nan`.

        Args:
            confidence: Float in (0, 1), of the interval.

        Raises:
            ValueError: If one of the arms was not tried.
        """
        if set(self.rates) != set(ARMS):
            raise ValueError(f"A ratio needs both arms, {ARMS}. Received: {tuple(self.rates)}.")
        pairs = zip(*(self.rates[arm] for arm in reversed(ARMS)), strict=True)
        return geometric_mean([high / low for high, low in pairs], confidence)


class LargestStable(list[StableRates]):
    """`StableRates` for each setting; as text it is a table.

    Example:
    >>> rates = {"plain": [0.1, 0.2, 0.1], "normalized": [0.4, 0.8, 0.8]}
    >>> print(LargestStable([StableRates({"depth": 2}, rates)]))
    depth  plain                   normalized             normalized / plain
    -----  ----------------------  ---------------------  -------------------
    2      0.126 (0.0466 to 0.34)  0.635 (0.235 to 1.72)  5.04 (1.86 to 13.6)
    """

    def __str__(self) -> str:
        """A line for each setting: the rates and their ratio, each with the interval of 95 %."""
        arms = list(self[0].rates)
        head = [*self[0].setting, *arms, *(["normalized / plain"] if len(arms) == 2 else [])]
        rows = [
            [
                *map(str, each.setting.values()),
                *(str(each.rate(arm)) for arm in arms),
                *([str(each.ratio())] if len(arms) == 2 else []),
            ]
            for each in self
        ]
        return table([head, *rows])


def largest_stable_learning_rate(
    build: keras.Model | Callable[..., keras.Model],
    data: Any,
    *,
    over: Mapping[str, Sequence[Any]] | None = None,
    arms: Sequence[str] = ARMS,
    seeds: int = 3,
    steps: int = 300,
    start: float | None = None,
    lowest: float = 1e-6,
    highest: float = 1e3,
    tolerance: float = 1.1,
    explosion: float = 10.0,
    keep: float = 0.5,
    normal_loss: float | None = None,
    batch_size: int = 32,
    on_trial: Callable[[dict[str, Any], str, int, float, bool], None] | None = None,
    where: Where = "pre_activation",
    **layer_arguments: Any,
) -> LargestStable:
    """Brackets and bisects the largest stable learning rate, over seeds, of a network and the same one normalized.

    A rate is *stable* if a training of `steps` steps at it, from the initial weights,

    - has no loss that is not finite or exceeds the first by more than `explosion` times its size, and
    - gains at least `keep` of what the best rate tried so far gains, and more than nothing. The gain is how much lower
      the mean loss of the last quarter of the steps is than without training, on the same batches, or than
      `normal_loss` if that is lower: a network that has died keeps little.

    From `start`, the rate is multiplied by 4 until it is not stable, or divided until it is. Between the last two, the
    geometric middle is tried until they are less than `tolerance` apart; the stable one is the result. That larger
    rates are not stable either is taken for granted. The rate is constant: a schedule is not followed.

    Both arms have, seed by seed, the same initial weights and the same batches. What is trained is put back afterwards,
    as by `kerasbn.find_learning_rate`.

    Args:
        build: Function that gives a compiled model, called once a seed with what `over` says; or a compiled model,
            whose initial weights are then those of all seeds, which differ in their batches.
        data: A tuple of arrays ``(x, y)`` or ``(x, y, sample_weight)``, from which batches are drawn at random; or a
            `tf.data.Dataset` or `PyDataset` of batches, repeated as needed. A generator would give the first training
            other batches than the next.
        over: Values for arguments of `build`, such as ``{"depth": (5, 10), "initialization_scale": (0.5, 1, 2)}``: all
            combinations are tried.
        arms: One or both of `"plain"` and `"normalized"`.
        seeds: Integer above 0, how many initializations.
        steps: Integer, not below 4, of each training: enough for the network to learn something.
        start: Positive float, the rate tried first; `None` for that of the optimizer.
        lowest: Positive float: no lower rate is tried.
        highest: Float above `lowest`: no higher rate is tried.
        tolerance: Float above 1, the factor to which the result is narrowed down.
        explosion: Positive float.
        keep: Float in [0, 1].
        normal_loss: Positive float, the loss of a guess, as ``log(classes)`` for a cross-entropy; `None` for that of
            the network without training. Deep networks that are not normalized begin with a worse one, and gain by
            dying if it is not given. A rate too low to get below it in `steps` is not stable: `start` above that.
        batch_size: Integer above 0, samples in a batch, for arrays.
        on_trial: Function that is told of each training: setting, arm, seed, rate, whether it was stable.
        where: Where `BatchNorm` goes; see `kerasbn.batch_normalize`.
        **layer_arguments: Those of `BatchNorm`, such as ``momentum=0.9``.

    Returns:
        A list of `StableRates`, one for each combination, which prints as a table: largest stable rates by arm and
        seed, and `ratio()`, their ratio with an interval.

    Raises:
        ValueError: If an argument is out of its range; if `build` gives a model that is not compiled.
        TypeError: If `data` are nothing that gives batches, or a generator, which gives them once.

    Example:
    >>> import numpy as np
    >>> def build(depth):
    ...     keras.utils.set_random_seed(depth)
    ...     hidden = [keras.layers.Dense(16, "relu", kernel_initializer="he_normal") for _ in range(depth)]
    ...     model = keras.Sequential([keras.Input((8,)), *hidden, keras.layers.Dense(1)])
    ...     model.compile(keras.optimizers.SGD(0.01), "mse")
    ...     return model
    >>> x = np.random.default_rng(0).normal(size=(256, 8))
    >>> found = largest_stable_learning_rate(build, (x, np.sin(x.sum(1))), over={"depth": [3]}, seeds=1, steps=20)
    >>> found[0].setting, found[0].ratio().mean > 1
    ({'depth': 3}, True)

    Reference:
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 3, Fig. 1, 3.
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 3.3, 4.2.2.
    """
    over = {name: some(f"over[{name!r}]", values, lowest=1) for name, values in (over or {}).items()}
    if over and isinstance(build, keras.Model):
        raise ValueError(
            f"Argument `over` needs a function as `build`, to call with its values. Received: model {build.name!r} and "
            f"over={over!r}. Give `def build({', '.join(over)}): ...`."
        )
    arms = [one_of("arms", arm, ARMS) for arm in some("arms", arms, lowest=1)]
    steps, seeds, tolerance = count("steps", steps, 4), count("seeds", seeds, 1), positive("tolerance", tolerance)
    lowest, highest = rate_range(lowest, highest)
    explosion = positive("explosion", explosion)
    start = None if start is None else positive("start", start)
    normal_loss = None if normal_loss is None else positive("normal_loss", normal_loss)
    keep, batch_size = number("keep", keep, 0, 1), count("batch_size", batch_size, 1)
    if tolerance <= 1:
        raise ValueError(f"Argument `tolerance` must be a factor above 1, such as 1.1. Received: {tolerance}.")
    found = LargestStable()
    for values in itertools.product(*over.values()):
        setting = dict(zip(over, values, strict=True))
        rates: dict[str, list[float]] = {arm: [] for arm in arms}
        for seed in range(seeds):
            given = feed(data, batch_size, seed, again=True)
            plain: Any = build if isinstance(build, keras.Model) else build(**setting)
            if not plain.compiled:
                raise ValueError(
                    "Argument `build` must give a compiled model: its optimizer has the learning rate that is tried. "
                    f"Received: {plain.name!r}, which is not. Call model.compile(...) first."
                )
            for arm in arms:
                model = plain if arm == "plain" else batch_normalize(plain, where, **layer_arguments)
                tell = partial(on_trial, setting, arm, seed) if on_trial else None
                trials = _Trials(model, given, steps, explosion, keep, normal_loss, tell)
                first = float(str(np.float32(plain.optimizer.learning_rate))) if start is None else start
                first = min(max(first, lowest), highest)
                rates[arm].append(_largest(trials.stable, first, lowest, highest, tolerance))
        found.append(StableRates(setting, rates))
    return found


class _Trials:
    """Trainings of one model, all from the same state, at constant rates."""

    def __init__(
        self,
        model: keras.Model,
        data: Callable[[], Any],
        steps: int,
        explosion: float,
        keep: float,
        normal_loss: float | None,
        tell: Callable[[float, bool], None] | None,
    ) -> None:
        self._model, self._data, self._steps = model, data, steps
        self._explosion, self._keep, self._tell = explosion, keep, tell
        self._normal_loss = math.inf if normal_loss is None else normal_loss
        self._untrained = self._losses(0.0)
        self._best_gain = 0.0

    def stable(self, rate: float) -> bool:
        """Whether `rate` is; the best gain so far is remembered."""
        losses = self._losses(rate)
        stable = False
        if losses is not None and self._untrained is not None:
            last = self._steps - self._steps // 4
            without = min(float(np.mean(self._untrained[last:])), self._normal_loss)
            gain = without - float(np.mean(losses[last:]))
            self._best_gain = max(self._best_gain, gain)
            stable = gain > 0 and gain >= self._keep * self._best_gain
        if self._tell:
            self._tell(rate, stable)
        return stable

    def _losses(self, rate: float) -> list[float] | None:
        """The losses before each step and after the last, `None` if they diverge."""
        sweep = Sweep(np.full(self._steps, rate), self._explosion)
        sweep.run(self._model, self._data)
        return None if sweep.diverged else sweep.losses


def _largest(stable: Callable[[float], bool], rate: float, lowest: float, highest: float, tolerance: float) -> float:
    """The largest stable rate: `highest` counts as infinite, none as NaN."""
    if stable(rate):
        low = rate
        while True:
            if low >= highest:
                return math.inf
            rate = min(low * STRIDE, highest)
            if not stable(rate):
                break
            low = rate
        high = rate
    else:
        high = rate
        while True:
            if high <= lowest:
                return math.nan
            rate = max(high / STRIDE, lowest)
            if stable(rate):
                break
            high = rate
        low = rate
    while high / low > tolerance:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low
