"""Models of any layers that transforms know, put together in any way, in float64, with weights as after training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from kerasbn import BatchNorm, LocalResponseNormalization
from kerasbn.selection import layers_in
from tests.transforms.trained import trained

L = keras.layers

#: Shapes of inputs without the batch: of vectors, sequences, images and volumes.
SHAPES = [(8, 8, 4), (8, 7, 2), (8, 8, 4), (8, 3), (4,), (4, 5, 4, 2)]
#: How large an axis of space is at least before it gets smaller, and at most after it was doubled.
SMALLEST, LARGEST = 4, 16

LINEAR = ["dense", "convolution", "depthwise", "separable", "transposed", "einsum"]
NORMALIZATIONS = ["ours", "theirs"]
NONLINEAR = ["relu", "leaky", "prelu", "elu", "activation", "softmax", "relu operation"]
IN_BETWEEN = ["dropout", "average pooling", "max pooling", "zeros", "cropping", "upsampling", "local response", "noise"]
RANKS = ["flatten", "global pooling", "reshape", "permute"]
MERGES = ["add", "average", "maximum", "subtract", "multiply", "concatenate", "plus", "concatenate places"]
ORDERS = ["again", "nested", "sequential", "each time", "nested again"]
KINDS = [*LINEAR, *LINEAR, *NORMALIZATIONS * 4, *NONLINEAR, *IN_BETWEEN, *RANKS, *MERGES, *ORDERS]
#: Half of the networks are of everything, the others of what normalizations fold into and pass.
FOLDING = [*LINEAR, *NORMALIZATIONS * 3, *IN_BETWEEN[:-2]]

Draw = Callable[[st.SearchStrategy], Any]


@contextmanager
def in_float64() -> Iterator[None]:
    """Layers that are made meanwhile compute in float64, in which what is not the same differs visibly."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def network(draw: Draw, normalized: bool = False) -> keras.Model:
    """A model with weights. It is made in a test and not in a strategy, as Keras draws seeds from Python's generator.

    Args:
        draw: Draws from a strategy, as the `draw` of `hypothesis.strategies.data`.
        normalized: Whether there must be a normalization.
    """
    keras.backend.clear_session()
    with in_float64():
        kinds = draw(
            st.lists(
                st.sampled_from(draw(st.sampled_from([KINDS, FOLDING]))),
                min_size=draw(st.sampled_from([0, 4, 8])),
                max_size=9,
            )
        )
        grown = _Network(draw, draw(st.sampled_from(SHAPES)), kinds)
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
            grown.tensors.append(keras.Input(draw(st.sampled_from(SHAPES)), dtype="float64"))
            grown.inputs.append(grown.tensors[-1])
        if normalized:
            grown.kinds.append(draw(st.sampled_from(NORMALIZATIONS)))
        model = grown.model(draw(st.sampled_from([1, 1, 1, 2, 3])))
    assume(not normalized or any(isinstance(layer, L.BatchNormalization) for layer, _ in layers_in(model)))
    for layer in draw(st.lists(st.sampled_from(model.layers), max_size=2)):
        layer.trainable = draw(st.booleans())
    return trained(model, draw(st.integers(0, 99)))


def batch(model: keras.Model, rows: int = 3) -> list[np.ndarray]:
    """Inputs of `model`, as a list."""
    random = np.random.default_rng(0)
    return [random.normal(size=(rows, *x.shape[1:])) for x in model.inputs]


def results(model: keras.Model, x: list[np.ndarray], training: bool = False) -> list[np.ndarray]:
    """The outputs of `model`, as a list."""
    outputs = model(x if len(x) > 1 else x[0], training=training)
    return [np.asarray(y) for y in keras.tree.flatten(outputs)]


