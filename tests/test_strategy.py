"""Which way is taken: parts side by side in a graph, one program inside XLA; and that all ways give the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from kerasbn.kernels import strategy
from kerasbn.kernels.view import View
from kerasbn.kernels.xla import inside_xla
from tests.cases import MODES, in_mode, train
from tests.crossing import crossed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrap", ["straight", "cond", "while", "nested", "gradient"])
def test_inside_xla(mode, wrap):
    """The private accessor that it rests on says what it did."""
    seen = []

    def look(x):
        seen.append(inside_xla())
        return x + 1

    def step(x):
        if wrap == "cond":
            return tf.cond(x > 0, lambda: look(x), lambda: x)
        if wrap == "while":
            return tf.while_loop(lambda i, _: i < 1, lambda i, x: (i + 1, look(x)), (0, x))[1]
        if wrap == "nested":
            return tf.function(look)(x)
        if wrap == "gradient":
            return tf.custom_gradient(lambda x: (x, look))(x)
        return look(x)

    def differentiated(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = step(x)
        return tape.gradient(y, x)

    in_mode(mode, differentiated)(tf.constant(1.0))
    assert seen and set(seen) == {mode == "inlined"}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_inside_xla_in_fit(jit_compile):
    seen = []

    class Look(keras.layers.Layer):
        def call(self, x):
            seen.append(inside_xla())
            return x

    model = keras.Sequential([keras.Input((3,)), Look(), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=jit_compile)
    seen.clear()
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    assert seen and set(seen) == {jit_compile}


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(strategy, "_cores", lambda: 4)


def parts(shape, axis=-1, dtype="float32", jit_compile=False):
    found = []

    def look(x):
        found.append(strategy.number_of_parts(x, View.of(len(shape), {axis % len(shape): shape[axis]})))
        return x

    tf.function(look, jit_compile=jit_compile).get_concrete_function(tf.TensorSpec(shape, dtype))
    return found[0]


def test_number_of_parts(four_cores):
    assert parts((None, 56, 56, 64)) == 4
    assert parts((None, 32, 32, 16)) == 4  # if it is compiled, it is large
    assert parts((128, 32, 32, 16)) == 4
    assert parts((32, 32, 32, 16)) == 2  # 2 MB
    assert parts((128, 32, 32, 16), dtype="bfloat16") == 1  # rows of 32 bytes are not aligned
    assert parts((128, 32, 32, 32), dtype="bfloat16") == 4
    assert parts((None, None, 16)) == 4
    assert parts((128, 16, 32, 32), axis=1) == 4
    assert parts((60, 100)) == 1
    assert parts((128, 32, 32, 3)) == 1
    assert parts((128, 32, 32, 16), axis=0) == 1
    assert parts((128, 32, 32, 16), jit_compile=True) == 1


@pytest.mark.parametrize(
    ("settings", "samples", "masked", "axis"),
    crossed([{}, {"activation": "relu"}, {"renorm": True}, {"momentum": None}], [9, 1, 0], [False, True], [-1, 1]),
)
def test_parts_give_what_the_whole_gives(samples, masked, settings, axis, monkeypatch):
    """Also unequal ones, and more parts than rows."""
    shape = (samples, 16, 2, 16)
    x, dy = (np.random.default_rng(seed).normal(size=shape).astype("float32") * 3 + 7 for seed in (0, 1))
    mask = np.random.default_rng(2).random(shape[:-1]) < 0.5 if masked else None
    results = []
    for number in (1, 4):
        monkeypatch.setattr(strategy, "number_of_parts", lambda x, view, number=number: number)
        layer = BatchNorm(axis=axis, **settings)
        layer.build(shape)
        spec = ((None, *shape[1:]), "float32")
        found = in_mode("graph", lambda x, dy, layer=layer: train(layer, x, dy, mask), spec, spec)(x, dy)
        results.append([*found, *layer.get_weights()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=2e-5 * max(1, np.abs(a).max(initial=0)))


def test_parts_are_no_copies(four_cores):
    """Slices of rows share memory where rows are aligned; `number_of_parts` relies on it."""
    x = tf.constant(np.random.default_rng(0).normal(size=(64, 16)).astype("float32"))

    @tf.function(autograph=False)
    def where(x):
        [first], [second], *_ = strategy.cut([x], 4)
        return tf.numpy_function(lambda *ts: np.array([t.ctypes.data for t in ts]), [x, first, second], "int64")

    begin, first, second = where(x).numpy()
    assert (first, second) == (begin, begin + 16 * 64)
