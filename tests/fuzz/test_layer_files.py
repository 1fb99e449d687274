"""Any layer comes back as it was from its configuration, from a model's file and from a file of weights."""

import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from kerasbn import BatchNorm
from tests.fuzz.layers import layer_cases
from tests.fuzz.profiles import fuzz

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "beta_initializer": st.sampled_from(["ones", keras.initializers.Constant(0.5)]),
        "moving_variance_initializer": st.just(keras.initializers.RandomUniform(1, 2, seed=3)),
        "gamma_regularizer": st.sampled_from(["l2", keras.regularizers.L1L2(0.1, 0.2)]),
        "beta_constraint": st.sampled_from(["non_neg", keras.constraints.MaxNorm(2.0)]),
        "trainable": st.booleans(),
        "name": st.sampled_from(["mine", "batch_normalization_7"]),
        "jit_compile": st.booleans(),
        "activation": st.sampled_from(["gelu", keras.layers.LeakyReLU, keras.layers.PReLU]),
    },
)


def made(options):
    """With layers for their classes: an example does not get the one of another example, which is built."""
    activation = options.get("activation")
    return options | {"activation": activation()} if isinstance(activation, type) else options


def as_stored(config):
    return json.loads(json.dumps(config))


@fuzz(60, case=layer_cases(), options=OPTIONS)
def test_configuration(case, options):
    layer = BatchNorm(**case.settings | made(options), dtype=case.dtype)
    config = as_stored(layer.get_config())
    again = BatchNorm.from_config(config)
    assert as_stored(again.get_config()) == config
    found = keras.saving.deserialize_keras_object(as_stored(keras.saving.serialize_keras_object(layer)))
    assert type(found) is BatchNorm and as_stored(found.get_config()) == config
    assert found.dtype_policy == layer.dtype_policy and found.trainable == layer.trainable
    found.build(case.shape)
    layer.build(case.shape)
    assert [(w.name, w.shape, w.dtype, w.trainable) for w in found.variables] == [
        (w.name, w.shape, w.dtype, w.trainable) for w in layer.variables
    ]
    for a, b in zip(layer.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(b, a)


@fuzz(12, case=layer_cases(), options=OPTIONS)
def test_files(case, options):
    inputs = keras.Input(batch_shape=case.shape, dtype=case.input_dtype)
    model = keras.Model(inputs, case.layer(**made(options) | {"jit_compile": False})(inputs))
    x = case.tensors(case.dy)[0]
    model(x, training=True)
    with tempfile.TemporaryDirectory() as folder:
        whole, weights = Path(folder, "model.keras"), Path(folder, "model.weights.h5")
        model.save(whole)
        loaded = keras.models.load_model(whole, safe_mode=True)
        model.save_weights(weights)
        blank = keras.models.clone_model(model)
        blank.load_weights(weights)
    assert as_stored(loaded.get_config()) == as_stored(model.get_config())
    results = []
    for each in (model, loaded, blank):
        outputs = [tf.cast(each(x, training=training), "float64") for training in (False, True)]
        results.append(outputs + each.get_weights())
    for again in results[1:]:
        for a, b in zip(results[0], again, strict=True):
            np.testing.assert_array_equal(b, a)
