"""Every case where compiled kernels take over from TensorFlow's operations in the middle of a training."""

import numpy as np
import pytest
import tensorflow as tf

from kerasbn.kernels.tiered import wait_until_compiled
from tests.cases import CASES, CORE, in_mode, train
from tests.crossing import crossed
from tests.tiers import UNCOMPILED_STEPS


@pytest.mark.parametrize("case", crossed(CASES, core=CORE))
def test_a_training_that_goes_on_compiled(case, small_and_soon, taken):
    """It is the same as one that is compiled from the start, and one that is never: results, gradients, statistics."""
    layers = [case.layer(jit_compile=jit_compile) for jit_compile in ("auto", True, False)]
    results = []
    for layer in layers:
        step = in_mode("graph", lambda x, layer=layer: train(layer, x, case.dy, case.mask))
        for number in range(2 * UNCOMPILED_STEPS):
            if layer is layers[0] and number == UNCOMPILED_STEPS:
                wait_until_compiled()
            found = step(tf.constant(case.x + np.asarray(number, case.dtype)))
        results.append([*found, *layer.get_weights()])
    assert taken == [False] * UNCOMPILED_STEPS + [True] * UNCOMPILED_STEPS
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * (1 + np.abs(b).max(initial=0)))
