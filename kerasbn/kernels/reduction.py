"""Pairs of sums over a batch: accurate over a hundred thousand rows, and one pass over memory where XLA compiles.

Rows added one after another into one float32 are no mean: over 1e5 nearly equal values each addition rounds the same
way, and the sum is off by up to 1e-3 of itself. Both ways of a CPU below add in parallel lanes. An accelerator adds in
trees by itself, in TensorFlow's operations as in XLA's programs, and reads memory once for two sums of one tensor.
"""

import functools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from kerasbn.kernels import bfloat16
from kerasbn.kernels.xla import inside_xla

Pair = tuple[tf.Tensor, tf.Tensor]

#: Of `accurate_sum`: an accumulator takes a 256th of the terms. Fewer terms than `FEW` are added in one stage.
LANES = 256
FEW = 1024
#: For XLA: so many lanes, so many times.
SLICE_LANES = 16
STAGES = 2

#: Of `_loop`: how much of one tensor a slice holds, half the size of its accumulators, and how many slices an
#: iteration takes in all. Measured over 4 to 32 KB and 2 to 16 slices: flat within 10 % around these. More rows would
#: be more terms in the sum at the end.
SLICE_BYTES = 32 * 1024
SLICE_ROWS = 256
SLICES = 8

#: So many iterations add to accumulators that begin at 0. An accumulator with a term of each slice of 16 million rows
#: would round its last terms like numbers 65,000 times as large.
RUN = 32


def pair_of_sums(
    terms: Callable[..., Pair],
    tensors: Sequence[tf.Tensor | None],
    vectors: Sequence[tf.Tensor],
    axes: Sequence[int],
    *,
    on_cpu: bool,
    jit_compile: bool,
) -> Pair:
    """``sum(a)`` and ``sum(b)`` with ``a, b = terms(*tensors, *vectors)`` over `axes`, which stay as size 1.

    Empty sums are 0.

    Args:
        terms: An elementwise function of (slices along an axis of) the tensors to two real tensors of one dtype.
        tensors: Of one rank and size along ``axes[0]``; `None` is handed to `terms` as it is.
        vectors: Of the same rank and size 1 along `axes`.
        axes: The axes to add over, not negative, ascending.
        on_cpu: Whether it runs on a CPU.
        jit_compile: Whether XLA compiles this.

    Returns:
        Two tensors of the rank of the terms.
    """
    if jit_compile and not on_cpu:
        # A complex number, so that it is one reduction. XLA joins two, but decides before that which of what both are
        # computed from it keeps in memory.
        total = tf.reduce_sum(tf.complex(*terms(*tensors, *vectors)), axes, keepdims=True)
        return tf.math.real(total), tf.math.imag(total)
    if not jit_compile:
        a, b = terms(*tensors, *vectors)
        add = summation(a, axes, on_cpu=on_cpu)
        return add(a), add(b)
    if all(t is None or (t.dtype == "bfloat16" and (t.shape[-1] or 1) % 2 == 0) for t in tensors):
        return _two_at_a_time(terms, tensors, vectors, axes)
    return _loop(lambda *slices: terms(*slices, *vectors), tensors, axes)


def _two_at_a_time(
    terms: Callable[..., Pair],
    tensors: Sequence[tf.Tensor | None],
    vectors: Sequence[tf.Tensor],
    axes: Sequence[int],
) -> Pair:
    """The sums of bfloat16 tensors: first of the even positions along the last axis, then of the odd ones."""
    sums = []
    for half in (0, 1):
        own = vectors if len(vectors[0].shape) - 1 in axes else [v[..., half::2] for v in vectors]

        def half_terms(*slices, half=half, own=own):
            return terms(*(None if t is None else bfloat16.halves(t)[half] for t in slices), *own)

        words = [None if t is None else bfloat16.words(t) for t in tensors]
        sums.append(tf.stack(_loop(half_terms, words, axes)))
    if len(sums[0].shape) - 2 in axes:
        return tuple(tf.unstack(tf.add_n(sums)))
    both = tf.stack(sums, -1)
    joined = tf.reshape(both, tf.concat([tf.shape(both)[:-2], [-1]], 0))
    # Where another size is not known, as that of the groups, TensorFlow no longer knows this one.
    channels = None if both.shape[-2] is None else 2 * both.shape[-2]
    return tuple(tf.unstack(tf.ensure_shape(joined, [*both.shape[:-2], channels])))


