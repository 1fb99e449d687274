"""Every case in each way that XLA may run it: the same as the plain operations, compiled where it should be."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from kerasbn.kernels.differentiable import batch_normalize
from tests.cases import CASES, CORE, MODES, in_mode, train
from tests.crossing import crossed


@pytest.mark.parametrize(("case", "mode"), crossed(CASES, MODES, core=CORE))
def test_compiled_equals_plain(case, mode):
    plain, compiled = case.layer(jit_compile=False), case.layer(jit_compile=True)
    wanted = train(plain, case.x, case.dy, case.mask)
    found = in_mode(mode, lambda x: train(compiled, x, case.dy, case.mask))(tf.constant(case.x))
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-5 * (np.abs(a).max() + 1))
    for a, b in zip(plain.get_weights(), compiled.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def compiled_programs(layer, *specs):
    """How many calls of XLA programs are in the graph of one training step and in the functions that it calls."""
    step = tf.function(
        lambda x, dy: train(layer, x, dy), autograph=False, input_signature=[tf.TensorSpec(*s) for s in specs]
    )
    graph = step.get_concrete_function().graph.as_graph_def()
    compiled = {f.signature.name for f in graph.library.function if f.attr["_XlaMustCompile"].b}
    called = {
        f.signature.name: [a.func.name for n in f.node_def for a in n.attr.values()] for f in graph.library.function
    }
    called[""] = [a.func.name for n in graph.node for a in n.attr.values()]

    def programs(name):
        return sum(1 if inner in compiled else programs(inner) for inner in called[name] if inner)

    return programs("")


@pytest.mark.default_compilation
@pytest.mark.parametrize(
    ("jit_compile", "shape", "programs"),
    [
        ("auto", (None, 5, 3), 0),  # small with any batch
        ("auto", (4, 5, 3), 0),
        ("auto", (None, None, 3), 2),  # may be large
        ("auto", (None, 64, 64, 3), 2),
        ("auto", (2, 64, 64, 3), 0),  # small with this batch
        (True, (None, None, 3), 2),
        (False, (None, 64, 64, 3), 0),
    ],
)
def test_what_is_compiled(jit_compile, shape, programs, one_part):
    layer = BatchNorm(jit_compile=jit_compile)
    layer.build((*shape[:-1], 3))
    assert compiled_programs(layer, (shape, "float32"), (shape, "float32")) == programs  # forward, backward


@pytest.mark.default_compilation
def test_nothing_is_compiled_where_sizes_behind_the_channels_are_unknown(one_part):
    layer = BatchNorm(axis=1)
    layer.build((None, 3, None, None))
    shape = (None, 3, None, None)
    assert compiled_programs(layer, (shape, "float32"), (shape, "float32")) == 0


@pytest.fixture
def one_part(monkeypatch):
    monkeypatch.setattr("kerasbn.kernels.strategy._cores", lambda: 1)


def test_renorm_is_one_program_more(one_part):
    """The correction comes between moments and normalization."""
    layer = BatchNorm(renorm=True, jit_compile=True)
    layer.build((None, 3))
    assert compiled_programs(layer, ((None, 3), "float32"), ((None, 3), "float32")) == 3


@pytest.mark.default_compilation
def test_auto_is_uncompiled_in_eager_mode(monkeypatch):
    """Eager inputs change shape at will; each new shape would be compiled."""
    asked = []

    def spy(*args, jit_compile, **settings):
        asked.append(jit_compile)
        return batch_normalize(*args, jit_compile=jit_compile, **settings)

    monkeypatch.setattr("kerasbn.layers.batch_norm.batch_normalize", spy)
    layer = BatchNorm()
    x = np.ones((3, 512, 1024), "float32")
    layer(x, training=True)
    in_mode("graph", lambda x: layer(x, training=True))(tf.constant(x))
    in_mode("inlined", lambda x: layer(x, training=True))(tf.constant(x))
    eager, graph, inlined = asked
    assert eager is False and inlined is True
    assert graph.dtype == "bool" and graph.shape == []


def test_variable_length_gives_what_fixed_length_gives():
    case = next(c for c in CASES if c.name == "sequence")
    wanted = train(case.layer(), case.x, case.dy)
    layer = case.layer()
    shape = (None, None, case.shape[-1])
    found = in_mode("graph", lambda x, dy: train(layer, x, dy), (shape, "float32"), (shape, "float32"))(case.x, case.dy)
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


def test_a_graph_that_forgot_the_channels_still_works():
    case = next(c for c in CASES if c.name == "image")
    layer = case.layer()
    step = in_mode("graph", lambda x: layer(x, training=True), ((None, None, None, None), "float32"))
    np.testing.assert_allclose(step(case.x), case.layer()(case.x, training=True), rtol=1e-5, atol=1e-5)


def test_traced_once():
    """Batches of any size go through one trace, and further epochs add none."""
    traces = []

    class Counting(BatchNorm):
        def call(self, inputs, training=None, mask=None):
            traces.append(inputs.shape)
            return super().call(inputs, training=training, mask=mask)

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), Counting(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    traces.clear()
    x, y = np.random.default_rng(0).normal(size=(22, 6)), np.zeros((22, 1))
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)  # 8, 8, 6
    after_first = len(traces)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    model.fit(x[:21], y[:21], batch_size=8, epochs=1, verbose=0)  # 8, 8, 5
    assert len(traces) == after_first
