"""Any shape, axes, mask, dtype and mode that hypothesis thinks of, against the oracle."""

import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerasbn import BatchNorm
from tests import reference
from tests.cases import train

#: One rounding of the result, and what float32 sums of cancelling terms add to a gradient.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}


@st.composite
def layers_and_inputs(draw):
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=5)))
    rank = len(shape)
    axes = draw(st.sets(st.integers(0, rank - 1), min_size=1, max_size=rank - 1))
    signed = [a - draw(st.sampled_from([0, rank])) for a in sorted(axes)]
    settings = {
        "axis": signed[0] if len(signed) == 1 and draw(st.booleans()) else signed,
        "center": draw(st.booleans()),
        "scale": draw(st.booleans()),
        "unbiased": draw(st.booleans()),
        "momentum": draw(st.sampled_from([0.0, 0.9, None])),
        "epsilon": draw(st.sampled_from([1e-3, 0.1])),
        "jit_compile": draw(
            st.sampled_from(["auto", False])
        ),  # compiling each of them would take minutes: see test_xla
    }
    masked = draw(st.booleans())
    return shape, settings, masked, draw(st.sampled_from(list(TOLERANCE))), draw(st.integers(0, 2**16))


@given(layers_and_inputs())
def test_against_the_oracle(drawn):
    shape, settings, masked, dtype, seed = drawn
    random = np.random.default_rng(seed)
    x = tf.cast(random.normal(size=shape) * 2 + random.normal() * 5, dtype)
    dy = tf.cast(random.normal(size=shape), dtype)
    mask = random.random(shape[:-1]) < 0.7 if masked else None
    layer = BatchNorm(**settings, dtype=dtype if dtype.endswith(("32", "64")) else f"mixed_{dtype}")
    layer.build(shape)
    axes = tuple(a for a in range(len(shape)) if a not in {a % len(shape) for a in np.atleast_1d(settings["axis"])})
    y, dx, *_ = train(layer, x, dy, mask)

    wide, wide_dy = tf.cast(x, "float64").numpy(), tf.cast(dy, "float64").numpy()
    wide_mask = None if mask is None else mask[..., None]
    n = reference.algorithm_1(wide, 1.0, 0.0, settings["epsilon"], axes, wide_mask)
    wanted_dx, _, _ = reference.backward(wide, 1.0, wide_dy, settings["epsilon"], axes, wide_mask)
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_allclose(tf.cast(y, "float64"), n.y, **tolerance)
    scale = 1 + np.abs(wanted_dx).max()
    np.testing.assert_allclose(tf.cast(dx, "float64") / scale, wanted_dx / scale, **tolerance)
    if settings["momentum"] != 0.9:
        counted = n.m.ravel() > 0 if masked else True
        variance = reference.algorithm_2_variance(n.sigma2, n.m) if settings["unbiased"] else n.sigma2
        for moving, value in ((layer.moving_mean, n.mu), (layer.moving_variance, variance)):
            found, wanted = np.ravel(moving), np.broadcast_to(value, value.shape).ravel()
            np.testing.assert_allclose(np.where(counted, found - wanted, 0), 0, atol=1e-4)
