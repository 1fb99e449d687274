"""Any layer that Keras has too, where Keras is right: the same outputs, gradients and weights, step after step."""

import keras
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from kerasbn import BatchNorm
from tests.cases import train
from tests.fuzz.layers import layer_cases
from tests.fuzz.profiles import fuzz

#: Keras adds 1e-7 to the number of values that a mask counts: its mean is off by as much of itself, which may be 150
#: roots of epsilon.
TOLERANCE = {"float64": 1e-4, "float32": 1e-4, "float16": 4 * 2.0**-11, "bfloat16": 4 * 2.0**-8}


@fuzz(60, case=layer_cases(of_keras=True), steps=st.integers(1, 3))
def test_steps_and_inference(case, steps):
    results = []
    for layer_class in (keras.layers.BatchNormalization, BatchNorm):
        layer = case.layer(layer_class)
        found = {}
        for step in range(steps):
            x, dy, *mask = case.tensors(case.dy)
            y, *gradients = train(layer, x + tf.cast(step, x.dtype), dy, *mask)
            found |= {f"y{step}": y} | {f"gradient {number} of step {step}": g for number, g in enumerate(gradients)}
        found["inference"] = layer(x, mask=mask[0] if mask else None)
        found |= {weight.name: weight.value for weight in layer.weights}
        results.append((layer, found))
    tolerance = 1e-8 if case.mask is None and case.dtype == "float64" else TOLERANCE[case.compute_dtype]
    (keras_layer, theirs), (layer, ours) = results
    assert list(theirs) == list(ours)
    for name, wanted in theirs.items():
        assert ours[name].dtype == wanted.dtype, name
        wanted, value = (np.asarray(tf.cast(v, "float64")) for v in (wanted, ours[name]))
        scale = 1 + np.abs(wanted).max(initial=0)
        np.testing.assert_allclose(value / scale, wanted / scale, rtol=0, atol=tolerance, err_msg=name)
    assert layer.get_config() | {"name": ""} == keras_layer.get_config() | {"name": ""}
