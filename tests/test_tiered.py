"""Compiling in the background: what is compiled and what never is, when it takes over, and its limits."""

import os
import subprocess
import sys
import textwrap
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn
from kerasbn.kernels import compilation, tiered
from kerasbn.kernels.tiered import _Compiler, wait_until_compiled
from tests.cases import in_mode
from tests.crossing import first_of
from tests.tiers import UNCOMPILED_STEPS

pytestmark = pytest.mark.default_compilation


def step_of(layer, shape):
    """A forward pass of a new layer in a graph that does not know the size of the batch."""
    layer.build(shape)
    return in_mode("graph", lambda x: layer(x, training=True), ((None, *shape[1:]), "float32"))


@pytest.fixture
def compiler(monkeypatch):
    """A compiler of the test's own, with a table of its own, that knows nothing yet."""
    own = _Compiler(f"test {time.monotonic_ns()}")
    monkeypatch.setattr(tiered, "_compiler", own)
    yield own
    own.close()


def test_each_size_takes_over_after_its_own_uses(small_and_soon, taken):
    step = step_of(kerasbn.BatchNorm(), (8, 3))
    many, few = tf.ones([8, 3]), tf.ones([5, 3])
    for _ in range(UNCOMPILED_STEPS):
        step(many)
    step(few)
    wait_until_compiled()
    step(many)
    step(few)
    assert taken == [*[False] * UNCOMPILED_STEPS, False, True, False]


def test_a_size_that_comes_once_is_never_compiled(small_and_soon, monkeypatch, compiler, taken):
    monkeypatch.setattr(tiered, "AHEAD", 0.5)
    step = step_of(kerasbn.BatchNorm(), (20, 3))
    for rows in range(1, 20):
        step(tf.ones([rows, 3]))
    for _ in range(2):
        step(tf.ones([20, 3]))
    wait_until_compiled_rows(compiler, {20})
    assert not any(taken)


def test_a_small_size_is_never_compiled_however_often_it_comes(small_and_soon, monkeypatch, compiler, taken):
    monkeypatch.setattr(tiered, "MIN_BYTES", 8 * 3 * 4)
    step = step_of(kerasbn.BatchNorm(), (8, 3))
    for rows in 10 * [7, 5]:
        step(tf.ones([rows, 3]))
    step(tf.ones([8, 3]))
    wait_until_compiled()
    for rows in 3 * [7, 5]:
        step(tf.ones([rows, 3]))
    assert not any(taken) and {tried[1] for tried in compiler._tried} == {8}


def wait_until_compiled_rows(compiler, rows):
    """Waits until these sizes were compiled; an error if others were."""
    end = time.monotonic() + 60
    while {tried[1] for tried in compiler._tried} != rows:
        assert time.monotonic() < end and {tried[1] for tried in compiler._tried} <= rows
        time.sleep(0.02)
    time.sleep(3 * tiered.BUSY)
    assert {tried[1] for tried in compiler._tried} == rows


def test_layers_of_the_same_kind_share_a_program(small_and_soon, compiler, taken):
    """Also those of other models; a later model still counts for itself, and gives what the first one gave."""
    results = []
    for _ in range(2):
        step = step_of(kerasbn.BatchNorm(), (6, 4))
        x = tf.constant(np.random.default_rng(0).normal(size=(6, 4)), "float32")
        first = [step(x) for _ in range(UNCOMPILED_STEPS)]
        wait_until_compiled()
        results.append([*first, *(step(x) for _ in range(2))])
    assert len(compiler._programs) == len(compiler._tried) == 1
    assert taken == 2 * [*[False] * UNCOMPILED_STEPS, True, True]
    np.testing.assert_array_equal(*results)


def test_more_kinds_than_can_be_told_apart_stay_uncompiled(small_and_soon, monkeypatch, compiler, taken):
    monkeypatch.setattr(tiered, "_PROGRAM_BITS", 1)
    first, second, third = (step_of(kerasbn.BatchNorm(), (6, channels)) for channels in (2, 3, 4))
    for _ in range(UNCOMPILED_STEPS):
        for channels, step in zip((2, 3, 4), (first, second, third), strict=True):
            step(tf.ones([6, channels]))
    wait_until_compiled()
    assert len(compiler._programs) == 2 and not any(taken)
    third(tf.ones([6, 4]))
    assert not any(taken)
    first(tf.ones([6, 2]))
    second(tf.ones([6, 3]))
    assert taken[-2:] == [True, True]


