"""What the numbers of a layer say: its weights and statistics beside those of the data."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kerasbn.diagnosis.finding import Finding
from kerasbn.diagnosis.weights import recalibration
from kerasbn.freezing import is_frozen
from kerasbn.population import LayerPopulation, Recalibration

#: Gap between training and inference, in standard deviations of the output: a warning, and an error.
GAP, LARGE_GAP = 0.1, 0.5
#: The part that initial values still have in moving statistics.
REMAINING = 0.05
#: The weight of the last batch in moving statistics.
LAST_BATCH = 0.5
#: A channel is dead below so many times the median deviation of its layer (1 at most), or the square root of epsilon.
DEAD = 1e-4
#: A channel explodes above so many times the median deviation of the channels that live, or above a deviation of HUGE.
EXPLODING, HUGE = 1e4, 1e6
#: |gamma| as a part of what is usual in its layer.
SMALL_GAMMA = 1e-3
#: The part of the divisor's square that epsilon may be.
DOMINATES = 0.5
#: Expected relative error of the variance of one batch.
NOISE = 0.3
#: The largest number of float16, and how many sigmas a value may be from the mean.
FLOAT16, SIGMAS = 65504.0, 8.0


def gap(layer: Any, population: LayerPopulation) -> np.ndarray:
    """Root mean square, over the data, of the difference that inference makes to the normalized values of a channel.

        sqrt((sigma * (1/moving_sigma - 1/sigma_of_data))^2 + ((moving_mean - mean) / moving_sigma)^2)

    with `sigma` without epsilon and the other two with it: in standard deviations of the output. NaN where the moving
    statistics are no numbers to compute with, and in channels that got no values.

    Args:
        layer: A `BatchNormalization`.
        population: What `recalibrate` measured of it.
    """
    moving_mean, moving_variance = (np.asarray(v, "float64") for v in (layer.moving_mean, layer.moving_variance))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / np.sqrt(moving_variance + layer.epsilon)
        difference = scale - 1 / np.sqrt(population.variance + layer.epsilon)
        spread = np.where(population.variance == 0, 0.0, np.sqrt(population.variance) * difference)
        found = np.hypot(spread, (moving_mean - population.mean) * scale)
    return np.where(np.isfinite(moving_mean + moving_variance), found, np.nan)


def is_small(gamma: np.ndarray) -> np.ndarray:
    """Which factors scale their channels to nothing, beside what is usual in the layer.

    That is the median; where the median is such a factor itself, the largest; and where all are, 1.
    """
    size = np.abs(gamma)
    largest = size.max() if size.max() >= SMALL_GAMMA else 1.0
    usual = np.median(size) if np.median(size) >= SMALL_GAMMA * min(largest, 1.0) else min(largest, 1.0)
    return size < SMALL_GAMMA * usual


def normalized_together(layer: Any, batch: float, replicas: int) -> float:
    """How many samples of a batch a layer takes moments of, as far as it says: on average, as batches may differ.

    Args:
        layer: A `BatchNormalization`.
        batch: Samples in a batch, over all replicas.
        replicas: How many there are.
    """
    if not layer.synchronized:
        return min(batch / replicas, getattr(layer, "virtual_batch_size", None) or batch)
    return batch * (getattr(layer, "sync_group_size", None) or replicas) / replicas


def check(
    layer: Any, population: LayerPopulation, measured: Recalibration, iterations: int, replicas: int
) -> Iterator[Finding]:
    """The findings of one layer.

    Args:
        layer: A `BatchNormalization`.
        population: What the data say of it.
        measured: What that was found from.
        iterations: Training steps that its optimizer has made, 0 if that is not known.
        replicas: Of the model's strategy.
    """

    def found(severity: str, kind: str, value: Any, advice: str) -> Finding:
        return Finding(severity, kind, population.layer, float(value), advice)

    got_values = np.isfinite(population.variance)  # all but those that got no values
    mean, variance = population.mean[got_values], population.variance[got_values]
    deviation, channels = np.sqrt(variance), variance.size
    dead = deviation <= DEAD * max(min(np.median(deviation), 1.0), layer.epsilon**0.5)
    if dead.any():
        yield found(
            "warning",
            "dead channels",
            dead.sum(),
            f"{dead.sum()} of {channels} channels get the same value for every sample, and give beta. Remove them, or "
            "train with a lower learning rate, at which ReLUs before them do not die.",
        )
    alive = deviation[~dead]
    typical = np.median(alive) if alive.size else 0.0
    exploding = alive > min(EXPLODING * typical, HUGE)
    if exploding.any():
        yield found(
            "warning",
            "exploding channels",
            alive.max(),
            f"{exploding.sum()} of {channels} channels vary too much before normalization: the largest standard "
            f"deviation is {alive.max():.3g}, {alive.max() / typical:.3g} times the median of the layer. Look at the "
            "weights before it, and at outliers in the data.",
        )
    # What is NaN has a finding of its own.
    yield from _gap(layer, np.nan_to_num(gap(layer, population), nan=0.0, posinf=np.inf), iterations, found)
    if layer.scale:
        yield from _gamma(layer, found)
    shares = layer.epsilon / (variance[~dead] + layer.epsilon)
    if (shares > DOMINATES).any():
        yield found(
            "warning",
            "epsilon",
            shares.max(),
            f"Epsilon ({layer.epsilon:g}) is up to {shares.max():.3g} of the divisor's square, and more than half of "
            f"it in {(shares > DOMINATES).sum()} of {channels} channels, which are scaled down. Use a smaller epsilon, "
            "or larger inputs.",
        )
    if layer.compute_dtype == "float16":
        largest = np.abs(mean) + SIGMAS * deviation
        if (largest > FLOAT16).any():
            yield found(
                "error",
                "float16 overflow",
                largest.max(),
                f"Values {SIGMAS:g} standard deviations from the mean reach {largest.max():.3g} in "
                f"{(largest > FLOAT16).sum()} of {channels} channels, and float16 ends at {FLOAT16:g}. Use bfloat16, "
                "or smaller weights before this layer.",
            )
    if is_frozen(layer):  # It takes no statistics of batches in training.
        return
    if layer.momentum is not None and 1 - layer.momentum > LAST_BATCH:
        yield found(
            "warning",
            "low momentum",
            1 - layer.momentum,
            f"With momentum {layer.momentum:g}, {1 - layer.momentum:.0%} of the moving statistics come from the last "
            "batch of a training, so they are as noisy as one batch, and training again makes them so again. Use a "
            "momentum of 0.9 or more (the share of the old value: PyTorch's 0.1 is 0.9 in Keras), momentum=None, or "
            "kerasbn.callbacks.PopulationStatistics.",
        )
    together = normalized_together(layer, measured.samples / measured.batches, replicas)
    values = population.values / measured.samples * together
    noise = np.sqrt(2 / max(values - 1, 1e-9))
    if noise > NOISE:
        yield found(
            "warning",
            "small batches",
            noise,
            f"The variance of {values:.3g} values of a channel, as many as are normalized together, has a relative "
            f"error of about {noise:.2g}. Use larger batches or virtual batches, synchronized=True over replicas, or "
            "groups of channels (GroupNormalization).",
        )


def _gap(layer: Any, gaps: np.ndarray, iterations: int, found: Any) -> Iterator[Finding]:
    worst = gaps.max()
    if worst <= GAP:
        return
    severity = "error" if worst > LARGE_GAP else "warning"
    frozen = is_frozen(layer)
    what = (
        "This frozen layer differs from one with statistics of the data"
        if frozen
        else "Inference differs from training"
    )
    yield found(
        severity,
        "moving statistics",
        worst,
        f"{what} by up to {worst:.3g} standard deviations of a channel's output, and by more "
        f"than {GAP:g} in {(gaps > GAP).sum()} of {gaps.size} channels, because the moving statistics are not those of "
        f"the data. Run {recalibration(layer)}.",
    )
    momentum = layer.momentum
    if not frozen and iterations and momentum is not None and momentum**iterations > REMAINING:
        yield found(
            severity,
            "momentum",
            momentum**iterations,
            f"{momentum**iterations:.0%} of the moving statistics are still their initial values, after {iterations} "
            f"steps with momentum {momentum:g}. Train longer, use a lower momentum or momentum=None, or run "
            "kerasbn.recalibrate(model, data).",
        )


def _gamma(layer: Any, found: Any) -> Iterator[Finding]:
    gamma = np.asarray(layer.gamma, "float64")
    small = is_small(gamma)
    if not small.any():
        return
    number = f"{small.sum()} of {small.size} channels have an abs(gamma) of at most {np.abs(gamma[small]).max():.3g}"
    most = 2 * small.sum() > small.size
    if isinstance(layer.gamma_initializer, keras.initializers.Zeros) and not gamma.any():
        most = False
        advice = f"{number}, as gamma_initializer='zeros' made it: no training has changed it yet."
    elif most:
        advice = (
            f"{number}, and give beta for every sample, so that little or nothing gets through this layer. Go back to "
            "a checkpoint, and regularize gamma less: exclude it from weight decay."
        )
    else:
        advice = f"{number}, and give beta for every sample. Prune them, or regularize gamma less."
    yield found("warning" if most else "note", "gamma near zero", small.sum(), advice)
