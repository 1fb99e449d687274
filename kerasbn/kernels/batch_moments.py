"""The moments of a batch: the first half of the batch-normalizing transform (Ioffe & Szegedy 2015, Alg. 1)."""

import math
from collections.abc import Sequence

import tensorflow as tf

from kerasbn.kernels.masking import select
from kerasbn.kernels.reduction import accurate_sum, pair_of_sums, summation
from kerasbn.kernels.strategy import cut
from kerasbn.kernels.xla import kernel
from kerasbn.moments import Moments, anchor, merge

#: How far, in standard deviations, the center may be from the mean. It costs ``log10(FAR)`` digits of the mean, twice
#: as many of the variance; a row of Gaussian values is farther off in one of 512 channels once in three thousand
#: times.
FAR = 5.0

#: Of `_near_the_mean`: one value of so many is looked at. A prime, in order not to keep step with what repeats in the
#: data: the first position of each image or sentence, say.
STEP = 127


@kernel
def batch_moments(
    x: tf.Tensor, mask: tf.Tensor | None, *, axes: tuple[int, ...], dtype: str, on_cpu: bool, jit_compile: bool
) -> Moments:
    """Moments of `x` over `axes`, of the values under `mask` alone if there is one.

    Formula (Chan, Golub & LeVeque 1983, eq. 1.7), with a center near the mean and ``d = x - center``:
    ``offset = sum(d) / n``, ``m2 = sum(d^2) - n offset^2``. It is right to float32 at any mean if the center is
    within some standard deviations of it; without a center, as ``E[x^2] - E[x]^2``, it has no digit left at a mean of
    1000 sigma.

    Compiled for a CPU, the first center is a row of the batch, and one pass does if that row is no outlier in any
    channel, which the pass itself tells; else a second pass has the mean that the first one found for its center. In
    plain operations on a CPU the first pass is the mean, and there are always two. An accelerator would have to wait
    for the host to decide: there the center is the mean of some values, and one pass always does (`_near_the_mean`).

    Values whose sum or whose summed squares are beyond the dtype (about 1e19 in float32) have a finite mean, of no
    meaning, and an infinite variance: whoever divides by its root gets 0.

    Args:
        x: The batch, collapsed.
        mask: Booleans that broadcast to `x`, with `True` where a value counts; size 1 along no averaged axis. Or
            `None`.
        axes: The axes to average over.
        dtype: The dtype of the result.
        on_cpu: Whether it runs on a CPU.
        jit_compile: Whether XLA compiles this.

    Returns:
        `Moments`, all 0 where nothing is counted.
    """
    count = _count(x, mask, axes, dtype, on_cpu)
    nothing = tf.zeros([], dtype)

    def around(center, total, squares):
        offset = tf.math.divide_no_nan(total, count)
        of_offset = total * offset
        # Beyond the dtype: so are the squares. Center and offset must not be, as 0 times infinity is no number.
        in_range = tf.math.is_finite(of_offset)
        center, offset, of_offset = (tf.where(in_range, value, nothing) for value in (center, offset, of_offset))
        return Moments(count, center, offset, tf.maximum(squares - of_offset, 0))

    def terms(x, mask, center):
        d = select(mask, tf.cast(x, dtype) - center)
        return d, tf.square(d)

    def sums(center):
        return pair_of_sums(terms, (x, mask), (center,), axes, on_cpu=on_cpu, jit_compile=jit_compile)

    if not on_cpu:
        center = _near_the_mean(x, mask, axes, dtype)
        return around(center, *sums(center))

    if not jit_compile:
        add = summation(x, axes, on_cpu=True)
        mean = tf.math.divide_no_nan(add(select(mask, tf.cast(x, dtype))), count)
        # Where the sum is beyond the dtype, values may still be equal. A sum of one row, or of none.
        first = tf.reduce_sum(x[tuple(slice(1) if i in axes else slice(None) for i in range(len(x.shape)))], axes, True)
        center = anchor(tf.where(tf.math.is_finite(mean), mean, tf.cast(first, dtype)))
        d = select(mask, tf.cast(x, dtype) - center)
        return around(center, add(d), add(tf.square(d)))

    def needed(passes, moments):
        is_far = tf.reduce_any(tf.square(moments.offset) > FAR**2 * moments.variance())
        return (passes == 0) | ((passes == 1) & is_far)

    def one_more(passes, moments):
        center = anchor(moments.mean)
        return passes + 1, around(center, *sums(center))

    row = _some_row(x, mask, axes, dtype)
    _, moments = tf.while_loop(needed, one_more, (0, Moments(count, row, tf.zeros_like(row), tf.zeros_like(row))))
    return moments


