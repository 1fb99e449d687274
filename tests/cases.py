"""The registry: every kind of layer and input, once. Each file in `conformance` tests one quality of all of them."""

from dataclasses import dataclass, field
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf

from kerasbn import BatchNorm


@dataclass(frozen=True)
class Case:
    """A layer and what it is called with.

    Attributes:
        name: For the test's id.
        shape: Of the input.
        settings: Arguments of the layer.
        masked: Whether there is a mask, with about a third of the positions out.
        dtype: Of the input and the layer.
    """

    name: str
    shape: tuple[int, ...]
    settings: dict = field(default_factory=dict)
    masked: bool = False
    dtype: str = "float32"

    def __str__(self):
        return self.name

    @property
    def random(self):
        return np.random.default_rng(abs(hash(self.shape)) % 1000)

    @cached_property
    def x(self) -> np.ndarray:
        return (self.random.normal(size=self.shape) * 2 + 3).astype(self.dtype)

    @cached_property
    def dy(self) -> np.ndarray:
        return np.random.default_rng(7).normal(size=self.shape).astype(self.dtype)

    @cached_property
    def mask(self) -> np.ndarray | None:
        return np.random.default_rng(8).random(self.shape[:-1]) < 0.65 if self.masked else None

    @property
    def kept(self) -> tuple[int, ...]:
        axis = self.settings.get("axis", -1)
        return tuple(sorted(a % len(self.shape) for a in ([axis] if isinstance(axis, int) else axis)))

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(a for a in range(len(self.shape)) if a not in self.kept)

    def layer(self, layer_class=BatchNorm, dtype=None, **settings) -> keras.layers.Layer:
        """A built layer with weights that no initializer gives, the same for every class."""
        layer = layer_class(**{**self.settings, **settings}, dtype=dtype or self.dtype)
        layer.build(self.shape)
        random = np.random.default_rng(9)
        for weight in layer.weights:
            if weight.dtype != "int64":
                weight.assign(np.abs(random.normal(size=weight.shape)) + 0.5)
        return layer

    def vector(self, weight) -> np.ndarray:
        """A weight in float64, broadcast against the input."""
        shape = [size if axis in self.kept else 1 for axis, size in enumerate(self.shape)]
        return np.asarray(weight, "float64").reshape(shape)


