"""The batch-normalizing transform (Ioffe & Szegedy 2015, Alg. 1) and its gradient, as pure functions.

All take tensors collapsed by `View`: `x` of shape ``[..., kept, ...]``, vectors of the same rank with size 1 on the
averaged axes. `x` and `dy` may be in half precision: they are widened inside a kernel, and what is kept for the
backward pass is `x` as it came and one number a channel. Vectors are in float32 at least.

An `activation` is an elementwise function applied to the result, or `None`. Its input, which its derivative needs, is
computed again from `x` in the backward pass: one fused multiplication and addition instead of a tensor to keep.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from kerasbn.kernels.batch_moments import batch_moments, joined, moments_of_parts
from kerasbn.kernels.bfloat16 import narrow
from kerasbn.kernels.masking import drop_spoiled, select
from kerasbn.kernels.reduction import pair_of_sums
from kerasbn.kernels.strategy import cut
from kerasbn.kernels.xla import kernel
from kerasbn.moments import Moments

Activation = Callable[[tf.Tensor], tf.Tensor] | None


@kernel
def normalize(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    epsilon: float,
    activation: Activation,
    dtype: str,
    jit_compile: bool,
) -> tf.Tensor:
    """``activation(gamma (x - mean) / sqrt(variance + epsilon) + beta)`` (Alg. 1, lines 3 and 4), in `dtype`.

    As ``(x - mean) scale + beta``, not ``x scale + (beta - mean scale)``, which cancels when the mean is large.
    """
    z = _deviation(x, mask, moments.center, moments.offset) * (gamma * _inverse_stddev(moments, epsilon)) + beta
    return narrow(z if activation is None else activation(z), dtype, jit_compile)


@kernel
def normalize_batch(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    parts: Sequence[Moments],
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    activation: Activation,
    dtype: str,
    jit_compile: bool,
) -> tuple[tf.Tensor, Moments]:
    """Moments and `normalize` in one program: Alg. 1. Moments are in the dtype of `gamma`.

    Moments of `parts` of the batch are merged; where there are none yet, they are computed.
    """
    if not parts:
        parts = [batch_moments(x, mask, axes=axes, dtype=gamma.dtype.name, jit_compile=jit_compile)]
    moments = joined(parts)
    run = {"epsilon": epsilon, "activation": activation, "dtype": dtype, "jit_compile": jit_compile}
    return normalize(x, mask, moments, gamma, beta, **run), moments


@kernel
def parameter_gradients(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    dy: tf.Tensor,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    activation: Activation,
    jit_compile: bool,
) -> tf.Tensor:
    """``dgamma = sum(dz x_hat)`` and ``dbeta = sum(dz)`` over `axes` (Sec. 3), stacked.

    `dz` is the derivative before the activation, `dy` that behind it.
    """
    inverse_stddev = _inverse_stddev(moments, epsilon)

    def terms(x, mask, dy, center, offset, scale, beta):
        deviation = _deviation(x, mask, center, offset)
        dz = _before_activation(dy, deviation, scale, beta, activation)
        return dz * deviation, dz

    vectors = (moments.center, moments.offset, gamma * inverse_stddev, beta)
    total, dbeta = pair_of_sums(terms, (x, mask, dy), vectors, axes, jit_compile=jit_compile)
    return tf.stack([total * inverse_stddev, dbeta])


@kernel
def input_gradient(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    dy: tf.Tensor,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    sums: tf.Tensor,
    *,
    epsilon: float,
    activation: Activation,
    jit_compile: bool,
) -> tf.Tensor:
    """``dx = gamma / stddev (dz - [dbeta + x_hat dgamma] / n)``, the chain rule of Sec. 3, collected.

    `sums` are the `parameter_gradients` of the whole batch that `moments` are of. Where `mask` is `False`, `x` had no
    part in the statistics and the bracket is absent.
    """
    dgamma, dbeta = tf.unstack(sums)
    deviation = _deviation(x, mask, moments.center, moments.offset)
    inverse_stddev = _inverse_stddev(moments, epsilon)
    dz = _before_activation(dy, deviation, gamma * inverse_stddev, beta, activation)
    # divide_no_nan: without a counted value no x had a part in the statistics, under any mask.
    shared = tf.math.divide_no_nan(dbeta + deviation * (dgamma * inverse_stddev), moments.count)
    dx = (dz - select(mask, shared)) * (gamma * inverse_stddev)
    return narrow(drop_spoiled(x, mask, dx), x.dtype, jit_compile)


@kernel
def gradients(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    dy: tf.Tensor,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    parts: Sequence[tf.Tensor],
    *,
    axes: tuple[int, ...],
    epsilon: float,
    activation: Activation,
    jit_compile: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`input_gradient` and `parameter_gradients` in one program.

    The latter are the sum of those of `parts` of the batch; where there are none yet, they are computed.
    """
    values, run = (x, mask, dy, moments, gamma, beta), {"epsilon": epsilon, "activation": activation}
    sums = tf.add_n(parts) if parts else parameter_gradients(*values, axes=axes, jit_compile=jit_compile, **run)
    return input_gradient(*values, sums, jit_compile=jit_compile, **run), sums


