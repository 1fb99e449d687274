"""A training step of any layer on any batch, and inference, are those of the float64 oracle."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from kerasbn.kernels import strategy, tiered
from tests import expected
from tests.cases import in_mode, train
from tests.fuzz.layers import Drawn, layer_cases
from tests.fuzz.profiles import fuzz, is_long
from tests.tiers import UNCOMPILED_STEPS

#: By how much results may be off, in parts of what they are the sum of; in half precision that is some roundings.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "float16": 3 * 2.0**-11, "bfloat16": 3 * 2.0**-8}

#: What is next to 0 in half precision.
LEAST = {"float64": 1e-300, "float32": 1e-37, "float16": 2.0**-24, "bfloat16": 1e-37}
LARGEST = {"float16": 6e4, "bfloat16": 3e38}


def check(name: str, found, dtype: str, wanted: np.ndarray, size: np.ndarray, compute_dtype: str = "float64") -> None:
    """That a tensor is of that `dtype` and, in the numbers that the least precise of the two has, what is wanted."""
    assert found.dtype == dtype, name
    found = np.asarray(tf.cast(found, "float64")).reshape(wanted.shape)
    tolerance = max(TOLERANCE[dtype], TOLERANCE[compute_dtype])
    least = max(LEAST[dtype], LEAST[compute_dtype])
    with np.errstate(invalid="ignore"):
        right = (np.abs(found - wanted) <= tolerance * size + least) | (found == wanted)
        right |= (np.isnan(found) & np.isnan(wanted)) | (np.abs(wanted) > LARGEST.get(dtype, np.inf))
    assert right.all(), f"{name} is {found[~right]} and not {wanted[~right]}"


def check_case(case: Drawn, in_the_mode=lambda function, *tensors: function, steps_before=0, **settings) -> None:
    layer = case.layer(**settings)
    statistics = "float64" if case.dtype == "float64" else "float32"
    compute, parameters = case.compute_dtype, case.dtype if not case.dtype.startswith("mixed") else "float32"

    def infer(x, dy, mask=None):
        return layer(x, training=False, mask=mask)

    wanted, size = expected.inference(case, layer)
    step = expected.training_step(case, layer)
    tensors = case.tensors(step.dy)
    before = layer.get_weights()
    check("inference", in_the_mode(infer, *tensors)(*tensors), compute, wanted, size)
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)

    run = in_the_mode(lambda *tensors: train(layer, *tensors), *tensors)
    for _ in range(steps_before):
        run(*tensors)
    if steps_before:
        tiered.wait_until_compiled()
        layer.set_weights(before)
    y, *gradients = run(*tensors)
    check("y", y, compute, step.values["y"], step.sizes["y"])
    check("dx", gradients[0], case.input_dtype, step.values["dx"], step.sizes["dx"], compute)
    # An activation that the kernels do not have is differentiated in the dtype of the result.
    through = compute if case.settings.get("activation") == "sigmoid" else "float64"
    names = ["dgamma"] * layer.scale + ["dbeta"] * layer.center
    for name, gradient in zip(names, gradients[1:], strict=True):
        check(name, gradient, parameters, step.values[name], step.sizes[name], through)
    for weight in layer.weights:
        wanted = step.values[weight.name]
        if weight.name == "moving_count":
            np.testing.assert_array_equal(case.vector(weight), wanted)
        else:
            dtype = parameters if weight.trainable else statistics
            check(weight.name, weight.value, dtype, wanted, step.sizes[weight.name])


@fuzz(150, case=layer_cases(), jit_compile=st.sampled_from(["auto", False]))
def test_in_eager_mode(case, jit_compile):
    check_case(case, jit_compile=jit_compile)


@fuzz(20, case=layer_cases())
def test_a_value_that_is_not_finite(case):
    """Its channels have no numbers, the others are as ever, and no statistic of its channels moves."""
    check_case(dataclasses.replace(case, bad=True, constant=False), jit_compile=False)


MODES = st.sampled_from(["graph", "inlined"])
JIT = st.sampled_from(["auto", False, True])
#: Which sizes a graph knows, besides those of the weights; and how small a part of a batch may be.
KNOWN, PART_BYTES = st.sampled_from(["all", "all but the batch", "none"]), st.sampled_from([2**20, 64])


@pytest.mark.slow
@fuzz(8, case=layer_cases(few_shapes=not is_long()), mode=MODES, jit_compile=JIT, known=KNOWN, part_bytes=PART_BYTES)
def test_in_graphs(case, mode, jit_compile, known, part_bytes):
    def shape(tensor):
        unknown = {"all": set(), "all but the batch": {0}, "none": set(range(len(tensor.shape)))}[known]
        return [None if a in unknown - set(case.kept) else size for a, size in enumerate(tensor.shape)]

    def in_the_mode(function, *tensors):
        return in_mode(mode, function, *((shape(t), t.dtype) for t in tensors))

    usual, strategy.PART_BYTES = strategy.PART_BYTES, part_bytes
    try:
        check_case(case, in_the_mode, jit_compile=jit_compile)
    finally:
        strategy.PART_BYTES = usual


@pytest.mark.slow
@fuzz(4, case=layer_cases(few_shapes=not is_long()))
def test_after_compiled_kernels_took_over(case):
    limits = {"MIN_BYTES": 1, "MIN_USES": UNCOMPILED_STEPS, "BREAK_EVEN": 1, "MAX_PROGRAMS": 10**5, "IDLE": tiered.BUSY}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in limits.items():
            patch.setattr(tiered, name, value)
        check_case(case, lambda function, *tensors: in_mode("graph", function), steps_before=UNCOMPILED_STEPS)


@pytest.mark.slow
@fuzz(4, case=layer_cases(few_shapes=not is_long()))
def test_compiled_in_eager_mode(case):
    check_case(case, jit_compile=True)
