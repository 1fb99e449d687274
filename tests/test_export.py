"""What leaves Python: inference folds and runs where there is neither kerasbn nor XLA."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm


def network(layer_class, **settings) -> keras.Model:
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(4, 3, use_bias=False),
        layer_class(**settings),
        keras.layers.ReLU(),
    ]
    model = keras.Sequential(layers)
    random = np.random.default_rng(0)
    model.layers[1].set_weights([random.random(w.shape) + 0.5 for w in model.layers[1].weights])
    return model


X = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype("float32")


def lite(model: keras.Model):
    interpreter = tf.lite.Interpreter(model_content=tf.lite.TFLiteConverter.from_keras_model(model).convert())
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], X.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], X)
    interpreter.invoke()
    # The list of operations has no public name.
    operations = {op["op_name"] for op in interpreter._get_ops_details()} - {"DELEGATE"}
    return operations, interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_tflite_folds_into_the_convolution():
    ours, theirs = network(BatchNorm), network(keras.layers.BatchNormalization)
    theirs.set_weights(ours.get_weights())
    operations, y = lite(ours)
    assert operations == {"CONV_2D"} == lite(theirs)[0]
    np.testing.assert_allclose(y, ours(X), rtol=1e-4, atol=1e-4)


def asks_for_xla(function) -> bool:
    """Whether a graph, or any function in it, is one that only XLA can run."""
    definition = str(function.graph.as_graph_def())
    return re.search(r'"_XlaMustCompile"\s*value\s*{\s*b: true', definition) is not None


def exported(model, path, training):
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((None, *X.shape[1:]))]
    archive.add_endpoint("serve", lambda x: model(x, training=training), input_signature=signature)
    archive.write_out(path, verbose=False)
    return tf.saved_model.load(path)


@pytest.mark.parametrize(
    "settings", [{}, {"renorm": True}, {"momentum": None}, {"axis": (2, 3)}, {"jit_compile": True}], ids=str
)
def test_saved_model_runs_without_xla(settings, tmp_path):
    model = network(BatchNorm, **settings)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(X), model(X), rtol=1e-6, atol=1e-6)
    assert not any(asks_for_xla(function) for function in served.signatures.values())


def test_a_training_function_does_ask_for_xla(tmp_path):
    """That is, the test above would see it."""
    served = exported(network(BatchNorm, jit_compile=True), tmp_path / "training", training=True)
    assert any(asks_for_xla(function) for function in served.signatures.values())
