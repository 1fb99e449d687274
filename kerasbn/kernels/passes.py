"""Forward and backward pass over a batch, each in one trace for all layers.

Compiled, a batch may be reduced in several parts (`kernels/strategy.py`); TensorFlow's operations use all cores by
themselves.
"""

import tensorflow as tf

from kerasbn.kernels import batch_norm
from kerasbn.kernels.batch_moments import merged, moments_of_parts
from kerasbn.kernels.batch_norm import Settings
from kerasbn.kernels.moving_statistics import Moved, MovingStatistics, Update, move
from kerasbn.kernels.reduction import Pair
from kerasbn.kernels.shared_trace import shared_trace
from kerasbn.kernels.strategy import cut
from kerasbn.moments import Moments


@shared_trace
def find_moments(x: tf.Tensor, mask: tf.Tensor | None, *, settings: Settings, parts: int, jit_compile: bool) -> Moments:
    """The moments of the batch, `batch_moments`."""
    return merged(_moments_of_parts(x, mask, settings, parts, jit_compile))


@shared_trace
def normalize(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    moments: Moments | None,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    moving: MovingStatistics | None,
    *,
    settings: Settings,
    update: Update | None,
    parts: int,
    jit_compile: bool,
) -> tuple[tf.Tensor, Moments, Moved | None]:
    """The forward pass: Alg. 1, by `moments`, or by those of the batch where there are none yet.

    With the moving statistics, moved by these moments, where there are some.
    """
    run = {"settings": settings, "jit_compile": jit_compile}
    if moments is not None:
        y = batch_norm.normalize(x, mask, moments, gamma, beta, **run)
    else:
        several = jit_compile and parts > 1
        found = _moments_of_parts(x, mask, settings, parts, jit_compile) if several else ()
        y, moments = batch_norm.normalize_batch(x, mask, found, gamma, beta, **run)
    return y, moments, None if moving is None or update is None else move(moments, moving, update=update)


@shared_trace
def find_parameter_gradients(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    dy: tf.Tensor,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    settings: Settings,
    parts: int,
    jit_compile: bool,
) -> Pair:
    """The first half of the backward pass: what replicas add up."""
    values = (x, mask, dy, moments, gamma, beta)
    return batch_norm.sum_of_parts(_parameter_gradients_of_parts(*values, settings, parts, jit_compile))


@shared_trace
def differentiate(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    dy: tf.Tensor,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    sums: Pair | None,
    *,
    settings: Settings,
    parts: int,
    jit_compile: bool,
) -> tuple[tf.Tensor, Pair]:
    """The backward pass, and the sums over the batch: `sums`, or those that are found where there are none yet."""
    values, run = (x, mask, dy, moments, gamma, beta), {"settings": settings, "jit_compile": jit_compile}
    if sums is not None:
        return batch_norm.input_gradient(*values, sums, **run), sums
    several = jit_compile and parts > 1
    return batch_norm.gradients(
        *values, _parameter_gradients_of_parts(*values, settings, parts, jit_compile) if several else (), **run
    )


def _moments_of_parts(
    x: tf.Tensor, mask: tf.Tensor | None, settings: Settings, parts: int, jit_compile: bool
) -> tuple[Moments, ...]:
    return moments_of_parts(
        x,
        mask,
        parts=parts if jit_compile else 1,
        axes=settings.axes,
        dtype=settings.statistics_dtype,
        on_cpu=settings.on_cpu,
        jit_compile=jit_compile,
    )


def _parameter_gradients_of_parts(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    dy: tf.Tensor,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    settings: Settings,
    parts: int,
    jit_compile: bool,
) -> tuple[Pair, ...]:
    run = {"settings": settings, "jit_compile": jit_compile}
    cuts = cut((x, mask, dy), parts if jit_compile else 1)
    return tuple(batch_norm.parameter_gradients(*part, moments, gamma, beta, **run) for part in cuts)