def batch_normalize(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    mask: tf.Tensor | None = None,
    moments: Moments | None = None,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    activation: Activation = None,
    dtype: str,
    parts: int = 1,
    jit_compile: bool,
    statistics: Callable[[tf.Tensor], Moments],
    over_replicas: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tuple[tf.Tensor, Moments]:
    """Normalizes a batch by its moments, with a gradient that knows the moments come from `x`.

    Args:
        x: The batch, collapsed.
        gamma: Scale, a vector.
        beta: Offset, a vector.
        mask: As for `batch_moments`.
        moments: Those of the batch, ``statistics(x)``, where they are known already. They receive no gradient; `x`
            receives theirs. By default they are computed here, in one program with the rest.
        axes: The averaged axes.
        epsilon: Added to the variance.
        activation: Applied to the result.
        dtype: Of the result.
        parts: In how many parts sums over the batch are computed.
        jit_compile: Whether XLA compiles the kernels.
        statistics: ``x -> Moments`` in differentiable operations, used only for derivatives of second and higher order.
        over_replicas: Sums a tensor over all replicas whose batches are in `moments`, if there are several.

    Returns:
        The normalized batch, of the shape of `x`, and its moments.
    """
    constant = tf.stop_gradient
    settings = {"epsilon": epsilon, "activation": activation}

    def differentiate(x, gamma, beta, dy, *, moments, parts, jit_compile):
        run = settings | {"jit_compile": jit_compile}
        sums = [
            parameter_gradients(*part, moments, gamma, beta, axes=axes, **run)
            for part in (cut((x, mask, dy), parts) if parts > 1 or over_replicas else [])
        ]
        if over_replicas is None:
            dx, sums = gradients(x, mask, dy, moments, gamma, beta, sums, axes=axes, **run)
        else:
            sums = tf.add_n(sums)
            dx = input_gradient(x, mask, dy, moments, gamma, beta, over_replicas(sums), **run)
        # gamma and beta get this replica's part only: their gradients are summed over replicas by the optimizer.
        return dx, *tf.unstack(sums)

    # Two nested gradients, each an opaque kernel on values that no tape follows, so that nothing is kept but what is
    # named here. The second derivative is rare (gradient penalties) and comes from differentiating the formula itself.
    @tf.custom_gradient
    def forward(x, gamma, beta):
        run = settings | {"dtype": dtype, "jit_compile": jit_compile}
        batch, vectors = (constant(x), mask), (constant(gamma), constant(beta))
        if moments is None:
            of = {"axes": axes, "dtype": gamma.dtype.name, "jit_compile": jit_compile}
            found = moments_of_parts(*batch, parts=parts, **of) if parts > 1 else ()
            y, found = normalize_batch(*batch, found, *vectors, axes=axes, **run)
        else:
            y, found = normalize(*batch, moments, *vectors, **run), moments
        return (y, *found), lambda dy, *_: backward(x, gamma, beta, dy, found)

    def backward(x, gamma, beta, dy, moments):
        @tf.custom_gradient
        def first(*values):
            def second(*upstream):
                with tf.GradientTape() as tape:
                    tape.watch(values)
                    again = differentiate(*values, moments=statistics(values[0]), parts=1, jit_compile=False)
                return tape.gradient(again, values, upstream, unconnected_gradients="zero")

            known = {"moments": moments, "parts": parts, "jit_compile": jit_compile}
            return differentiate(*map(constant, values), **known), second

        return first(x, gamma, beta, dy)

    y, *found = forward(x, gamma, beta)
    return y, Moments(*found)


def _inverse_stddev(moments: Moments, epsilon: float) -> tf.Tensor:
    return tf.math.rsqrt(moments.variance() + epsilon)


def _deviation(x: tf.Tensor, mask: tf.Tensor | None, center: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """``x - mean`` without rounding error. A masked value that is not finite counts as the mean: it must not spread."""
    return drop_spoiled(x, mask, (tf.cast(x, center.dtype) - center) - offset)


def _before_activation(
    dy: tf.Tensor, deviation: tf.Tensor, scale: tf.Tensor, beta: tf.Tensor, activation: Activation
) -> tf.Tensor:
    """The derivative with respect to the input of the activation, from `dy`, that with respect to its output."""
    dy = tf.cast(dy, deviation.dtype)
    if activation is None:
        return dy
    with tf.GradientTape() as tape:
        z = deviation * scale + beta
        tape.watch(z)
        y = activation(z)
    return tape.gradient(y, z, dy)