class _Network:
    """A graph that grows by one layer after another, each of something that is there already."""

    def __init__(self, draw: Draw, shape: tuple[int, ...], kinds: list[str], depth: int = 0) -> None:
        self.draw, self.depth = draw, depth
        self.inputs = [keras.Input(shape, dtype="float64")]
        self.tensors = list(self.inputs)
        self.layers: list[tuple[Any, tuple]] = []
        self.kinds = kinds

    def model(self, number_of_outputs: int = 1) -> keras.Model:
        for kind in self.kinds:
            self.tensors += self.results(kind)
        outputs = self.tensors[-number_of_outputs:]
        outputs = outputs[0] if len(outputs) == 1 and self.pick(True, False) else outputs
        if isinstance(outputs, list) and self.pick(True, False):
            outputs = {f"out{number}": output for number, output in enumerate(outputs)}
        return keras.Model(self.inputs if len(self.inputs) > 1 else self.inputs[0], outputs)

    def pick(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def results(self, kind: str) -> list[Any]:
        """What a step of this kind gives; nothing if there is nothing that it could be done to."""
        x = self.tensors[-self.draw(st.sampled_from([*[1] * 8, 2, 3])) % len(self.tensors)]
        if kind in MERGES:
            return self.merged(kind, x)
        if kind in ("again", "nested again"):
            models = kind == "nested again"
            fitting = [f for f, shape in self.layers if shape == x.shape and isinstance(f, keras.Model) == models]
            return self.called(self.draw(st.sampled_from(fitting)), x) if fitting else []
        if kind in ("nested", "sequential"):
            return self.called(self.nested(kind, x.shape[1:]), x) if self.depth < 2 else []
        if kind == "relu operation":
            return [keras.ops.relu(x)]
        layer = self.layer(kind, x.shape)
        return [] if layer is None else self.called(layer, x)

    def called(self, layer: Any, x: Any) -> list[Any]:
        self.layers.append((layer, x.shape))
        return [y for y in keras.tree.flatten(layer(x)) if len(y.shape) > 1]

    def merged(self, kind: str, x: Any) -> list[Any]:
        alike = [y for y in self.tensors if y.shape == x.shape and y is not x]
        others = [y for y in self.tensors if y.shape[:-1] == x.shape[:-1]]
        other = self.draw(st.sampled_from(others if kind == "concatenate" else alike or [x]))
        if kind == "plus":
            return [x + other]
        if kind == "concatenate places":
            return [L.Concatenate(axis=1)([x, other])] if x.shape[1] + other.shape[1] <= LARGEST else []
        layers = {
            "add": L.Add,
            "average": L.Average,
            "maximum": L.Maximum,
            "subtract": L.Subtract,
            "multiply": L.Multiply,
            "concatenate": L.Concatenate,
        }
        return [layers[kind]()([x, other])]

    def nested(self, kind: str, shape: tuple[int, ...]) -> keras.Model:
        kinds = self.draw(
            st.lists(st.sampled_from([*LINEAR, *NORMALIZATIONS, "relu", "add", "nested"]), min_size=1, max_size=4)
        )
        inside = _Network(self.draw, shape, kinds, self.depth + 1)
        if kind == "nested":
            return inside.model(self.pick(1, 1, 2))
        model = keras.Sequential([keras.Input(shape, dtype="float64"), L.ReLU()])
        for name in kinds:
            layer = None if name in ("add", "nested") else inside.layer(name, model.output_shape)
            if layer is not None:
                model.add(layer)
        return model

    def layer(self, kind: str, shape: tuple) -> Any:
        """A new layer for tensors of this shape; `None` if there is none."""
        rank, channels, space = len(shape), shape[-1], shape[1:-1]
        pick, flag = self.pick, lambda: self.pick(True, False)
        common = {"use_bias": flag, "activation": lambda: pick(None, None, None, "relu", "tanh")}
        common = {name: value() for name, value in common.items()} if kind in LINEAR else {}
        of_rank = lambda name: getattr(L, f"{name}{rank - 2}D", None)  # noqa: E731
        shrinks = min(space, default=0) >= SMALLEST
        if kind == "dense":
            return L.Dense(pick(2, 4, 5), kernel_regularizer=pick(None, "l2"), **common)
        if kind == "einsum":
            places = "uvw"[: len(space)]  # by name: Keras 3.15 reverses the shape of those that are "..."
            return L.EinsumDense(f"n{places}a,ab->n{places}b", (*space, 3), bias_axes=pick(None, "b"))
        if kind == "convolution" and shrinks:
            stride, dilation = pick((1, 1), (2, 1), (1, 2))
            groups = 2 if channels % 2 == 0 and rank == 4 and flag() else 1
            settings = {"dilation_rate": dilation, "padding": pick("valid", "same"), "groups": groups}
            return of_rank("Conv")(pick(2, 4), pick(1, 2), stride, **settings, **common)
        if kind == "depthwise" and shrinks and of_rank("DepthwiseConv"):
            settings = {"depth_multiplier": pick(1, 2), "padding": pick("valid", "same")}
            return of_rank("DepthwiseConv")(pick(1, 3), pick(1, 2), **settings, **common)
        if kind == "separable" and shrinks and of_rank("SeparableConv"):
            settings = {"depth_multiplier": pick(1, 2), "padding": pick("valid", "same")}
            return of_rank("SeparableConv")(4, pick(1, 2), **settings, **common)
        if kind == "transposed" and space and max(space) * 2 <= LARGEST:
            return of_rank("Conv") and getattr(L, f"Conv{rank - 2}DTranspose")(
                pick(2, 4), pick(1, 2), pick(1, 2), **common
            )
        if kind in NORMALIZATIONS:
            return self.normalization(kind, rank)
        if kind == "activation":
            return L.Activation(pick("tanh", "sigmoid", "linear", "relu6", "leaky_relu"))
        if kind == "each time" and rank > 2:
            inner = _Network(self.draw, shape[2:], [], 2).layer(
                pick("dense", *NORMALIZATIONS, "convolution"), shape[1:]
            )
            return inner and L.TimeDistributed(inner)
        if kind == "reshape":
            return L.Reshape((int(np.prod(shape[1:])), 1) if rank == 2 else (int(np.prod(space)), channels))
        if kind == "permute" and rank > 2:
            return L.Permute(tuple(reversed(range(1, rank))))
        if kind == "softmax":  # of one channel Keras warns
            return L.Softmax() if channels > 1 else None
        simple = {
            "relu": lambda: L.ReLU(pick(None, 6.0)),
            "leaky": lambda: L.LeakyReLU(pick(0.2, 0.3)),
            "prelu": L.PReLU,
            "elu": L.ELU,
            "dropout": lambda: L.Dropout(0.5),
            "noise": lambda: L.GaussianNoise(0.1),
            "local response": lambda: LocalResponseNormalization(1, alpha=0.1),
            "flatten": L.Flatten,
        }
        if kind in simple:
            return simple[kind]()
        if rank not in (3, 4, 5):
            return None
        if kind == "global pooling":
            return of_rank(pick("GlobalAveragePooling", "GlobalMaxPooling"))(keepdims=flag())
        if kind in ("average pooling", "max pooling") and shrinks and rank < 5:  # TensorFlow has those in float32 only
            name = "AveragePooling" if kind.startswith("average") else "MaxPooling"
            return of_rank(name)(2, pick(1, 2), padding=pick("valid", "same"))
        if kind == "zeros" and max(space) < LARGEST:
            return of_rank("ZeroPadding")(1)
        if kind == "cropping" and shrinks:
            return of_rank("Cropping")(1)
        if kind == "upsampling" and max(space) * 2 <= LARGEST:
            return of_rank("UpSampling")(2)
        return None

    def normalization(self, kind: str, rank: int) -> keras.layers.Layer:
        pick = self.pick
        shared = {
            "momentum": pick(0.99, 0.5),
            "epsilon": pick(1e-3, 0.1),
            "center": pick(True, False),
            "scale": pick(True, False),
        }
        shared |= {"renorm": pick(False, False, False, True)}
        if kind == "theirs":
            return L.BatchNormalization(pick(-1, -1, -1, 1), **shared)
        axis = pick(-1, -1, -1, 1, [-1], list(range(1, rank)))
        return BatchNorm(axis, activation=pick(None, None, None, "relu", "tanh", "relu6"), **shared)
