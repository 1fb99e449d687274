"""What is wrong with the batch normalization of a model, found from its weights, its graph and its data."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasbn.cardinality import check_end
from kerasbn.diagnosis import statistics, structure, weights
from kerasbn.diagnosis.finding import SEVERITIES, Diagnosis, Finding
from kerasbn.optimizers import stepping
from kerasbn.population import Recalibrator, in_arrays
from kerasbn.selection import Selection, batch_norms
from kerasbn.snapshot import RandomState, Snapshot
from kerasbn.statistics_pass import NotFiniteError, no_batch

__all__ = ["Diagnosis", "Finding", "diagnose"]


def diagnose(
    model: keras.Model,
    data: Any,
    steps: int | None = None,
    *,
    layers: Selection = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int | str = "auto",
) -> Diagnosis:
    """Looks for what goes wrong with batch normalization, most often between training and inference.

    The model runs over the data once in training mode, as by `kerasbn.recalibrate`, and nothing of it is changed.
    Looked for are:

        ======================== ======= =========================================================================
        kind                     found   value
        ======================== ======= =========================================================================
        not finite               any     weights and statistics of a layer of any kind that are NaN or infinite; or, of
                                         the model, outputs in inference
        invalid variance         any     channels with a negative moving variance, or without a divisor: it and epsilon
                                         are 0
        moving statistics        > 0.1   gap: root mean square of the difference that inference makes, in standard
                                         deviations of the output, in the worst channel; an error above 0.5
        momentum                 > 0.05  with such a gap: ``momentum ** steps``, what is left of the initial values
        low momentum             > 0.5   ``1 - momentum``, the weight of the last batch in the moving statistics
        dead channels            any     channels whose deviation is at most 1e-4 of ``sqrt(epsilon)``, or of the
                                         median of the layer (of 1, if that is larger)
        exploding channels       any     largest deviation of a channel, if above 1e6 or 1e4 times the median
        gamma near zero          any     channels whose abs(gamma) is below 1e-3 of what is usual in the layer: the
                                         median; if that is as small, the largest, or 1; a warning for most channels
        small batches            > 0.3   ``sqrt(2 / (m - 1))``, the relative error of a variance of `m` Gaussian
                                         values, as many as a channel gets of the samples that are normalized together
        epsilon                  > 0.5   ``epsilon / (variance + epsilon)`` in the worst channel that is not dead
        float16 overflow         > 65504 ``|mean| + 8 sigma`` of the inputs of a layer that computes in float16
        bias before              any     largest bias of a linear layer right before, which has no effect
        after the nonlinearity   any     1
        dropout before           > 0     largest rate of dropout before it, which shifts the variance in inference
        ======================== ======= =========================================================================

    Normalized together are the samples of a virtual batch, of one replica of the model's strategy, or of those that a
    synchronized layer joins. A layer that is called several times in a step is taken to normalize all its values at
    once, so that small batches may be missed.

    The last three are read off the graph of functional and Sequential models. Frozen layers (``trainable=False``, or
    `kerasbn.freeze`) and those that the model calls in inference mode are not looked at, since they normalize with what
    they have; `skipped` names them. Whether the statistics that they have are those of other data is found if `layers`
    selects them.

    Args:
        model: The model, built; compiled if the steps of its training are to be known. Of a model that has no `call`
            (a GAN), hand in the inner model.
        data: What it was trained on, augmented in the same way, in batches of the same size; as for
            `kerasbn.recalibrate`.
        steps: Integer, how many batches are read, or `None` for all; needed for data without end (`repeat()`).
        layers: Which: `None` for all that run in training mode in training; or a name or several, or a function of a
            layer that says whether it is meant. As for `kerasbn.recalibrate`, those that are meant run in training mode
            even if they are frozen, and all others in inference mode.
        batch_size: Integer, samples in a batch, for arrays: that of the training.
        seed: Integer, chooses the order, for arrays.
        verbose: 0 for silence, 1 for a progress bar, 2 for one line; `"auto"` for a progress bar if `steps` is `None`
            and the data do not say how many batches they have.

    Returns:
        `Diagnosis`, with `findings`, `healthy`, `skipped`, `output_gap`, `to_json()` and `plot()`. It prints as a
        table.

    Raises:
        ValueError: As `kerasbn.recalibrate`, but for statistics that are not finite, which are found.
        TypeError: If `model` is no Keras model, or `data` nothing that gives batches.

    Example:
    >>> import kerasbn
    >>> x = np.random.default_rng(0).normal(5.0, 2.0, size=(1000, 3)).astype("float32")
    >>> model = keras.Sequential([keras.Input((3,)), kerasbn.BatchNorm(name="bn"), keras.layers.Dense(1)])
    >>> [(finding.severity, finding.kind) for finding in diagnose(model, x).findings]
    [('error', 'moving statistics')]
    >>> _ = kerasbn.recalibrate(model, x)
    >>> diagnose(model, x).healthy
    True

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Alg. 2, Sec. 3.
        Y. Wu & J. Johnson, Rethinking "Batch" in BatchNorm, 2021, https://arxiv.org/abs/2105.07576.
        X. Li et al., Understanding the Disharmony between Dropout and Batch Normalization, 2018,
        https://arxiv.org/abs/1801.05134.
    """
    recalibrator = Recalibrator(model, layers)
    meant = {layer.path for layer in recalibrator.layers}
    skipped = [layer.path for layer in batch_norms(model) if layer.path not in meant]
    unusable = [*weights.not_finite(model), *weights.invalid_variance(batch_norms(model))]
    findings = [*unusable, *(finding for finding in structure.check(model) if finding.layer in meant)]
    check_end(data, steps)
    x, data = _first_batch(data, batch_size)
    state = Snapshot(recalibrator.statistics, model.distribute_strategy)
    random_state = RandomState()
    try:
        before = _outputs(model, x)
        measured = recalibrator(data, steps, batch_size=batch_size, seed=seed, verbose=verbose)
        after = _outputs(model, x)
    except NotFiniteError:
        if not unusable:
            raise
        return Diagnosis(_sorted(findings), [], 0, 0, float("nan"), skipped)
    finally:
        state.restore()
        random_state.restore()
    if not unusable:
        findings += _outputs_not_finite(model, before)
    optimizer = getattr(model, "optimizer", None)
    iterations = int(stepping(optimizer)[0].iterations.numpy()) if optimizer is not None else 0
    replicas = model.distribute_strategy.num_replicas_in_sync
    for layer, population in zip(recalibrator.layers, measured.layers, strict=True):
        if population.values:  # else the model calls it in inference mode
            findings += statistics.check(layer, population, measured, iterations, replicas)
    looked_at = [each for each in measured.layers if each.values]
    skipped += [each.layer for each in measured.layers if not each.values]
    gap = _gap(before, after)
    return Diagnosis(_sorted(findings), looked_at, measured.batches, measured.samples, gap, skipped)


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _first_batch(data: Any, batch_size: int) -> tuple[Any, Any]:
    """What the model takes in the first batch, and data that still have it."""
    if isinstance(data, Iterator):
        first = next(data, None)
        if first is None:
            raise no_batch(data)
        # A generator is what Keras takes for one.
        return keras.utils.unpack_x_y_sample_weight(first)[0], (each for each in itertools.chain([first], data))
    if isinstance(data, keras.utils.PyDataset):
        return keras.utils.unpack_x_y_sample_weight(data[0])[0], data
    if isinstance(data, tf.data.Dataset | tf.distribute.DistributedDataset):
        return keras.utils.unpack_x_y_sample_weight(next(iter(data)))[0], data
    x = in_arrays(data)
    if x is None:
        raise TypeError(
            "Argument `data` must be arrays, a tf.data.Dataset, a PyDataset or a generator. "
            f"Received: an object of class {type(data).__name__}. Give iter(data)."
        )
    return keras.tree.map_structure(lambda array: array[:batch_size], x), data


def _outputs(model: keras.Model, x: Any) -> list[np.ndarray]:
    return [np.asarray(each, "float64") for each in keras.tree.flatten(model(x, training=False))]


def _outputs_not_finite(model: keras.Model, outputs: list[np.ndarray]) -> Iterator[Finding]:
    number = sum(int(np.count_nonzero(~np.isfinite(each))) for each in outputs)
    if number:
        advice = (
            f"{number} of {sum(each.size for each in outputs)} outputs of the first batch are NaN or infinite in "
            "inference, although all weights are finite. Look for an overflow or a division by zero between the layers."
        )
        yield Finding("error", "not finite", model.path, float(number), advice)


def _gap(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        difference = sum(float(np.sum((a - b) ** 2)) for a, b in zip(before, after, strict=True))
        whole = sum(float(np.sum((b - b.mean(0)) ** 2)) for b in after)
    if difference == 0:
        return 0.0
    return float(np.sqrt(difference / whole)) if whole else float("inf")
