"""What the numbers of a layer say: its weights and statistics beside those of the data."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasbn.diagnosis.finding import Finding
from kerasbn.population import LayerPopulation, Recalibration

#: Gap between training and inference, in sigmas of the output: a warning, and an error.
GAP, LARGE_GAP = 0.1, 0.5
#: The part that initial values still have in moving statistics.
REMAINING = 0.05
#: A channel is dead below, and explodes above so many times the median deviation of its layer.
DEAD, EXPLODING = 1e-4, 1e4
#: |gamma| as a part of the median of its layer.
SMALL_GAMMA = 1e-3
#: Expected relative error of the variance of one batch.
NOISE = 0.3
#: The largest number of float16, and how many sigmas a value may be from the mean.
FLOAT16, SIGMAS = 65504.0, 8.0


def gap(population: LayerPopulation, epsilon: float) -> np.ndarray:
    """Root mean square, over the data, of the difference of the normalized values in inference, in sigmas.

        sqrt((1/stretch - 1)^2 var / (var + epsilon) + (shift / stretch)^2)

    Args:
        population: What `recalibrate` measured.
        epsilon: That of the layer.
    """
    part = population.variance / (population.variance + epsilon)
    return np.sqrt((1 / population.stretch - 1) ** 2 * part + (population.shift / population.stretch) ** 2)


def not_finite(layer: Any) -> Iterator[Finding]:
    """The finding that weights or statistics of a layer are NaN or infinite."""
    broken = sum(int(np.count_nonzero(~np.isfinite(np.asarray(v, "float64")))) for v in layer.variables)
    if broken:
        yield Finding(
            "error",
            "not finite",
            layer.path,
            float(broken),
            "So many weights or statistics are NaN or infinite: go back to a checkpoint, and train at a lower rate or "
            "with a loss scale.",
        )


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

    deviation = np.sqrt(population.variance)
    typical = np.median(deviation)
    dead = deviation <= DEAD * typical
    if dead.any():
        yield found(
            "warning",
            "dead channels",
            dead.sum(),
            "So many channels get the same value for every sample, and give beta: remove them, or train at a lower "
            "rate, at "
            "which ReLUs before them do not die.",
        )
    exploding = deviation > EXPLODING * typical if typical > 0 else deviation > EXPLODING
    if exploding.any():
        yield found(
            "warning",
            "exploding channels",
            deviation.max() / typical if typical > 0 else np.inf,
            "A channel varies so many times as much as the median one: look at the weights before it, and at outliers "
            "in the "
            "data.",
        )
    alive = ~dead
    gaps = np.where(alive, gap(population, layer.epsilon), 0.0)
    worst = gaps.max(initial=0.0)
    if worst > GAP:
        yield from _gap(layer, worst, iterations, found)
    if layer.scale:
        size = np.abs(np.asarray(layer.gamma, "float64"))
        small = size < SMALL_GAMMA * max(np.median(size), np.finfo("float64").tiny)
        if small.any() or not size.any():
            yield found(
                "note",
                "gamma near zero",
                (small | (size == 0)).sum(),
                "So many channels are scaled to nothing and give beta for every sample: prune them, or regularize "
                "gamma less.",
            )
    together = normalized_together(layer, measured.samples / measured.batches, replicas)
    values = population.values / measured.samples * together
    noise = np.sqrt(2 / max(values - 1, 1e-9))
    if noise > NOISE:
        yield found(
            "warning",
            "small batches",
            noise,
            f"The variance of what is normalized together has about so large a relative error, as it is that of "
            f"{values:.3g} values of a channel: take larger batches or virtual batches, synchronized=True over "
            "replicas, or groups of channels (GroupNormalization).",
        )
    if alive.any():
        share = np.where(alive, layer.epsilon / (population.variance + layer.epsilon), 0.0).max()
        if share > 0.5:
            yield found(
                "warning",
                "epsilon",
                share,
                "So large a part of the divisor is epsilon, so that a channel is scaled down: make epsilon smaller, "
                "or the inputs "
                "larger.",
            )
    if layer.compute_dtype == "float16":
        largest = (np.abs(population.mean) + SIGMAS * deviation).max()
        if largest > FLOAT16:
            yield found(
                "error",
                "float16 overflow",
                largest,
                f"Values {SIGMAS:g} sigmas from the mean are so large, more than float16 holds ({FLOAT16:g}): take "
                "bfloat16 or "
                "mixed precision with smaller weights before this layer.",
            )


def _gap(layer: Any, worst: float, iterations: int, found: Any) -> Iterator[Finding]:
    severity = "error" if worst > LARGE_GAP else "warning"
    yield found(
        severity,
        "moving statistics",
        worst,
        "Inference differs from training by so many sigmas of a channel's output, as the moving statistics are not "
        "those of the "
        "data: run kerasbn.recalibrate(model, data).",
    )
    momentum = layer.momentum
    if iterations and momentum is not None and momentum**iterations > REMAINING:
        yield found(
            severity,
            "momentum",
            momentum**iterations,
            f"So large a part of the moving statistics are still their initial values, after {iterations} steps with "
            "momentum "
            f"{momentum:g}: train longer, take a lower momentum or momentum=None, or run kerasbn.recalibrate.",
        )
