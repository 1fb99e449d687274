"""Exports on real images: what each format gives is what Keras gives. And the example that does it all."""

import re

import keras
import numpy as np
import pytest

import kerasbn
from examples.accelerate.data import load
from examples.serve import __main__ as command
from examples.serve import formats

# The converters and what they bring along.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::PendingDeprecationWarning"
)


@pytest.fixture(scope="module")
def images():
    return load("digits")


@pytest.fixture(scope="module")
def model(images):
    """Keras's layer and kerasbn's, one with its activation, one behind a sum, with statistics of the images."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, padding="same")(inputs)
    short = x = kerasbn.BatchNorm(activation="relu", name="fused")(x)
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(name="keras")(x)
    x = keras.layers.ReLU()(kerasbn.BatchNorm(name="behind_a_sum")(keras.layers.Add()([x, short])))
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    kerasbn.recalibrate(model, images.x_train)
    return model


def exported(model, kind, images, tmp_path):
    if kind == "ONNX":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
        return formats.onnx(model, tmp_path / "model.onnx")
    served = formats.saved_model(model, tmp_path / "saved")
    if kind == "SavedModel":
        return served
    calibration = images.x_train[:100] if kind == "TFLite int8" else None
    return formats.tflite(tmp_path / "saved", tmp_path / "model.tflite", calibration)


@pytest.mark.parametrize("folded", [False, True], ids=["as it is", "folded"])
@pytest.mark.parametrize("kind", ["SavedModel", "TFLite", "ONNX"])
def test_formats_give_what_keras_gives(kind, folded, model, images, tmp_path):
    x = images.x_test[:64]
    expected = model.predict(x, verbose=0)
    serve = exported(kerasbn.fold(model) if folded else model, kind, images, tmp_path)
    np.testing.assert_allclose(serve(x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_eight_bits_of_a_folded_model(model, images, tmp_path):
    x = images.x_test[:64]
    expected = model.predict(x, verbose=0)
    found = exported(kerasbn.fold(model), "TFLite int8", images, tmp_path)(x)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert (tmp_path / "model.tflite").stat().st_size < 20_000


def test_command(tmp_path, capsys):
    assert command.main(["--epochs", "1", "--calls", "5", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    accuracy = dict(re.findall(r"^(\S.*?) {2,}(\d+\.\d+)%", printed, re.M))
    assert float(accuracy["trained, moving averages"]) < float(accuracy["recalibrated"])
    assert accuracy["recalibrated"] == accuracy["folded"] == accuracy["SavedModel"] == accuracy["TFLite, float32"]
    assert "conv_2_bn: normalization BatchNormalization -> folded into conv_2" in printed
    assert {"saved_model", "float32.tflite", "int8.tflite"} <= {path.name for path in tmp_path.iterdir()}