@pytest.mark.parametrize("settings", first_of([{"synchronized": True}, {}, {"renorm": True}]), ids=str)
def test_replicas(settings, small_and_soon, taken, strategy):
    """In `fit`, with batches that do not divide: what is compiled from the start gives the same."""
    x = np.random.default_rng(0).normal(size=(39, 5)).astype("float32")

    def trained(jit_compile):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            bn = kerasbn.BatchNorm(jit_compile=jit_compile, **settings)
            model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), bn, keras.layers.Dense(1)])
            model.compile(keras.optimizers.SGD(0.1), "mse")
        data = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(8)
        for epoch in range(2 * UNCOMPILED_STEPS):
            if epoch == UNCOMPILED_STEPS and jit_compile == "auto":
                wait_until_compiled()
            model.fit(data, shuffle=False, verbose=0)
        return model.get_weights()

    found = trained("auto")
    assert {True, False} == set(taken)
    for a, b in zip(found, trained(True), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_compiled_goes_on_uncompiled(small_and_soon, compiler, monkeypatch, taken):
    """With one warning, which an error filter does not turn into the end of the thread."""

    def fail(program, rows):
        raise tf.errors.ResourceExhaustedError(None, None, "no memory left")

    monkeypatch.setattr(compilation.Program, "compile_for", fail)
    step = step_of(kerasbn.BatchNorm(), (7, 3))
    said = []
    monkeypatch.setattr(tiered, "_warn", said.append)
    for _ in range(UNCOMPILED_STEPS):
        step(tf.ones([7, 3]))
    wait_until_compiled()
    for _ in range(3):
        step(tf.ones([7, 3]))
    assert not any(taken)
    assert len(said) == 1 and "no memory left" in said[0] and "uncompiled" in said[0]
    assert compiler._thread.is_alive()


def test_warnings_that_are_errors_do_not_end_the_thread():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiered._warn("nothing serious")
    with pytest.warns(RuntimeWarning, match="nothing serious"):
        tiered._warn("nothing serious")


@pytest.mark.parametrize(("limit", "value"), [("MAX_PROGRAMS", 0), ("MAX_MAPS", 0.0)])
def test_nothing_is_compiled_beyond_a_limit(limit, value, small_and_soon, compiler, monkeypatch, taken):
    monkeypatch.setattr(tiered, limit, value)
    said = []
    monkeypatch.setattr(tiered, "_warn", said.append)
    for features in (3, 4):
        step = step_of(kerasbn.BatchNorm(), (6, features))
        for _ in range(UNCOMPILED_STEPS + 2):
            step(tf.ones([6, features]))
    compiler._thread.join(5 * tiered.BUSY)
    step(tf.ones([6, 4]))
    assert not any(taken) and not compiler._tried
    (message,) = said
    assert "compiles no more" in message and "jit_compile=False" in message


def run(code, **environment):
    """Runs Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        check=False,
    )


SOON = """
import numpy as np, tensorflow as tf, keras, kerasbn
from kerasbn.kernels import tiered, compilation
tiered.MIN_BYTES, tiered.BREAK_EVEN, tiered.MIN_USES = 1, 1, 2
"""


def test_near_the_limit_of_memory_maps_a_training_ends_normally():
    """A process that has one map too many is ended by a segmentation fault."""
    done = run(
        SOON
        + """
        import mmap, warnings
        limit = tiered._max_memory_maps()
        page = mmap.PAGESIZE
        padding = mmap.mmap(-1, 2 * limit * page)
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        start = ctypes.addressof(ctypes.c_char.from_buffer(padding))
        number = 0
        while tiered._memory_maps() < limit - 3000:
            for _ in range(500):  # every second page is read-only, so that each is a map of its own
                assert libc.mprotect(ctypes.c_void_p(start + 2 * number * page), page, mmap.PROT_READ) == 0
                number += 1
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for units in range(3, 9):
                layers = [keras.Input((8,)), keras.layers.Dense(units), kerasbn.BatchNorm(), keras.layers.Dense(1)]
                model = keras.Sequential(layers)
                model.compile("sgd", "mse")
                x = np.ones((50, 8), "float32")
                model.fit(x, x[:, :1], batch_size=16, epochs=5, verbose=0)
            tiered._compiler._thread.join(1)
        assert not tiered._compiler._tried
        print([str(w.message) for w in said if "kerasbn compiles no more" in str(w.message)])
        """.replace("\n        ", "\n")
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("kerasbn compiles no more") == 1


def test_a_process_ends_while_something_is_compiled():
    done = run(
        SOON
        + """
tiered.BUSY = 0.001
layers = [kerasbn.BatchNorm(name=f"bn{n}") for n in range(6)]
steps = []
for n, layer in enumerate(layers):
    layer.build((None, n + 2))
    step = tf.function(lambda x, layer=layer: layer(x, training=True), input_signature=[tf.TensorSpec((None, n + 2))])
    for _ in range(3):
        step(tf.ones([9, n + 2]))
print("end")
"""
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr[-2000:]


def test_op_determinism_is_seen():
    """By a private name; and where it is asked for, nothing changes in the middle of a training."""
    done = run(
        SOON
        + """
print(compilation._is_deterministic())
tf.config.experimental.enable_op_determinism()
print(compilation._is_deterministic())
"""
    )
    assert done.stdout.split() == ["False", "True"], done.stderr[-2000:]


def test_two_trainings_with_the_same_seed_agree_to_the_last_bit(small_and_soon, taken):
    """The use at which kernels take over is fixed, if the compiler was ready by then."""
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        layers = [keras.Input((6,)), keras.layers.Dense(5), kerasbn.BatchNorm(), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile("sgd", "mse")
        x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
        for epoch in range(6):
            model.fit(x, x[:, :1], batch_size=16, verbose=0, shuffle=False)
            if epoch == 0:
                wait_until_compiled()
        weights.append(model.get_weights())
    assert True in taken
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_graph_that_counts_can_be_exported(small_and_soon, tmp_path):
    """It holds no variable of ours, and runs where nobody compiles."""
    layer = kerasbn.BatchNorm()
    layer.build((None, 3))
    module = tf.Module()
    module.layer = layer.weights
    module.step = tf.function(
        lambda x: layer(x, training=True), autograph=False, input_signature=[tf.TensorSpec((None, 3))]
    )
    x = tf.constant([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    wanted = module.step(x)
    tf.saved_model.save(module, str(tmp_path))
    done = run(
        f"""
        import tensorflow as tf
        module = tf.saved_model.load({str(tmp_path)!r})
        for _ in range(20):
            y = module.step(tf.constant([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]))
        print(y.numpy().tolist())
        """
    )
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(eval(done.stdout), wanted, rtol=1e-5)
