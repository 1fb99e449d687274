"""The batch-normalizing transform (Ioffe & Szegedy 2015, Alg. 1) and its gradient, as pure functions.

All take tensors collapsed by `View`: `x` of shape ``[..., kept, ...]``, vectors of the same rank with size 1 on the
averaged axes. `x` and `dy` may be in half precision: they are widened inside a kernel, and what is kept for the
backward pass is `x` as it came and one number a channel. Vectors are in float32 at least.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from kerasbn.kernels.reduction import accurate_sum, pair_of_sums
from kerasbn.kernels.xla import kernel
from kerasbn.moments import Moments, anchor

#: How far, in standard deviations, the center may be from the mean. It costs ``log10(FAR)`` digits of the mean, twice
#: as many of the variance; a row of Gaussian values is farther off in one of 512 channels once in three thousand
#: times.
FAR = 5.0


@kernel
def batch_moments(
    x: tf.Tensor, mask: tf.Tensor | None, *, axes: tuple[int, ...], dtype: str, jit_compile: bool
) -> Moments:
    """Moments of `x` over `axes`, of the values under `mask` alone if there is one.

    Formula (Chan, Golub & LeVeque 1983, eq. 1.7), with a center near the mean and ``d = x - center``:
    ``offset = sum(d) / n``, ``m2 = sum(d^2) - n offset^2``. It is right to float32 at any mean if the center is
    within some standard deviations of it; without a center, as ``E[x^2] - E[x]^2``, it has no digit left at a mean of
    1000 sigma.

    Compiled, the first center is a row of the batch, and one pass does if that row is no outlier in any channel,
    which the pass itself tells; else a second pass has the mean that the first one found for its center. In plain
    operations the first pass is the mean, and there are always two.

    Args:
        x: The batch, collapsed.
        mask: Booleans that broadcast to `x`, with `True` where a value counts; size 1 along no averaged axis. Or
            `None`.
        axes: The axes to average over.
        dtype: The dtype of the result.
        jit_compile: Whether XLA compiles this.

    Returns:
        `Moments`, all 0 where nothing is counted.
    """
    count = _count(x, mask, axes, dtype)

    def around(center):
        def terms(x, mask):
            d = _select(mask, tf.cast(x, dtype) - center)
            return d, tf.square(d)

        total, squares = pair_of_sums(terms, (x, mask), axes, jit_compile=jit_compile)
        offset = tf.math.divide_no_nan(total, count)
        return Moments(count, center, offset, tf.maximum(squares - total * offset, 0))

    if not jit_compile:
        return around(anchor(tf.math.divide_no_nan(accurate_sum(_select(mask, tf.cast(x, dtype)), axes), count)))

    def needed(passes, moments):
        is_far = tf.reduce_any(tf.square(moments.offset) > FAR**2 * moments.variance())
        return (passes == 0) | ((passes == 1) & is_far)

    def one_more(passes, moments):
        return passes + 1, around(anchor(moments.mean))

    row = _some_row(x, mask, axes, dtype)
    nothing = tf.zeros_like(row)
    _, moments = tf.while_loop(needed, one_more, (0, Moments(count, row, nothing, nothing)))
    return moments


@kernel
def normalize(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    moments: Moments,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    epsilon: float,
    dtype: str,
    jit_compile: bool,
) -> tf.Tensor:
    """``gamma (x - mean) / sqrt(variance + epsilon) + beta`` (Alg. 1, lines 3 and 4), in `dtype`.

    As ``(x - mean) scale + beta``, not ``x scale + (beta - mean scale)``, which cancels when the mean is large.
    """
    scale = gamma * _inverse_stddev(moments, epsilon)
    return tf.cast(_deviation(x, mask, moments) * scale + beta, dtype)


@kernel
def normalize_batch(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    dtype: str,
    jit_compile: bool,
) -> tuple[tf.Tensor, Moments]:
    """`batch_moments` and `normalize` in one program: Alg. 1. Moments are in the dtype of `gamma`."""
    moments = batch_moments(x, mask, axes=axes, dtype=gamma.dtype.name, jit_compile=jit_compile)
    y = normalize(x, mask, moments, gamma, beta, epsilon=epsilon, dtype=dtype, jit_compile=jit_compile)
    return y, moments


@kernel
def parameter_gradients(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    moments: Moments,
    dy: tf.Tensor,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    jit_compile: bool,
) -> tf.Tensor:
    """``dgamma = sum(dy x_hat)`` and ``dbeta = sum(dy)`` over `axes` (Sec. 3), stacked."""

    def terms(x, mask, dy):
        dy = tf.cast(dy, moments.center.dtype)
        return dy * _deviation(x, mask, moments), dy

    total, dbeta = pair_of_sums(terms, (x, mask, dy), axes, jit_compile=jit_compile)
    return tf.stack([total * _inverse_stddev(moments, epsilon), dbeta])


@kernel
def input_gradient(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    moments: Moments,
    gamma: tf.Tensor,
    dy: tf.Tensor,
    sums: tf.Tensor,
    *,
    epsilon: float,
    jit_compile: bool,
) -> tf.Tensor:
    """``dx = gamma / stddev (dy - [dbeta + x_hat dgamma] / n)``, the chain rule of Sec. 3, collected.

    `sums` are the `parameter_gradients` of the whole batch that `moments` are of. Where `mask` is `False`, `x` had no
    part in the statistics and the bracket is absent.
    """
    dgamma, dbeta = tf.unstack(sums)
    deviation, inverse_stddev = _deviation(x, mask, moments), _inverse_stddev(moments, epsilon)
    # divide_no_nan: without a counted value no x had a part in the statistics, under any mask.
    shared = tf.math.divide_no_nan(dbeta + deviation * (dgamma * inverse_stddev), moments.count)
    dx = (tf.cast(dy, deviation.dtype) - _select(mask, shared)) * (gamma * inverse_stddev)
    return tf.cast(_drop_spoiled(x, mask, dx), x.dtype)


@kernel
def gradients(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    moments: Moments,
    gamma: tf.Tensor,
    dy: tf.Tensor,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    jit_compile: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`input_gradient` and `parameter_gradients` in one program."""
    run = {"epsilon": epsilon, "jit_compile": jit_compile}
    sums = parameter_gradients(x, mask, moments, dy, axes=axes, **run)
    return input_gradient(x, mask, moments, gamma, dy, sums, **run), sums


