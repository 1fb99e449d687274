"""Second derivatives, against finite differences of the first in float64.

Keras's are no measure in general: `tf.nn.moments` stops the gradient of the mean inside the variance, which is right
for the first derivative and wrong for the second, unless it is multiplied with something that sums to 0 over the
batch.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.cases import CASES, CORE, MODES, in_mode
from tests.crossing import crossed

#: The corrections of renorm are constants to the derivative, but not to a finite difference.
WITHOUT_RENORM = [case for case in CASES if not case.settings.get("renorm")]


@pytest.mark.parametrize("case", crossed(WITHOUT_RENORM, core=CORE))
def test_along_any_direction(case):
    check(case, "eager", "auto")


@pytest.mark.parametrize(("mode", "jit_compile"), crossed(MODES, [False, True]))
def test_in_every_mode(mode, jit_compile):
    check(next(case for case in CASES if case.name == "mask, image"), mode, jit_compile)


def check(case, mode, jit_compile):
    layer = case.layer(dtype="float64", jit_compile=jit_compile)
    random = np.random.default_rng(1)
    v, direction = random.normal(size=(2, *case.shape))
    x = tf.constant(case.x, "float64")

    def first(x):
        """A function of the input's gradient, with weights that sum to nothing in particular."""
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(layer(x, training=True, mask=case.mask)) * case.dy)
        return tf.reduce_sum(tape.gradient(loss, x) * v)

    def second(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = first(x)
        return tape.gradient(y, x)

    step = 1e-5
    wanted = (first(x + step * direction) - first(x - step * direction)) / (2 * step)
    found = tf.reduce_sum(in_mode(mode, second)(x) * direction)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