def train(layer, x, dy=None, mask=None):
    """One training step: y, and with `dy` the gradients of x, gamma and beta (those that there are)."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True, mask=mask)
    if dy is None:
        return (y,)
    sources = [x, *(w.value for w in (layer.gamma, layer.beta) if w is not None)]
    return (y, *tape.gradient(y, sources, tf.cast(dy, y.dtype)))


def in_mode(mode: str, function, *specs):
    """`function` of tensors as a user may run it; `None` in a spec's shape is a size that the graph does not know.

    Modes: "eager"; "graph", kernels inside an ordinary graph; "inlined", everything in one XLA program.
    """
    if mode == "eager":
        return function
    signature = [tf.TensorSpec(shape, dtype) for shape, dtype in specs] or None
    return tf.function(function, jit_compile=mode == "inlined", autograph=False, input_signature=signature)


MODES = ("eager", "graph", "inlined")

#: What computes a layer: TensorFlow's operations, kernels that XLA compiles alone, one program that they are part of.
#: Modes with a `jit_compile`; "auto" compiles nothing as small as tests are.
WAYS = (("eager", False), ("graph", True), ("inlined", "auto"))

#: Those that Keras has too.
KERAS_CASES = [
    Case("dense", (12, 5)),
    Case("one channel", (9, 1)),
    Case("many rows", (700, 3)),
    Case("sequence", (4, 6, 5)),
    Case("image", (4, 5, 6, 3)),
    Case("volume", (2, 3, 4, 5, 3)),
    Case("rank 6", (2, 3, 2, 3, 2, 3)),
    Case("channels first", (4, 3, 5, 6), {"axis": 1}),
    Case("channels first, volume", (2, 3, 4, 2, 5), {"axis": 1}),
    Case("middle axis", (4, 5, 3, 6), {"axis": 2}),
    Case("negative middle axis", (4, 5, 3, 6), {"axis": -3}),
    Case("batch axis", (4, 5, 6), {"axis": 0}),
    Case("no center", (12, 5), {"center": False}),
    Case("no scale", (12, 5), {"scale": False}),
    Case("neither", (4, 5, 6, 3), {"center": False, "scale": False}),
    Case("momentum and epsilon", (12, 5), {"momentum": 0.7, "epsilon": 0.1}),
    Case("float64", (4, 5, 6, 3), dtype="float64"),
    Case("mask", (4, 6, 5), masked=True),
    Case("mask, image", (4, 5, 6, 3), masked=True),
    Case("mask, channels first", (4, 3, 5, 6), {"axis": 1}, masked=True),
    Case("mask, dense", (12, 5), masked=True),
    Case("renorm", (4, 5, 6, 3), {"renorm": True}),
    Case(
        "renorm, clipped",
        (12, 5),
        {"renorm": True, "renorm_clipping": {"rmax": 1.1, "rmin": 0.9, "dmax": 0.3}, "renorm_momentum": 0.8},
    ),
    Case("renorm, one bound", (12, 5), {"renorm": True, "renorm_clipping": {"rmax": 1.2}}),
    Case("renorm, no scale", (12, 5), {"renorm": True, "scale": False}),
    Case("renorm, no center", (12, 5), {"renorm": True, "center": False}),
    Case("renorm, mask", (4, 6, 5), {"renorm": True}, masked=True),
    Case("synchronized", (4, 5, 6, 3), {"synchronized": True}),
]

#: And those that kerasbn adds.
CASES = [
    *KERAS_CASES,
    Case("per activation", (8, 3, 4, 2), {"axis": (1, 2, 3)}),
    Case("per activation, apart", (8, 3, 4, 2), {"axis": [1, -1]}),
    Case("per activation, unordered", (8, 3, 4, 2), {"axis": (3, 1)}),
    Case("per activation, mask", (8, 6, 5), {"axis": (1, 2)}, masked=True),
    Case("per activation, renorm", (8, 6, 5), {"axis": (1, 2), "renorm": True}),
    Case("unbiased", (12, 5), {"unbiased": True}),
    Case("unbiased, mask", (4, 6, 5), {"unbiased": True}, masked=True),
    Case("unbiased, renorm", (12, 5), {"unbiased": True, "renorm": True}),
    Case("cumulative", (12, 5), {"momentum": None}),
    Case("cumulative, mask, renorm", (4, 6, 5), {"momentum": None, "renorm": True}, masked=True),
    Case("mask, synchronized", (4, 6, 5), {"synchronized": True}, masked=True),
    Case("synchronized in groups", (4, 6, 5), {"synchronized": True, "sync_group_size": 1}),
    Case("relu", (4, 5, 6, 3), {"activation": "relu"}),
    Case("relu, mask", (4, 6, 5), {"activation": "relu"}, masked=True),
    Case("relu, no scale, no center", (12, 5), {"activation": "relu", "scale": False, "center": False}),
    Case("relu, synchronized", (4, 5, 6, 3), {"activation": "relu", "synchronized": True}),
    Case("relu6, channels first", (4, 3, 5, 6), {"activation": "relu6", "axis": 1}),
    Case("leaky relu, renorm", (4, 5, 6, 3), {"activation": "leaky_relu", "renorm": True}),
    Case("sigmoid", (12, 5), {"activation": "sigmoid"}),
    Case("virtual batches", (12, 5), {"virtual_batch_size": 4}),
    Case("virtual batches, remainder", (7, 5, 3), {"virtual_batch_size": 3}),
    Case("virtual batches, larger than the batch", (5, 4, 3), {"virtual_batch_size": 8}),
    Case("virtual batches, channels first", (6, 3, 4, 5), {"virtual_batch_size": 2, "axis": 1}),
    Case("virtual batches, per activation", (6, 3, 4), {"virtual_batch_size": 3, "axis": (1, 2)}),
    Case("virtual batches, mask", (6, 4, 5), {"virtual_batch_size": 4}, masked=True),
    Case("virtual batches, renorm", (8, 4, 5), {"virtual_batch_size": 4, "renorm": True}),
    Case("virtual batches, relu", (7, 4, 5), {"virtual_batch_size": 4, "activation": "relu"}),
    Case(
        "virtual batches, cumulative, unbiased, no scale",
        (8, 4, 5),
        {"virtual_batch_size": 2, "momentum": None, "unbiased": True, "scale": False},
    ),
]

_CORE = (
    "dense",
    "image",
    "float64",
    "mask, channels first",
    "renorm, mask",
    "per activation, mask",
    "unbiased",
    "cumulative, mask, renorm",
    "mask, synchronized",
    "synchronized in groups",
    "relu, synchronized",
    "virtual batches, mask",
    "virtual batches, cumulative, unbiased, no scale",
)

#: One of each kind, for qualities that take seconds to test.
CORE = [case for case in CASES if case.name in _CORE]