def moments_of_parts(
    x: tf.Tensor,
    mask: tf.Tensor | None,
    *,
    parts: int,
    axes: tuple[int, ...],
    dtype: str,
    on_cpu: bool,
    jit_compile: bool,
) -> tuple[Moments, ...]:
    """`batch_moments` of each of so many `parts` of the batch, side by side in a graph. `merged` makes one of them."""
    run = {"axes": axes, "dtype": dtype, "on_cpu": on_cpu, "jit_compile": jit_compile}
    return tuple(batch_moments(*part, **run) for part in cut((x, mask), parts))


def merged(parts: Sequence[Moments]) -> Moments:
    """The moments of the batch from those of its parts."""
    return parts[0] if len(parts) == 1 else merge(Moments(*map(tf.stack, zip(*parts, strict=True))))


def _count(x: tf.Tensor, mask: tf.Tensor | None, axes: Sequence[int], dtype: str, on_cpu: bool) -> tf.Tensor:
    if mask is not None:
        return accurate_sum(tf.cast(mask, dtype), axes, on_cpu=on_cpu)
    sizes = tf.unstack(tf.shape(x), len(x.shape))
    return tf.reshape(tf.cast(math.prod(sizes[axis] for axis in axes), dtype), [1] * len(x.shape))


def _some_row(x: tf.Tensor, mask: tf.Tensor | None, axes: Sequence[int], dtype: str) -> tf.Tensor:
    """The value in the middle of each averaged axis; 0 where that is masked, not finite, or there is none."""
    for axis in axes:
        middle = tf.shape(x)[axis] // 2
        here = (slice(None),) * axis + (slice(middle, middle + 1),)
        x, mask = x[here], None if mask is None else mask[here]
    row = select(mask, tf.cast(x, dtype))
    # A sum over the axes of size 1, because of an empty batch they have size 0.
    return tf.reduce_sum(tf.where(tf.math.is_finite(row), row, 0), axes, keepdims=True)


def _near_the_mean(x: tf.Tensor, mask: tf.Tensor | None, axes: Sequence[int], dtype: str) -> tf.Tensor:
    """The mean of some of the values, of all of them under a mask: a center within some standard deviations.

    Usually it is as near as the mean of m random values, ``1 / sqrt(m)`` standard deviations. It is never farther than
    ``sqrt(n / m)`` of them, even if these m of n values are all the outliers that there are: ``(c - mean)^2 <= sum((x
    - mean)^2 over the m) / m <= n / m variance``.
    """
    if mask is None:
        x = _every_so_many(x, axes)
        number = tf.cast(math.prod(tf.unstack(tf.shape(x))[axis] for axis in axes), dtype)
    else:
        number = tf.reduce_sum(tf.cast(mask, dtype), axes, keepdims=True)
    # Shares are added, since a sum of values could be beyond the dtype. So there is nothing to compute after the sum,
    # and a compiler cannot compute it in two ways: it is an anchor.
    share = tf.math.divide_no_nan(tf.ones([], dtype), number)
    mean = tf.reduce_sum(select(mask, tf.cast(x, dtype) * share), axes, keepdims=True)
    return tf.stop_gradient(tf.where(tf.math.is_finite(mean), mean, tf.zeros([], dtype)))


def _every_so_many(x: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """About one of `STEP` values, in equal steps along the first averaged axis, and along the next if that is short."""
    left: tf.Tensor | int = STEP
    for axis in axes:
        size = x.shape[axis] if x.shape[axis] is not None else tf.shape(x)[axis]
        step = _clip(left, size)
        shape = [*x.shape[:axis], None, *x.shape[axis + 1 :]]
        x = x[(slice(None),) * axis + (slice(step // 2, None, step),)]
        x.set_shape(shape)  # of a step that is not known, TensorFlow does not even know the rank of the result
        left //= step
    return x


def _clip(step: tf.Tensor | int, size: tf.Tensor | int) -> tf.Tensor | int:
    """`step`, but no more than `size`, and 1 of a size of 0."""
    if isinstance(step, int) and isinstance(size, int):
        return max(1, min(step, size))
    return tf.clip_by_value(size, 1, step)
