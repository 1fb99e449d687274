"""The parts that the kernels are made of: views of any shape, and sums that stay accurate."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerasbn.kernels import bfloat16
from kerasbn.kernels.reduction import accurate_sum
from kerasbn.kernels.view import View


@given(st.data())
def test_collapsed_sums_are_the_sums(data):
    """Sums over the averaged axes of the view are those over the axes themselves, for any rank, axes and mask."""
    shape = data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=6))
    kept = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape) - 1))
    x = np.random.default_rng(0).normal(size=shape)
    mask = np.random.default_rng(1).random(shape[:-1]) < 0.5
    view = View.of(len(shape), {axis: shape[axis] for axis in kept})
    flat = view.collapse(tf.constant(x))
    masked = tf.where(view.collapse_mask(tf.constant(mask), tf.constant(x)), flat, 0)
    axes = tuple(a for a in range(len(shape)) if a not in kept)
    for found, wanted in ((flat, x), (masked, np.where(mask[..., None], x, 0))):
        sums = tf.reduce_sum(found, view.averaged)
        np.testing.assert_allclose(tf.reshape(sums, [-1]), wanted.sum(axes).ravel(), atol=1e-12)
    np.testing.assert_array_equal(tf.reshape(flat, shape), x)
    weights = np.arange(np.prod([shape[a] for a in sorted(kept)], dtype=int))
    spread = np.broadcast_to(weights.reshape([s if a in kept else 1 for a, s in enumerate(shape)]), shape)
    np.testing.assert_array_equal(
        tf.broadcast_to(view.vector(tf.constant(weights)), tf.shape(flat)), tf.reshape(spread, tf.shape(flat))
    )


@given(size=st.integers(0, 1200), axis=st.integers(0, 2), dynamic=st.booleans())
def test_accurate_sum_is_the_sum(size, axis, dynamic):
    shape = [2, 3, 2]
    shape[axis] = size
    x = np.random.default_rng(size).normal(size=shape)
    signature = [tf.TensorSpec([None] * 3 if dynamic else shape, "float64")]
    total = tf.function(lambda x: accurate_sum(x, (axis,), on_cpu=True), input_signature=signature)(x)
    np.testing.assert_allclose(total, x.sum(axis, keepdims=True), atol=1e-10)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_accurate_sum_is_accurate(jit_compile):
    """Over equal values, which round the same way at every addition."""
    x = np.full((100_003, 2), 0.1, "float32")
    wanted = x.astype("float64").sum(0)

    def error(reduce):
        compiled = tf.function(reduce, jit_compile=jit_compile)
        return np.abs(compiled(tf.constant(x)).numpy().ravel() / wanted - 1).max()

    assert error(lambda x: accurate_sum(x, (0,), on_cpu=True)) < 1e-6


#: Every exponent, every sign, ties, and what is no number.
WORDS = np.concatenate(
    [
        np.random.default_rng(0).integers(0, 2**32, 200_000, dtype="uint32"),
        (np.arange(2**16, dtype="uint32") << 16),
        (np.arange(2**16, dtype="uint32") << 16) + 0x8000,
        np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF7FFFFF], "uint32"),
    ]
)


def test_narrow_rounds_as_cast_does():
    x = tf.constant(WORDS.view("float32"))
    compiled = tf.function(lambda x: bfloat16.narrow(x, "bfloat16", on_cpu=True, jit_compile=True), jit_compile=True)
    found, wanted = (tf.cast(y, "float32").numpy() for y in (compiled(x), tf.cast(x, "bfloat16")))
    normal = np.abs(wanted) >= np.finfo("float32").tiny  # XLA takes subnormal numbers for 0
    np.testing.assert_array_equal(found[normal], wanted[normal])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    assert np.abs(found[~normal & ~np.isnan(wanted)]).max() <= np.finfo("float32").tiny


def test_words_are_pairs():
    x = tf.cast(np.random.default_rng(0).normal(size=(5, 6)), "bfloat16")
    even, odd = bfloat16.halves(bfloat16.words(x))
    np.testing.assert_array_equal(even, tf.cast(x, "float32")[:, ::2])
    np.testing.assert_array_equal(odd, tf.cast(x, "float32")[:, 1::2])
