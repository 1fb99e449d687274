"""Every case inside of branches, loops and recurrent layers: the same as called one time after the other.

The gradient of a branch or a loop is a graph that TensorFlow makes from the operations in it. It follows every tensor,
and XLA must know each shape in it.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn.kernels.tiered import wait_until_compiled
from tests.cases import CASES, in_mode
from tests.tiers import UNCOMPILED_STEPS


class Cell(keras.layers.Layer):
    """A recurrent cell that normalizes its input and its state."""

    def __init__(self, normalize, shape, dtype):
        super().__init__(dtype=dtype)
        self.normalize = normalize
        self.state_size, self.output_size = [shape[1:]], shape[1:]

    def call(self, inputs, states, training=None):
        y = self.normalize(inputs + states[0] / 2)
        return y, [y]


def recurrent(normalize, x):
    layer = keras.layers.RNN(Cell(normalize, x.shape, x.dtype), return_sequences=True, dtype=x.dtype)
    return layer(tf.stack([x, 2 * x], 1), initial_state=[tf.zeros_like(x)])


def recurrent_by_hand(normalize, x):
    normalize(x)  # Keras calls a cell once more, to see what it returns
    first = normalize(x)
    return tf.stack([first, normalize(2 * x + first / 2)], 1)


def is_true(x):
    return tf.reduce_sum(x) > -1e9


#: What a model does, and the same without control flow.
KINDS = {
    "cond": (lambda f, x: tf.cond(is_true(x), lambda: f(x), lambda: x), lambda f, x: f(x)),
    "while": (
        lambda f, x: tf.while_loop(lambda i, _: i < 2, lambda i, x: (i + 1, f(x)), (0, x), maximum_iterations=2)[1],
        lambda f, x: f(f(x)),
    ),
    "map": (lambda f, x: tf.map_fn(f, tf.stack([x, 2 * x])), lambda f, x: tf.stack([f(x), f(2 * x)])),
    "rnn": (recurrent, recurrent_by_hand),
    "switch": (
        lambda f, x: tf.switch_case(tf.cast(is_true(x), "int32"), [lambda: x, lambda: f(x)]),
        lambda f, x: f(x),
    ),
    "keras cond": (lambda f, x: keras.ops.cond(is_true(x), lambda: f(x), lambda: x), lambda f, x: f(x)),
}

#: `jit_compile` of the layer, how the step is run, and whether the tape is outside of the graph.
WAYS = {
    "default": ("auto", "graph", False),
    "uncompiled": (False, "graph", False),
    "compiled": (True, "graph", False),
    "one program": ("auto", "inlined", False),
    "one program, uncompiled": (False, "inlined", False),
    "default, tape outside": ("auto", "graph", True),
    "one program, tape outside": ("auto", "inlined", True),
}

#: Those that can fail apart. Corrections of renorm and weights of groups are computed beside the gradient that
#: `batch_normalize` has.
FAST = [
    *itertools.product(
        ("renorm, mask", "virtual batches, renorm"),
        ("cond", "map"),
        ("default", "one program", "default, tape outside"),
    ),
    ("image", "rnn", "default"),
    ("image", "switch", "default"),
    ("image", "keras cond", "compiled"),
    ("virtual batches, mask", "cond", "compiled"),
    ("virtual batches, mask", "while", "one program, uncompiled"),
]
#: Every case in every kind, in one way in turn.
SLOW = [
    (str(case), kind, way)
    for (case, kind), way in zip(
        itertools.product(CASES, ("cond", "while", "map", "rnn")),
        itertools.cycle(("default", "one program", "uncompiled", "one program", "default, tape outside")),
        strict=False,
    )
]
PAIRS = [*FAST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW if pair not in FAST)]


def named(name):
    return next(case for case in CASES if case.name == name)


def run(layer, case, function, mode="eager", outside=False):
    """Output, gradients of x and of the weights of one step with `function(normalize, x)`."""

    def forward(x):
        return function(lambda x: layer(x, training=True, mask=case.mask), x)

    def step(x, forward):
        sources = [x, *(w.value for w in (layer.gamma, layer.beta) if w is not None)]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = forward(x)
            loss = tf.reduce_sum(y**3) / 10
        return y, *tape.gradient(loss, sources)

    x = tf.constant(case.x)
    return step(x, in_mode(mode, forward)) if outside else in_mode(mode, lambda x: step(x, forward))(x)


def assert_equal(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=5e-5 * (1 + np.abs(b).max(initial=0)))


@pytest.mark.parametrize(("name", "kind", "way"), PAIRS)
def test_inside_control_flow(name, kind, way):
    case, (jit_compile, mode, outside) = named(name), WAYS[way]
    inside, by_hand = KINDS[kind]
    plain, layer = case.layer(jit_compile=False), case.layer(jit_compile=jit_compile)
    assert_equal(run(layer, case, inside, mode, outside), run(plain, case, by_hand))
    assert_equal(layer.get_weights(), plain.get_weights())


@pytest.mark.parametrize("kind", ["cond", "map"])
@pytest.mark.parametrize("name", ["renorm", "virtual batches, mask"])
def test_compiled_in_the_background(name, kind, small_and_soon):
    """Compiled kernels take over inside of a branch and of a loop, too."""
    case = named(name)
    inside, by_hand = KINDS[kind]
    plain, layer = case.layer(jit_compile=False), case.layer()

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = inside(lambda x: layer(x, training=True, mask=case.mask), x)
            loss = tf.reduce_sum(y**3) / 10
        return y, tape.gradient(loss, x)

    step = in_mode("graph", step)
    for number in range(UNCOMPILED_STEPS + 1):
        if number == UNCOMPILED_STEPS - 1:
            wait_until_compiled()
        found = step(tf.constant(case.x))
        wanted = run(plain, case, by_hand)
    assert_equal(found, wanted[:2])
    assert_equal(layer.get_weights(), plain.get_weights())


def test_moving_statistics_are_not_differentiated():
    """A branch returns them, and its gradient would go through all that they are computed from."""
    case = named("virtual batches")
    layer = case.layer()

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, *case.shape[1:]))])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 3)
        return tape.gradient(loss, x)

    functions = step.get_concrete_function().graph.as_graph_def().library.function
    assert not [f.signature.name for f in functions if "__backward" in f.signature.name]
