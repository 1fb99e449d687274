"""What leaves Python: inference folds and runs where there is neither kerasbn nor XLA."""

import contextlib
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn
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


def lite(model: keras.Model, x=X):
    interpreter = tf.lite.Interpreter(model_content=tf.lite.TFLiteConverter.from_keras_model(model).convert())
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
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


class Adapting(keras.layers.Layer):
    """Normalizes with the batch in inference, too, by a layer that the model does not list."""

    def __init__(self, layers, **settings):
        super().__init__()
        self.inner = [BatchNorm(**settings) for _ in range(layers)]

    def build(self, shape):
        for layer in self.inner:
            layer.build(shape)

    def call(self, inputs):
        for layer in self.inner:
            inputs = layer(inputs, training=True)
        return inputs


def in_saved_model(model, x, path):
    model.export(path, verbose=False)
    served = tf.saved_model.load(path)
    return served.serve(x)


def in_tflite(model, x, path):
    return lite(model, x)[1]


def in_onnx(model, x, path):
    onnxruntime = pytest.importorskip("onnxruntime")
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # tf2onnx, of NumPy's names
        model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


#: The last is so large that its default would be compiled.
BATCH_STATISTICS = [
    ((8, 8, 3), {"jit_compile": False}, False),
    ((8, 8, 3), {"jit_compile": False, "renorm": True, "unbiased": True}, False),
    ((8, 8, 3), {"jit_compile": False, "axis": (1, 3), "activation": "relu"}, False),
    ((5,), {"jit_compile": False, "momentum": None}, False),
    ((8, 8, 3), {}, False),
    ((64, 64, 4), {}, True),
    ((8, 8, 3), {"jit_compile": True}, True),
]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
@pytest.mark.parametrize(("shape", "settings", "in_context"), BATCH_STATISTICS, ids=str)
@pytest.mark.parametrize("exported_to", [in_saved_model, in_tflite, in_onnx])
def test_batch_statistics_in_inference(exported_to, shape, settings, in_context, tmp_path):
    """As in test-time adaptation: no operation that a converter does not know, and no sum that it gets wrong."""
    model = keras.Sequential([keras.Input(shape), Adapting(2, **settings)])
    x = np.random.default_rng(0).normal(2, 3, size=(3, *shape)).astype("float32")
    weights = model.get_weights()
    wanted = model(x)
    model.set_weights(weights)
    with kerasbn.uncompiled() if in_context else contextlib.nullcontext():
        found = exported_to(model, x, str(tmp_path / "exported.onnx"))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_context_ends(small_and_soon):
    """Also where an export raises."""
    model = keras.Sequential([keras.Input((4,)), Adapting(1)])
    with pytest.raises(RuntimeError), kerasbn.uncompiled():
        assert "StatelessIf" not in operations(model)
        raise RuntimeError
    assert "StatelessIf" in operations(model)


def operations(model):
    function = tf.function(lambda x: model(x), input_signature=[tf.TensorSpec((None, *model.input_shape[1:]))])
    return {operation.type for operation in function.get_concrete_function().graph.get_operations()}
