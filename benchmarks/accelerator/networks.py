"""Training steps of whole networks as StableHLO, in the form that they have where there is an accelerator.

A step is one function of all variables and a batch, ``(weights, other variables, velocities, x, labels) -> (loss, all
variables after it)``: `stateless_call`, its gradient, and gradient descent with momentum.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from benchmarks.accelerator.cases import POLICIES
from benchmarks.accelerator.export import as_on_an_accelerator
from benchmarks.report import write_whole
from kerasbn import convert

#: What stands where ResNet-50 has a normalization.
NORMALIZATIONS = ("none", "keras", "kerasbn", "kerasbn_fused")
CLASSES = 1000
RATE, MOMENTUM = 0.01, 0.9


class Network(NamedTuple):
    """A training step of ResNet-50.

    Attributes:
        normalization: One of `NORMALIZATIONS`: no layer, Keras's, ours in its place, ours with the ReLU that follows.
        dtype: Of the computation.
        batch: Images.
        size: Pixels along each side of an image.
    """

    normalization: str
    dtype: str
    batch: int = 64
    size: int = 224

    @property
    def name(self) -> str:
        """For files and tables."""
        return f"resnet50_{self.normalization}-{self.dtype}-{self.batch}x{self.size}"


def write_steps(networks: Iterable[Network], folder: Path) -> None:
    """Writes one file for each network, and `networks.json`, the list of them with what goes in."""
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for network in networks:
        text, inputs = step_text(network)
        write_whole(folder / f"{network.name}.mlir", text.encode())
        index.append(network._asdict() | {"file": f"{network.name}.mlir", "inputs": inputs})
        write_whole(folder / "networks.json", (json.dumps(index) + "\n").encode())


def step_text(network: Network) -> tuple[str, list[dict]]:
    """The StableHLO of one step, and shape, dtype and initial values of each input."""
    keras.backend.clear_session()
    keras.config.set_dtype_policy(POLICIES[network.dtype])
    try:
        model = _model(network)
    finally:
        keras.config.set_dtype_policy("float32")
    weights, others = model.trainable_variables, model.non_trainable_variables

    def step(*tensors):
        trainable, rest = tensors[: len(weights)], tensors[len(weights) :]
        other, velocities, (x, labels) = rest[: len(others)], rest[len(others) : -2], rest[-2:]
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            logits, other = model.stateless_call(trainable, other, x, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, "float32"))
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, trainable)
        velocities = [MOMENTUM * v - RATE * dw for v, dw in zip(velocities, gradients, strict=True)]
        trainable = [w + v for w, v in zip(trainable, velocities, strict=True)]
        return loss, *trainable, *other, *velocities

    variables = [*weights, *others, *weights]
    images = (network.batch, network.size, network.size, 3)
    specs = [tf.TensorSpec(v.shape, v.dtype) for v in variables]
    specs += [tf.TensorSpec(images, "float32"), tf.TensorSpec(images[:1], "int32")]
    inputs = [_initial(v) for v in (*weights, *others)]
    inputs += [{"shape": list(v.shape), "dtype": v.dtype, "value": 0} for v in weights]
    inputs += [{"shape": images, "dtype": "float32", "stddev": 1.0}, {"shape": images[:1], "dtype": "int32"}]
    with as_on_an_accelerator():
        compiled = tf.function(step, jit_compile=True, autograph=False)
        return compiled.experimental_get_compiler_ir(*specs)(stage="stablehlo"), inputs


def _model(network: Network) -> keras.Model:
    shape = (network.size, network.size, 3)
    model = keras.applications.ResNet50(weights=None, input_shape=shape, classes=CLASSES, classifier_activation=None)
    if network.normalization == "none":
        return keras.models.clone_model(model, clone_function=_without_normalization)
    if network.normalization == "keras":
        return model
    return convert(model, fuse_activations=network.normalization == "kerasbn_fused")


def _without_normalization(layer: keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(layer, keras.layers.BatchNormalization):
        return _Nothing(name=layer.name)
    return type(layer).from_config(layer.get_config())


class _Nothing(keras.layers.Layer):
    """Called as a normalization is."""

    def call(self, inputs, mask=None):
        return inputs


def _initial(variable: keras.Variable) -> dict:
    """How a machine without Keras makes a first value that a network can begin with."""
    given = {"shape": list(variable.shape), "dtype": variable.dtype}
    if variable.path.endswith("/kernel"):
        return given | {"stddev": math.sqrt(2 / max(1, math.prod(variable.shape[:-1])))}
    return given | {"value": 1 if variable.path.rpartition("/")[2] in ("gamma", "moving_variance") else 0}
