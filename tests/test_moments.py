"""The algebra of moments: parts merge into what the whole gives."""

import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerasbn.moments import Moments, anchor, merge


def moments_of(x: np.ndarray) -> Moments:
    """Of a batch [m, channels] in float32, from float64."""
    if not len(x):
        return Moments(*[np.zeros(x.shape[1], "float32")] * 4)
    mean = x.mean(0, dtype="float64")
    center = mean.astype("float32")
    offset, m2 = mean - center, ((x - mean) ** 2).sum(0)
    return Moments(*(np.broadcast_to(np.float32(v), (x.shape[1],)) for v in (len(x), center, offset, m2)))


def stacked(parts) -> Moments:
    return Moments(*(tf.stack(field) for field in zip(*parts, strict=True)))


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    mean=st.sampled_from([0.0, -3.0, 1e4, 1e6]),
    seed=st.integers(0, 2**16),
)
def test_merge_is_the_union(sizes, mean, seed):
    random = np.random.default_rng(seed)
    parts = [(random.normal(size=(n, 3)) + mean).astype("float32") for n in sizes]
    whole = np.concatenate(parts).astype("float64")
    merged = merge(stacked(map(moments_of, parts)))
    np.testing.assert_array_equal(merged.count, np.full(3, len(whole)))
    if len(whole):
        # center + offset in float64: that is the number which the pair stands for.
        np.testing.assert_allclose(
            merged.center.numpy() + merged.offset.numpy().astype("float64"), whole.mean(0), atol=2e-6
        )
        np.testing.assert_allclose(merged.variance(), whole.var(0), rtol=2e-5, atol=1e-6)
    else:
        assert all((field.numpy() == 0).all() for field in merged)


def test_empty_part_is_neutral_whatever_it_holds():
    full = moments_of(np.random.default_rng(0).normal(size=(5, 3)).astype("float32"))
    empty = Moments(np.zeros(3, "float32"), *[np.full(3, np.nan, "float32")] * 3)
    for parts in ([full, empty], [empty, full], [empty, full, empty]):
        for a, b in zip(merge(stacked(parts)), full, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_variance_never_divides_by_zero():
    m = Moments(*(tf.constant(v) for v in ([0.0, 1.0, 2.0], [0.0] * 3, [0.0] * 3, [0.0, 0.0, 8.0])))
    np.testing.assert_array_equal(m.variance(), [0, 0, 4])
    np.testing.assert_array_equal(m.variance(unbiased=True), [0, 0, 8])


@given(st.floats(allow_nan=False, allow_infinity=False, width=32, allow_subnormal=False))
def test_anchor_is_near_and_stays(x):
    x = tf.constant(x, "float32")
    assert anchor(x) == x  # TensorFlow rounds each result
    near = tf.function(anchor, jit_compile=True)(x)
    assert abs(near - x) <= abs(x) * 2.0**-23
    assert tf.function(anchor, jit_compile=True)(near) == near


def test_anchor_of_float64():
    x = tf.constant([1 / 3, -1e300, 0.0], "float64")
    np.testing.assert_allclose(tf.function(anchor, jit_compile=True)(x), x, rtol=2.0**-52)
