"""What a training is judged by: its whole curve, not the best of its epochs."""

from collections.abc import Mapping, Sequence

import keras_tuner

from kerasbn.arguments import count, positive
from kerasbn.layers.arguments import one_of

#: The values of an epoch by name, a list each, as in `keras.callbacks.History.history`; with those of
#: `StopOnDivergence`.
Curve = Mapping[str, Sequence[float]]

MODES = ("max", "min")


class CurveObjective(keras_tuner.Objective):
    """An objective that is measured on a whole training.

    Subclasses define `measure`, from a `Curve` to a number.

    Attributes:
        worst: The worst that `measure` gives for a training that does not diverge, `None` if there is no such bound.
    """

    worst: float | None = None

    def measure(self, curve: Curve) -> float:
        """What the training is worth."""
        raise NotImplementedError


class StepsToTarget(CurveObjective):
    """How many steps a training takes to a target, the measure of Fig. 2 and 3 of Ioffe & Szegedy (2015).

        min(steps at the end of the first epoch with metric >= target, budget)

    A training that does not get there is *censored*: all that is known is that it takes longer, so it counts as
    `budget`. It is to be minimized; its name is `steps_to_target`. A trial in which Hyperband goes on with an earlier
    one is measured on its own epochs, with the steps before them counted.

    Args:
        target: Float, for example 0.72, an accuracy that the paper counts steps to.
        budget: Integer above 0, the steps of a full training: the number of epochs times the steps of one.
        metric: Name of a value that is reported in every epoch.
        mode: `"max"` if a larger metric is better; `"min"` if a smaller one is: then the target is reached from above.

    Raises:
        ValueError: If an argument is out of its range; in `measure`, if the training does not report the metric.

    Example:
    >>> objective = StepsToTarget(0.9, budget=300)
    >>> objective.measure({"val_accuracy": [0.5, 0.91, 0.89], "steps": [100, 200, 300]})
    200.0
    >>> objective.measure({"val_accuracy": [0.5, 0.6, 0.7], "steps": [100, 200, 300]})
    300.0

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 4.2.2, Fig. 3.
    """

    def __init__(self, target: float, budget: int, metric: str = "val_accuracy", mode: str = "max") -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__("steps_to_target", "min")
        self.target, self.metric, self.mode = float(target), metric, one_of("mode", mode, MODES)
        self.budget = count("budget", budget, 1)
        self.worst = float(self.budget)

    def measure(self, curve: Curve) -> float:
        """The steps to the target, at most `budget`."""
        sign = 1 if self.mode == "max" else -1
        for value, steps in zip(*aligned(curve, self.metric, "steps"), strict=True):
            if sign * value >= sign * self.target:
                return float(min(steps, self.budget))
        return float(self.budget)


class AreaUnderCurve(CurveObjective):
    """The mean of a metric over the steps of a training: high if it is high early.

        sum_e metric_e * (steps_e - steps_{e-1}) / steps_E,    steps_0 = 0,

    with `steps_e` at the end of epoch `e` of `E`. Its name is `area_under_curve`.

    Args:
        metric: Name of a value that is reported in every epoch.
        mode: `"max"` or `"min"`: which is better.
        worst: Float, the worst value that a healthy training can have, `None` for 0 with `"max"`, as for accuracies,
            and no bound with `"min"`.

    Raises:
        ValueError: If `mode` is neither; in `measure`, if the training does not report the metric.

    Example:
    >>> AreaUnderCurve().measure({"val_accuracy": [0.5, 0.9], "steps": [100, 200]})
    0.7

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Fig. 2 shows such curves.
    """

    def __init__(self, metric: str = "val_accuracy", mode: str = "max", worst: float | None = None) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__("area_under_curve", one_of("mode", mode, MODES))
        self.metric, self.worst = metric, worst

    def measure(self, curve: Curve) -> float:
        """The mean over steps."""
        values, ends = aligned(curve, self.metric, "steps")
        starts = [0, *ends[:-1]]
        area = sum(value * (end - start) for value, start, end in zip(values, starts, ends, strict=True))
        return float(area / positive("steps", ends[-1]))


class FinalValue(CurveObjective):
    """The mean of a metric over the last epochs of a training, 1 by default. Its name is `final_value`.

        (metric_{E-last+1} + ... + metric_E) / last

    Args:
        metric: Name of a value that the training reports.
        mode: `"max"` or `"min"`: which is better.
        last: Integer above 0, over how many epochs the mean is taken; over all of a training that has fewer.
        worst: As for `AreaUnderCurve`.

    Raises:
        ValueError: If an argument is out of its range; in `measure`, if the training does not report the metric.

    Example:
    >>> FinalValue(last=2).measure({"val_accuracy": [0.99, 0.5, 0.7]})
    0.6

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Fig. 3, "Max accuracy"; the
        value at the end is asked for here, since a training may be past its best.
    """

    def __init__(
        self, metric: str = "val_accuracy", mode: str = "max", last: int = 1, worst: float | None = None
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__("final_value", one_of("mode", mode, MODES))
        self.metric, self.last, self.worst = metric, count("last", last, 1), worst

    def measure(self, curve: Curve) -> float:
        """The mean over the last epochs."""
        (values,) = aligned(curve, self.metric)
        values = values[-self.last :]
        return sum(values) / len(values)


def aligned(curve: Curve, *names: str) -> list[Sequence[float]]:
    """The values of `names` in `curve`, one an epoch.

    Raises:
        ValueError: If one is not there, or not in every epoch.
    """
    missing = [name for name in names if not curve.get(name)]
    if missing:
        raise ValueError(
            f"The objective needs {missing[0]!r} in the results of `fit`. Received: results with {sorted(curve)}. "
            "Compile the model with that metric, give `search` the validation data, pass the callbacks that "
            "`HyperModel.fit` is given on to `model.fit`, and return what that returns."
        )
    values = [curve[name] for name in names]
    if len({len(each) for each in values}) > 1:
        lengths = {name: len(curve[name]) for name in names}
        raise ValueError(
            f"The objective needs {names[0]!r} in every epoch. Received: so many values of each: {lengths}. "
            "Leave `validation_freq` at 1."
        )
    return values
