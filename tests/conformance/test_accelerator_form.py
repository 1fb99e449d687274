"""The form of the kernels on an accelerator, run on a CPU: what it computes does not depend on where it runs.

An accelerator adds in trees. Neither TensorFlow nor XLA do so on a CPU, where a sum over outliers has fewer digits:
`benchmarks.accelerator.on_card` compares these numbers where there is a card.
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm
from kerasbn.kernels import batch_moments, strategy
from tests.cases import CASES, CORE, WAYS, in_mode, train
from tests.conformance.test_offsets import DATA, LAYOUTS, check_any_mean
from tests.crossing import crossed


@pytest.fixture
def on_accelerator(monkeypatch):
    monkeypatch.setattr(strategy, "on_cpu", lambda: False)


#: Without an outlier in the rows that the center is from, at a large mean.
IN_REACH = [data for data in DATA if data != (1e6, "first")]


@pytest.mark.parametrize(("layout", "data", "way"), crossed(LAYOUTS, IN_REACH, [("graph", True), ("inlined", "auto")]))
def test_any_mean(on_accelerator, layout, data, way):
    check_any_mean(layout, data, way)


@pytest.mark.parametrize("shape, axes", [((12_800, 4), (0,)), ((100, 4), (0,)), ((3, 4, 300), (0, 2)), ((1, 2), (0,))])
@pytest.mark.parametrize("size", [None, "known"])
def test_the_center_is_near_the_mean_whatever_the_batch_holds(shape, axes, size):
    """Even if all values that it is the mean of are outliers."""
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    looked_at = batch_moments._every_so_many(tf.reshape(tf.range(x.size), shape), axes)
    x.ravel()[looked_at.numpy().ravel()] += 1e4
    signature = [tf.TensorSpec(shape if size else [None if i in axes else n for i, n in enumerate(shape)])]
    near = tf.function(lambda x: batch_moments._near_the_mean(x, None, axes, "float32"), input_signature=signature)
    distance = np.abs(near(x) - x.mean(axes, keepdims=True, dtype="float64"))
    of_all, of_them = (math.prod(np.take(s, axes)) for s in (shape, looked_at.shape))
    assert of_all / of_them < 2 * batch_moments.STEP
    assert (distance <= np.sqrt(of_all / of_them) * x.std(axes, keepdims=True, dtype="float64") + 1e-3).all()


@pytest.mark.parametrize("number, placed", [(0, ""), (1, "/CPU:0"), (2, "/GPU:0")])
def test_placement_decides(monkeypatch, number, placed):
    """Not what the machine has: a layer on the CPU of a machine with a GPU is a layer on a CPU."""
    found = []

    @tf.function
    def trace(number):
        with tf.device(placed or None):
            found.append(strategy.on_cpu())

    trace.get_concrete_function(number)
    assert found == [True]
    devices = [*tf.config.list_logical_devices(), tf.config.LogicalDevice("/device:GPU:0", "GPU")]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: devices)
    trace.get_concrete_function(number + 10)
    assert found[1:] == [placed == "/CPU:0"]


@pytest.mark.parametrize(("case", "way"), crossed(CASES, WAYS, core=CORE))
def test_what_a_cpu_computes(monkeypatch, case, way):
    mode, jit_compile = way
    found = {}
    for on_cpu in (True, False):
        monkeypatch.setattr(strategy, "on_cpu", lambda on_cpu=on_cpu: on_cpu)
        layer = case.layer(jit_compile=jit_compile)
        step = in_mode(mode, lambda x, dy, layer=layer: train(layer, x, dy, case.mask))
        found[on_cpu] = [*step(tf.constant(case.x), tf.constant(case.dy)), *layer.get_weights()]
    for here, there in zip(found[True], found[False], strict=True):
        np.testing.assert_allclose(np.asarray(there, "float64"), np.asarray(here, "float64"), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_second_derivative_in_one_program(on_accelerator, activation):
    x = tf.constant(np.random.default_rng(0).normal(size=(30, 4)).astype("float32"))

    def penalty(jit_compile):
        layer = BatchNorm(activation=activation, jit_compile=jit_compile)
        layer.build(x.shape)

        def gradient(x):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    y = tf.reduce_sum(layer(x, training=True) ** 3)
                total = tf.reduce_sum(inner.gradient(y, x) ** 2)
            return outer.gradient(total, x)

        return tf.function(gradient, jit_compile=jit_compile)(x)

    np.testing.assert_allclose(penalty(True), penalty(False), rtol=1e-3, atol=1e-4)


def test_an_empty_batch(on_accelerator):
    for mode, jit_compile in WAYS:
        layer = BatchNorm(jit_compile=jit_compile)
        layer.build((None, 3))
        y, dx, dgamma, dbeta = in_mode(mode, lambda x, layer=layer: train(layer, x, x))(tf.zeros((0, 3)))
        assert y.shape == dx.shape == (0, 3)
        np.testing.assert_array_equal([dgamma, dbeta], np.zeros((2, 3)))
        np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))


def test_functions_that_run_eagerly(on_accelerator):
    tf.config.run_functions_eagerly(True)
    try:
        layer = BatchNorm(jit_compile=True)
        layer.build((8, 3))
        y, *_ = train(layer, np.random.default_rng(0).normal(size=(8, 3)).astype("float32"), tf.ones((8, 3)))
    finally:
        tf.config.run_functions_eagerly(False)
    np.testing.assert_allclose(tf.reduce_mean(y, 0), np.zeros(3), atol=1e-6)