def _loop(terms: Callable[..., Pair], tensors: Sequence[tf.Tensor | None], axes: Sequence[int]) -> Pair:
    """The sums in a form that XLA:CPU turns into vector code that reads memory once.

    XLA:CPU makes scalar, strided code of a reduction over leading axes, and reads the input once for each of two
    results. It makes vector code of a loop that adds slices of rows. A complex number is the one way to hand two
    results of one loop nest on: ``a + ib``. Sizes come from shapes, which are constants by the time that XLA
    compiles. A row is what lies at one position of the first averaged axis.
    """
    axis, *others = axes
    given = [t for t in tensors if t is not None]
    shape, unroll = tf.shape(given[0]), SLICES // len(given)
    rows = shape[axis]
    per_row = tf.maximum(tf.reduce_prod(shape) // tf.maximum(rows, 1), 1)
    # A slice larger than the input would not compile, also in a loop without iterations.
    block = tf.minimum(tf.clip_by_value(SLICE_BYTES // 4 // per_row, 1, SLICE_ROWS), rows // unroll)
    step = block * unroll

    def of_rows(number):
        return [None if t is None else _with_rows(t, axis, number) for t in tensors]

    def terms_of(start, sizes):
        pairs = zip(tensors, sizes, strict=True)
        return tf.complex(*terms(*(None if t is None else _rows(t, axis, start, each) for t, each in pairs)))

    # Once, and not for each slice: operations are what tracing costs.
    sizes = of_rows(block)

    def add_slices(i, total):
        first = i * step
        for number in range(unroll):
            total += terms_of(first + number * block, sizes)
        return i + 1, total

    iterations = rows // tf.maximum(step, 1)
    start = tf.zeros_like(terms_of(0, sizes))
    any_rows = tf.TensorShape([]), tf.TensorShape([*start.shape[:axis], None, *start.shape[axis + 1 :]])

    def add_run(i, total):
        end = tf.minimum(i + RUN, iterations)
        end, run = tf.while_loop(lambda i, _: i < end, add_slices, (i, start), shape_invariants=any_rows)
        return end, total + run

    _, total = tf.while_loop(lambda i, _: i < iterations, add_run, (0, start), shape_invariants=any_rows)
    done = iterations * step
    rest = terms_of(done, of_rows(rows - done))
    total = tf.reduce_sum(total, axis, keepdims=True) + tf.reduce_sum(rest, axis, keepdims=True)
    total = accurate_sum(total, others, on_cpu=True)
    return tf.math.real(total), tf.math.imag(total)


def _with_rows(t: tf.Tensor, axis: int, number: tf.Tensor) -> tf.Tensor:
    """The shape of so many rows of `t`."""
    sizes = tf.unstack(tf.shape(t), len(t.shape))
    return tf.stack([*sizes[:axis], number, *sizes[axis + 1 :]])


def _rows(t: tf.Tensor, axis: int, start: tf.Tensor | int, sizes: tf.Tensor) -> tf.Tensor:
    """Rows of `t` from `start`, whose number XLA knows even where it does not know `start`."""
    before, after = [0] * axis, [0] * (len(t.shape) - axis - 1)
    return tf.slice(t, [*before, start, *after], sizes)


def accurate_sum(x: tf.Tensor, axes: Sequence[int], *, on_cpu: bool) -> tf.Tensor:
    """``sum(x)`` over `axes`, which stay as size 1; see `summation`."""
    return summation(x, axes, on_cpu=on_cpu)(x)


def summation(like: tf.Tensor, axes: Sequence[int], *, on_cpu: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function ``x -> sum(x)`` over `axes`, which stay as size 1. An empty sum is 0. Differentiable.

    On a CPU in two stages: rows are first added in parallel lanes. The error stays near 1e-7 of the sum of absolute
    values.

    Args:
        like: A tensor of the shape of those that will be added. What depends on the shape alone is computed once.
        axes: The axes to add over, not negative.
        on_cpu: Whether it runs on a CPU.

    Returns:
        A function of floating-point tensors of the shape of `like`, to a tensor of the same rank and dtype.
    """
    if not on_cpu:
        return lambda x: tf.reduce_sum(x, axes, keepdims=True)
    if inside_xla():
        return lambda x: functools.reduce(_sum_of_slices, axes, x)
    shape, sizes = list(like.shape), tf.unstack(tf.shape(like), len(like.shape))
    stages = []
    for axis in axes:
        stages.append(_sum_of_lanes(shape, sizes, axis))
        shape[axis] = sizes[axis] = 1
    return lambda x: functools.reduce(lambda x, stage: stage(x), stages, x)


def _sum_of_lanes(
    shape: Sequence[int | None], sizes: Sequence[tf.Tensor | int], axis: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """In TensorFlow operations: ``[lanes, rows]`` is a view of what is added, and each stage a reduction.

    No reduction is of an axis of size 0 unless all is empty: TFLite computes no 0 there.
    """
    this, size = tf.constant(axis), shape[axis]
    if size is not None and size < FEW:
        return lambda x: tf.reduce_sum(x, this, keepdims=True)
    before, after = sizes[:axis], sizes[axis + 1 :]
    lanes = tf.clip_by_value(sizes[axis], 1, LANES)
    rows = sizes[axis] // lanes
    added, nothing = rows * lanes, [0] * len(shape)
    view = tf.stack([*before, lanes, rows, *after])
    tail, to_the_end = tf.stack([*nothing[:axis], added, *nothing[axis + 1 :]]), tf.constant([-1] * len(shape))
    # Seen as one axis, what is added begins and ends where memory is aligned: TensorFlow copies nothing then.
    start, head = (
        ([0], tf.expand_dims(math.prod([added, *after]), 0))
        if axis == 0
        else (nothing, tf.stack([*before, added, *after]))
    )

    def add(x: tf.Tensor) -> tf.Tensor:
        in_lanes = tf.reshape(tf.slice(tf.reshape(x, [-1]) if axis == 0 else x, start, head), view)
        # The rest comes first: small numbers added to a large one would all round the same way.
        totals = tf.concat([tf.slice(x, tail, to_the_end), tf.reduce_sum(in_lanes, axis + 1)], axis)
        return tf.reduce_sum(totals, this, keepdims=True)

    return add


def _sum_of_slices(x: tf.Tensor, axis: int) -> tf.Tensor:
    """For XLA, which merges a reduction of a reduction into the one long loop to be avoided."""
    total = tf.zeros([], x.dtype)
    for _ in range(STAGES):
        size = x.shape[axis]
        if size is not None and size < 2 * SLICE_LANES:
            break
        rows = tf.shape(x)[axis] // SLICE_LANES if size is None else size // SLICE_LANES
        rest = _along(x, axis, SLICE_LANES * rows, None)
        total += tf.reduce_sum(rest, axis, keepdims=True)
        x = tf.add_n([_along(x, axis, lane * rows, (lane + 1) * rows) for lane in range(SLICE_LANES)])
    return total + tf.reduce_sum(x, axis, keepdims=True)


def _along(x: tf.Tensor, axis: int, start: tf.Tensor | int, stop: tf.Tensor | int | None) -> tf.Tensor:
    return x[(slice(None),) * axis + (slice(start, stop),)]
