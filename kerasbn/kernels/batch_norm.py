"""The formulas of batch normalization and of its gradient (Ioffe & Szegedy 2015, Alg. 1 and Sec. 3), as kernels.

All take tensors collapsed by `View`: `x` of shape ``[..., kept, ...]``, vectors of the same rank with size 1 on the
averaged axes. `x` and `dy` may be in half precision: they are widened inside a kernel, and what is kept for the
backward pass is `x` as it came and one number a channel. Vectors are in float32 at least.

The mean is ``center + offset`` (`Moments`). The kernels compute ``d = x - center``, which is exact or nearly so at any
mean, and take `offset`, which is small, into the vectors: ``(d - offset) scale + beta = d scale + (beta - offset
scale)`` is one operation less on a whole tensor.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from kerasbn.kernels.batch_moments import batch_moments, merged
from kerasbn.kernels.bfloat16 import narrow
from kerasbn.kernels.masking import select, select_finite
from kerasbn.kernels.reduction import Pair, pair_of_sums
from kerasbn.kernels.xla import computed_again, kernel
from kerasbn.moments import Moments

Activation = Callable[[tf.Tensor], tf.Tensor] | None


class Settings(NamedTuple):
    """What is the same for every batch of a layer, hashable.

    Attributes:
        axes: The averaged axes of the collapsed tensor.
        epsilon: Added to the variance.
        activation: An elementwise function applied to the result, or `None`. Its input, which its derivative needs, is
            computed again from `x` in the backward pass: a multiplication and addition instead of a tensor to keep.
        dtype: Of the result.
        statistics_dtype: Of moments, sums and vectors.
        on_cpu: Whether it runs on a CPU, which has other ways to add than an accelerator (`kernels/reduction.py`).
    """

    axes: tuple[int, ...]
    epsilon: float
    activation: Activation
    dtype: str
    statistics_dtype: str
    on_cpu: bool


@kernel
def normalize(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    settings: Settings,
    jit_compile: bool,
) -> tf.Tensor:
    """``activation(gamma (x - mean) / sqrt(variance + epsilon) + beta)`` (Alg. 1, lines 3 and 4)."""
    scale = gamma * _inverse_stddev(moments, settings)
    shift = beta - moments.offset * scale
    center, scale = _for_this_pass(moments.center, scale, settings=settings, jit_compile=jit_compile)
    z = _from_center(x, mask, center, moments.offset) * scale + shift
    y = z if settings.activation is None else settings.activation(z)
    return narrow(y, settings.dtype, on_cpu=settings.on_cpu, jit_compile=jit_compile)


@kernel
def normalize_batch(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    parts: Sequence[Moments],
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    settings: Settings,
    jit_compile: bool,
) -> tuple[tf.Tensor, Moments]:
    """Moments and `normalize` in one program: Alg. 1.

    Moments of `parts` of the batch are merged; where there are none yet, they are computed.
    """
    if not parts:
        run = {"dtype": settings.statistics_dtype, "on_cpu": settings.on_cpu, "jit_compile": jit_compile}
        parts = [batch_moments(x, mask, axes=settings.axes, **run)]
    moments = merged(parts)
    return normalize(x, mask, moments, gamma, beta, settings=settings, jit_compile=jit_compile), moments


@kernel
def parameter_gradients(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    dy: tf.Tensor,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    settings: Settings,
    jit_compile: bool,
) -> Pair:
    """``dgamma = sum(dz x_hat)`` and ``dbeta = sum(dz)`` over the averaged axes (Sec. 3).

    `dz` is the derivative with respect to the input of the activation, `dy` that with respect to its output.
    """
    inverse_stddev = _inverse_stddev(moments, settings)
    scale = gamma * inverse_stddev
    shift = beta - moments.offset * scale
    center = moments.center
    if settings.activation is None:
        (center,) = _for_this_pass(center, settings=settings, jit_compile=jit_compile)
    else:  # not before there is dy: the forward pass would compute, and keep, where the activation is flat
        center, scale, dy = _for_this_pass(center, scale, dy, settings=settings, jit_compile=jit_compile)

    def terms(x, mask, dy, center, offset, scale, shift):
        d = _from_center(x, mask, center, offset)
        dz = _before_activation(dy, d, scale, shift, settings.activation)
        return dz * d, dz

    vectors = (center, moments.offset, scale, shift)
    total, dbeta = pair_of_sums(
        terms, (x, mask, dy), vectors, settings.axes, on_cpu=settings.on_cpu, jit_compile=jit_compile
    )
    # 0 where the variance is beyond the dtype, although the sum may be, too.
    return tf.math.multiply_no_nan(total - moments.offset * dbeta, inverse_stddev), dbeta


@kernel
def input_gradient(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    dy: tf.Tensor,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    sums: Pair,
    *,
    settings: Settings,
    jit_compile: bool,
) -> tf.Tensor:
    """``dx = gamma / stddev (dz - [dbeta + x_hat dgamma] / n)``, the chain rule of Sec. 3, collected.

    `sums` are the `parameter_gradients` of the whole batch that `moments` are of. Where `mask` is `False`, `x` had no
    part in the statistics and the bracket is absent.
    """
    dgamma, dbeta = sums
    inverse_stddev = _inverse_stddev(moments, settings)
    scale = gamma * inverse_stddev
    shift = beta - moments.offset * scale
    # divide_no_nan: without a counted value no x had a part in the statistics, under any mask.
    share = tf.math.divide_no_nan(scale, moments.count)
    slope = share * inverse_stddev * dgamma
    center, scale, slope = _for_this_pass(moments.center, scale, slope, settings=settings, jit_compile=jit_compile)
    d = _from_center(x, mask, center, moments.offset)
    dz = _before_activation(dy, d, scale, shift, settings.activation)
    dx = dz * scale - select(mask, d * slope + (share * dbeta - moments.offset * slope))
    return narrow(select_finite(x, mask, dx), x.dtype, on_cpu=settings.on_cpu, jit_compile=jit_compile)


@kernel
def gradients(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    dy: tf.Tensor,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    parts: Sequence[Pair],
    *,
    settings: Settings,
    jit_compile: bool,
) -> tuple[tf.Tensor, Pair]:
    """`input_gradient` and `parameter_gradients` in one program.

    The latter are the sum of those of `parts` of the batch; where there are none yet, they are computed.
    """
    values, run = (x, mask, dy, moments, gamma, beta), {"settings": settings, "jit_compile": jit_compile}
    sums = sum_of_parts(parts) if parts else parameter_gradients(*values, **run)
    return input_gradient(*values, sums, **run), sums


def sum_of_parts(parts: Sequence[Pair]) -> Pair:
    """The `parameter_gradients` of the batch from those of its parts."""
    dgamma, dbeta = (tf.add_n(terms) for terms in zip(*parts, strict=True))
    return dgamma, dbeta


def _for_this_pass(*tensors: tf.Tensor, settings: Settings, jit_compile: bool) -> Sequence[tf.Tensor]:
    """The tensors, such that what a pass over the batch computes from them is computed in this pass.

    What an accelerator computes while it waits for memory costs nothing. XLA would compute once what several passes
    need, such as ``x - center``, and keep it: a tensor of the size of the batch, to be written and read.
    """
    return computed_again(*tensors) if jit_compile and not settings.on_cpu else tensors


def _inverse_stddev(moments: Moments, settings: Settings) -> tf.Tensor:
    return tf.math.rsqrt(moments.variance() + settings.epsilon)


def _from_center(x: tf.Tensor, mask: tf.Tensor | None, center: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """``x - center``. A masked value that is not finite counts as the mean: it must not spread."""
    return select_finite(x, mask, tf.cast(x, center.dtype) - center, offset)


def _before_activation(
    dy: tf.Tensor, d: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor, activation: Activation
) -> tf.Tensor:
    """The derivative with respect to the input of the activation, from `dy`, that with respect to its output."""
    dy = tf.cast(dy, d.dtype)
    if activation is None:
        return dy
    z = d * scale + shift
    if not tf.executing_eagerly():  # a tape would see nothing where a shared trace is made
        return tf.gradients(activation(z), z, dy)[0]
    with tf.GradientTape() as tape:
        tape.watch(z)
        y = activation(z)
    return tape.gradient(y, z, dy)
