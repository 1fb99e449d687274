"""A model in the formats that are served: each a function from images to logits."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.report import write_whole

Serve = Callable[[np.ndarray], np.ndarray]


class NotInstalled(Exception):
    """A package that is needed for a format is not there; the message names it."""


def in_keras(model: keras.Model) -> Serve:
    """The model as Keras runs it, in a graph."""
    call = tf.function(lambda x: model(x, training=False))
    return lambda x: call(tf.constant(x)).numpy()


def saved_model(model: keras.Model, folder: Path) -> Serve:
    """`model.export`, loaded without Keras."""
    model.export(str(folder), verbose=False)
    served = tf.saved_model.load(str(folder))
    return lambda x: served.serve(tf.constant(x)).numpy()


def tflite(folder: Path, file: Path, calibration: np.ndarray | None = None) -> Serve:
    """TFLite from a SavedModel, one image at a time.

    Args:
        folder: Of the SavedModel.
        file: What is written.
        calibration: Images that the ranges of activations are taken from, for 8-bit integers throughout (post-training
            quantization); `None` for float32.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    write_whole(file, converter.convert())
    with warnings.catch_warnings():
        # TensorFlow's interpreter moves to a package of its own, LiteRT. It runs the same files.
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated", UserWarning)
        interpreter = tf.lite.Interpreter(model_path=str(file))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def serve(x: np.ndarray) -> np.ndarray:
        results = []
        for image in x:
            interpreter.set_tensor(taken["index"], _quantized(image[None], taken))
            interpreter.invoke()
            results.append(_real(interpreter.get_tensor(given["index"]), given))
        return np.concatenate(results)

    return serve


def onnx(model: keras.Model, file: Path) -> Serve:
    """ONNX through tf2onnx, run by onnxruntime.

    Raises:
        NotInstalled: If one of the two is not installed.
    """
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise NotInstalled(f'{error.name}: pip install -e ".[export]"') from error
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), "float32", name="images")]
    call = tf.function(lambda images: model(images, training=False), input_signature=signature)
    converted, _ = tf2onnx.convert.from_function(call, input_signature=signature)
    write_whole(file, converted.SerializeToString())
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"images": x})[0]


def _quantized(x: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    if details["dtype"] == np.float32:
        return x
    scale, zero = details["quantization"]
    limits = np.iinfo(details["dtype"])
    return np.clip(np.round(x / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def _real(y: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    if details["dtype"] == np.float32:
        return y
    scale, zero = details["quantization"]
    return ((y.astype("float32") - zero) * scale).astype("float32")