def batch_normalize(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    mask: tf.Tensor | None = None,
    moments: Moments | None = None,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    dtype: str,
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
        dtype: Of the result.
        jit_compile: Whether XLA compiles the kernels.
        statistics: ``x -> Moments`` in differentiable operations, used only for derivatives of second and higher order.
        over_replicas: Sums a tensor over all replicas whose batches are in `moments`, if there are several.

    Returns:
        The normalized batch, of the shape of `x`, and its moments.
    """
    constant = tf.stop_gradient
    settings = {"epsilon": epsilon, "jit_compile": jit_compile}

    def differentiate(x, gamma, dy, moments, **settings):
        if over_replicas is None:
            dx, sums = gradients(x, mask, moments, gamma, dy, axes=axes, **settings)
        else:
            sums = parameter_gradients(x, mask, moments, dy, axes=axes, **settings)
            dx = input_gradient(x, mask, moments, gamma, dy, over_replicas(sums), **settings)
        # gamma and beta get this replica's part only: their gradients are summed over replicas by the optimizer.
        return dx, *tf.unstack(sums)

    # Two nested gradients, each an opaque kernel on values that no tape follows, so that nothing is kept but what is
    # named here. The second derivative is rare (gradient penalties) and comes from differentiating the formula itself.
    @tf.custom_gradient
    def forward(x, gamma, beta):
        values = constant(x), mask, constant(gamma), constant(beta)
        if moments is None:
            y, found = normalize_batch(*values, axes=axes, dtype=dtype, **settings)
        else:
            y, found = normalize(*values[:2], moments, *values[2:], dtype=dtype, **settings), moments
        return (y, *found), lambda dy, *_: backward(x, gamma, dy, found)

    def backward(x, gamma, dy, moments):
        @tf.custom_gradient
        def first(x, gamma, dy):
            def second(*upstream):
                with tf.GradientTape() as tape:
                    tape.watch((x, gamma, dy))
                    again = differentiate(x, gamma, dy, statistics(x), epsilon=epsilon, jit_compile=False)
                return tape.gradient(again, (x, gamma, dy), upstream, unconnected_gradients="zero")

            return differentiate(constant(x), constant(gamma), constant(dy), moments, **settings), second

        return first(x, gamma, dy)

    y, *found = forward(x, gamma, beta)
    return y, Moments(*found)


def _count(x: tf.Tensor, mask: tf.Tensor | None, axes: Sequence[int], dtype: str) -> tf.Tensor:
    if mask is not None:
        return accurate_sum(tf.cast(mask, dtype), axes)
    size = tf.reduce_prod(tf.gather(tf.shape(x), axes))
    return tf.reshape(tf.cast(size, dtype), [1] * len(x.shape))


def _some_row(x: tf.Tensor, mask: tf.Tensor | None, axes: Sequence[int], dtype: str) -> tf.Tensor:
    """The value in the middle of each averaged axis; 0 where that is masked, not finite, or there is none."""
    for axis in axes:
        middle = tf.shape(x)[axis] // 2
        here = (slice(None),) * axis + (slice(middle, middle + 1),)
        x, mask = x[here], None if mask is None else mask[here]
    row = _select(mask, tf.cast(x, dtype))
    # A sum over the axes of size 1, because of an empty batch they have size 0.
    return tf.reduce_sum(tf.where(tf.math.is_finite(row), row, 0), axes, keepdims=True)


def _inverse_stddev(moments: Moments, epsilon: float) -> tf.Tensor:
    return tf.math.rsqrt(moments.variance() + epsilon)


def _select(mask: tf.Tensor | None, x: tf.Tensor) -> tf.Tensor:
    """`x` where the mask is `True`, 0 elsewhere, also where `x` is NaN."""
    return x if mask is None else tf.where(mask, x, tf.zeros([], x.dtype))


def _deviation(x: tf.Tensor, mask: tf.Tensor | None, moments: Moments) -> tf.Tensor:
    """``x - mean`` without rounding error. A masked value that is not finite counts as the mean: it must not spread."""
    return _drop_spoiled(x, mask, (tf.cast(x, moments.center.dtype) - moments.center) - moments.offset)


def _drop_spoiled(x: tf.Tensor, mask: tf.Tensor | None, value: tf.Tensor) -> tf.Tensor:
    """`value`, but 0 where `x` is masked and not finite."""
    return value if mask is None else tf.where(mask | tf.math.is_finite(x), value, tf.zeros([], value.dtype))
