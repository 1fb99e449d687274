"""Files and configurations, in both directions between kerasbn and Keras."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm
from tests.cases import CASES, KERAS_CASES, Case


def model_with(layer_class, case: Case) -> keras.Model:
    """A model around the case's layer, trained a little so that no weight has its initial value."""
    inputs = keras.Input(batch_shape=case.shape, dtype=case.dtype)
    layer = case.layer(layer_class)
    model = keras.Model(inputs, layer(inputs))
    model(case.x, training=True)
    return model


@pytest.mark.parametrize("case", CASES, ids=str)
def test_keras_file(case, tmp_path):
    model = model_with(BatchNorm, case)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(loaded.layers[-1]) is BatchNorm
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    np.testing.assert_array_equal(loaded(case.x), model(case.x))
    np.testing.assert_array_equal(loaded(case.x, training=True), model(case.x, training=True))


@pytest.mark.parametrize("extension", ["weights.h5", "keras"])
@pytest.mark.parametrize("case", KERAS_CASES, ids=str)
def test_weight_files_in_both_directions(case, extension, tmp_path):
    path = tmp_path / f"model.{extension}"
    classes = keras.layers.BatchNormalization, BatchNorm
    for source, target in (classes, classes[::-1]):
        written, read = model_with(source, case), model_with(target, case)
        for weight in written.weights:
            weight.assign(np.random.default_rng(5).random(weight.shape))
        written.save_weights(path) if extension == "weights.h5" else written.save(path)
        read.load_weights(path)
        for a, b in zip(written.get_weights(), read.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_model_file_opens_without_kerasbn(tmp_path):
    """On a machine that has Keras alone, its own layer reads what kerasbn wrote."""
    path = tmp_path / "model.keras"
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), BatchNorm(momentum=0.9, renorm=True)])
    model(np.random.default_rng(0).normal(size=(8, 3)), training=True)
    model.save(path)
    x = np.ones((2, 3), "float32")
    program = f"""
import json, sys, keras, numpy
model = keras.models.load_model({str(path)!r}, custom_objects={{"kerasbn>BatchNorm": keras.layers.BatchNormalization}})
assert type(model.layers[-1]) is keras.layers.BatchNormalization and "kerasbn" not in sys.modules
print(json.dumps(numpy.asarray(model(numpy.ones((2, 3), "float32"))).tolist()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), model(x), rtol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_config_round_trip(case):
    layer = case.layer()
    config = json.loads(json.dumps(layer.get_config()))
    again = BatchNorm.from_config(config)
    assert again.get_config() == layer.get_config()
    for name, value in case.settings.items():
        stored = again.get_config()[name]
        assert stored == (list(value) if isinstance(value, tuple) else value), name


def test_config_holds_what_keras_lacks_only_where_it_is_used():
    """A configuration that Keras can read is worth more than one that repeats defaults."""
    theirs = keras.layers.BatchNormalization().get_config().keys()
    assert BatchNorm().get_config().keys() == theirs
    for new in (
        {"unbiased": True, "jit_compile": False, "activation": "relu", "virtual_batch_size": 4},
        {"sync_group_size": 2},
    ):
        config = BatchNorm(**new, synchronized="sync_group_size" in new, momentum=None, axis=(1, 2)).get_config()
        assert {name: config[name] for name in config.keys() - theirs} == new
    assert config["momentum"] is None and config["axis"] == [1, 2]


def test_initializers_regularizers_constraints_survive():
    layer = BatchNorm(
        beta_initializer=keras.initializers.Constant(0.5),
        gamma_regularizer="l2",
        beta_constraint="non_neg",
        moving_variance_initializer=keras.initializers.Constant(4.0),
        name="mine",
        trainable=False,
    )
    again = BatchNorm.from_config(layer.get_config())
    again.build((None, 2))
    assert again.name == "mine" and not again.trainable
    assert isinstance(again.gamma_regularizer, keras.regularizers.L2)
    assert isinstance(again.beta_constraint, keras.constraints.NonNeg)
    np.testing.assert_array_equal(again.beta, [0.5, 0.5])
    np.testing.assert_array_equal(again.moving_variance, [4, 4])


def test_clone_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), BatchNorm(unbiased=True), keras.layers.ReLU()])
    clone = keras.models.clone_model(model)
    assert type(clone.layers[1]) is BatchNorm and clone.layers[1].unbiased
    clone.set_weights(model.get_weights())
    x = np.ones((4, 3), "float32")
    np.testing.assert_array_equal(clone(x), model(x))


def test_unnamed_layers_are_named_as_keras_names_its_own():
    keras.backend.clear_session()
    assert BatchNorm().name == "batch_normalization"
    assert keras.layers.BatchNormalization().name == "batch_normalization_1"
