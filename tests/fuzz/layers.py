"""Layers of any settings, called on batches of any shape, dtype and mask."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from kerasbn import BatchNorm
from tests import reference
from tests.cases import Case

HALF = ("float16", "bfloat16")
POLICIES = ("float32", "float64", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")

#: Few, where each is compiled.
FEW_SHAPES = ((6, 5), (4, 3, 5), (5, 2, 3, 4), (4, 16))


@dataclass(frozen=True)
class Drawn(Case):
    """A layer and what it is called with; `dtype` is the layer's policy.

    Attributes:
        mask_kind: `None`, "some" (positions are out), "all" are, "rows" (of size 1 but along the batch).
        spoiled: Whether what is masked is NaN or infinite.
        bad: Whether a value that counts is NaN.
        mean: Of the values, in standard deviations.
        scale: The standard deviation.
        constant: Whether all values are equal.
        wide: Whether the input comes in float32 whatever the layer computes in.
        seed: Of the values.
    """

    mask_kind: str | None = None
    spoiled: bool = False
    bad: bool = False
    mean: float = 0.0
    scale: float = 1.0
    constant: bool = False
    wide: bool = False
    seed: int = 0

    @property
    def compute_dtype(self) -> str:
        return self.dtype.removeprefix("mixed_")

    @property
    def input_dtype(self) -> str:
        return "float32" if self.wide else self.compute_dtype

    @property
    def random(self):
        return np.random.default_rng(self.seed)

    @cached_property
    def x(self) -> np.ndarray:
        """In float64, of values that the dtype has."""
        spread = 0 if self.constant else self.random.normal(size=self.shape)
        x = in_dtype((np.zeros(self.shape) + spread + self.mean) * self.scale, self.compute_dtype)
        if self.spoiled:
            bad = self.random.choice([np.nan, np.inf, -np.inf], self.shape)
            x = np.where(np.broadcast_to(self.mask, self.shape[:-1])[..., None], x, bad)
        if self.bad and x.size:
            x.flat[self.random.integers(x.size)] = np.nan
        return x

    @cached_property
    def dy(self) -> np.ndarray:
        return in_dtype(np.random.default_rng(self.seed + 1).normal(size=self.shape), self.compute_dtype)

    @cached_property
    def mask(self) -> np.ndarray | None:
        positions = self.shape[:-1]
        if self.mask_kind == "rows":
            positions = (self.shape[0], *(1 for _ in positions[1:]))
        random = np.random.default_rng(self.seed + 2).random(positions)
        return {None: None, "all": random < 0}.get(self.mask_kind, random < 0.65)

    def layer(self, layer_class=BatchNorm, dtype=None, **settings) -> keras.layers.Layer:
        """As of any case; with factors of both signs, some of them 0."""
        layer = super().layer(layer_class, dtype, **settings)
        random = np.random.default_rng(self.seed + 3)
        for weight in (layer.gamma, layer.beta, layer.moving_mean):
            if weight is not None:
                weight.assign(random.choice([-1, 0, 1, 1], weight.shape) * np.abs(random.normal(size=weight.shape)))
        return layer

    def vector(self, weight) -> np.ndarray:
        return super().vector(tf.cast(weight, "float64"))

    def tensors(self, dy) -> list[tf.Tensor]:
        """x, dy and the mask, if there is one, as the layer gets them."""
        tensors = [tf.cast(self.x, self.input_dtype), tf.cast(dy, self.compute_dtype)]
        return tensors if self.mask is None else [*tensors, tf.constant(self.mask)]


def in_dtype(x: np.ndarray, dtype: str) -> np.ndarray:
    """`x` rounded to a dtype, in float64."""
    return np.array(tf.cast(tf.cast(x, dtype), "float64"))


def shapes(draw) -> tuple[int, ...]:
    """Of any rank, with few values; sometimes a batch of one row, or of none."""
    batch = draw(st.sampled_from([1, 0, 2, 3, 4, 5, 7, 8, 9, 33]))
    return (batch, *draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))


CLIPPING = st.fixed_dictionaries(
    {},
    optional={
        "rmax": st.sampled_from([1.0, 1.5, 3.0]),
        "rmin": st.sampled_from([0.0, 0.5, 1.0]),
        "dmax": st.sampled_from([0.0, 0.5, 5.0]),
    },
)


@st.composite
def layer_cases(draw, few_shapes: bool = False, of_keras: bool = False) -> Drawn:
    """Any case.

    Args:
        few_shapes: Whether shapes are those of `FEW_SHAPES`, as each is compiled.
        of_keras: Whether Keras has the layer, too, and is right there: not where all is masked or a batch is empty, not
            at means that are large next to the deviations from them, not where a value is NaN under a mask or there is
            one channel under it, not in pure half precision (docs/layer.md, differences from Keras's layer). It takes
            masks of the full shape only.
    """
    shape = draw(st.sampled_from(FEW_SHAPES)) if few_shapes else shapes(draw)
    rank = len(shape)
    keepable = range(rank) if shape[0] else range(1, rank)  # a layer has no weights of size 0
    if of_keras or draw(st.booleans()):
        axes = [draw(st.sampled_from([rank - 1, rank - 1, *keepable]))]
    else:
        axes = draw(st.lists(st.sampled_from(keepable), min_size=1, max_size=rank - 1, unique=True))
    signed = [a - draw(st.sampled_from([0, rank])) for a in axes]
    flag = lambda: draw(st.booleans())  # noqa: E731
    settings = {
        "axis": signed[0] if of_keras or (len(signed) == 1 and flag()) else signed,
        "momentum": draw(st.sampled_from([0.99, 0.0, 0.5, 1.0] + [None] * (not of_keras))),
        "epsilon": draw(st.sampled_from([1e-3, 1.0] if of_keras else [1e-3, 1e-5, 0.1, 1.0])),
        "center": flag(),
        "scale": flag(),
    }
    if draw(st.sampled_from([False, False, True])):
        clipping = draw(st.none() | CLIPPING)
        if clipping and clipping.get("rmin", 0) > clipping.get("rmax", np.inf):
            del clipping["rmin"]
        settings |= {"renorm": True, "renorm_clipping": clipping, "renorm_momentum": draw(st.sampled_from([0.9, 0.0]))}
    if not of_keras:
        settings |= {"unbiased": flag(), "activation": draw(st.sampled_from(list(reference.ACTIVATIONS)))}
        grouping = draw(st.sampled_from(["whole", "whole", "virtual", "synchronized"]))
        if grouping == "virtual" and 0 not in axes:
            settings["virtual_batch_size"] = draw(st.integers(1, 5))
        elif grouping == "synchronized":  # of one replica; several are in tests/conformance/test_distributed.py
            settings |= {"synchronized": True, "sync_group_size": draw(st.sampled_from([None, 1]))}
    policy = draw(st.sampled_from([p for p in POLICIES if not of_keras or p not in HALF]))
    if policy == "float64" and settings.get("activation") == "leaky_relu":
        settings["activation"] = "relu"  # TensorFlow has the slope of leaky ReLU in float32 only
    half = policy.endswith(HALF)
    mask_kinds = [None, None, "some"] + ["rows", "all"] * (not of_keras)
    mask_kind = None if of_keras and shape[axes[0]] == 1 else draw(st.sampled_from(mask_kinds))
    # In half precision, what is larger or smaller is rounded away before the layer sees it.
    means = [0.0, 1.0, -5.0] if half or of_keras else [0.0, 1.0, -5.0, 1e3] + [1e5] * (policy == "float32")
    case = Drawn(
        "drawn",
        shape,
        settings,
        dtype=policy,
        mask_kind=mask_kind,
        spoiled=not of_keras and mask_kind is not None and flag(),
        mean=draw(st.sampled_from(means)),
        scale=draw(st.sampled_from([1.0, 2.0] if half else [1.0, 1e-2] + [1e3] * (not of_keras))),
        constant=draw(st.sampled_from([False] * 7 + [not of_keras])),
        wide=half and flag(),
        seed=draw(st.integers(0, 2**16)),
    )
    if of_keras and (0 in shape or (mask_kind and not _each_counts(case))):
        case = dataclasses.replace(case, shape=(max(shape[0], 1), *shape[1:]), mask_kind=None)
    return case


def _each_counts(case: Drawn) -> bool:
    """Whether each channel has a value that the mask counts."""
    counts = np.broadcast_to(case.mask[..., None], case.shape).sum(case.axes)
    return bool((counts > 0).all())
