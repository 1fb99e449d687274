"""A batch normalization in inference: an affine map with the statistics of training."""

import copy
from typing import Any

import keras
import numpy as np

from kerasbn.layers.affine import Affine
from kerasbn.layers.arguments import resolve_axis
from kerasbn.layers.batch_norm import BatchNorm
from kerasbn.transforms.affine_map import AffineMap, Refused
from kerasbn.transforms.clone import inner_layer
from kerasbn.transforms.linear_layers import float64

#: How large ``scale * mean`` may be, in units of the result, without the mean being subtracted first: in float32 each
#: unit costs 6e-8 of precision.
FAR = 100.0


def is_normalization(layer: Any) -> bool:
    """Whether `layer` is Keras's or kerasbn's, or of a class derived from them that computes the same."""
    calls = (keras.layers.BatchNormalization.call, BatchNorm.call)
    inner = inner_layer(layer)
    return isinstance(inner, keras.layers.BatchNormalization) and type(inner).call in calls


class Normalization:
    """What a batch normalization computes in inference, ``gamma * (x - mean) / sqrt(variance + epsilon) + beta``.

    Attributes:
        layer: The layer in the model.
        inner: The normalization: `layer`, or what is in it if it is a `TimeDistributed`.
        affine: What it computes, before its activation.
    """

    def __init__(self, layer: keras.layers.Layer) -> None:
        """Reads the weights of `layer`.

        Raises:
            ValueError: If it has none yet.
        """
        self.layer, self.inner = layer, inner_layer(layer)
        if not self.inner.built:
            raise ValueError(
                f"The model must be built: the statistics of its normalizations are folded. Received: {layer.name!r}, "
                "which has none. Give the model a keras.Input, or call it on a batch of data."
            )
        rank = self.inner.input_spec.ndim
        outside = int(self.inner is not layer)  # time, which TimeDistributed takes away
        kept = resolve_axis(self.inner.axis, (None,) * rank)
        self._axes = [axis + outside if axis else axis for axis in kept]
        shape = [1] * (rank + outside)
        for axis, size in zip(self._axes, self.inner.moving_mean.shape, strict=True):
            shape[axis] = size

        def vector(weight: Any) -> np.ndarray:
            return float64(weight).reshape(shape)

        self._mean = vector(self.inner.moving_mean)
        with np.errstate(divide="ignore", invalid="ignore"):  # statistics that are not finite stay so
            scale = (vector(self.inner.gamma) if self.inner.scale else 1) / np.sqrt(
                vector(self.inner.moving_variance) + self.inner.epsilon
            )
            offset = (vector(self.inner.beta) if self.inner.center else 0) - scale * self._mean
        self.affine = AffineMap.of(scale, offset)

    @property
    def has_activation(self) -> bool:
        """Whether the layer applies a nonlinearity to the result."""
        return getattr(self.inner, "activation", keras.activations.linear) is not keras.activations.linear

    @property
    def is_far(self) -> bool:
        """Whether inputs are so far from 0 that digits are lost unless their mean is subtracted first."""
        return bool((np.abs(self.affine.scale * self._mean) > FAR).any())

    def after(self, affine: AffineMap) -> "Normalization":
        """The normalization with `affine` behind it. Raises Refused if its activation is between the two."""
        if self.has_activation:
            raise Refused(f"{self.layer.name} has an activation")
        return self._with(self.affine.then(affine), self._mean)

    def before(self, affine: AffineMap) -> "Normalization":
        """The normalization with `affine` in front of it, whose results have another mean than its inputs."""
        return self._with(affine.then(self.affine), np.zeros_like(self._mean))

    def check_goes_forward(self) -> None:
        """Raises Refused if the layers behind cannot do what it does, whatever they are."""
        if self.has_activation:
            raise Refused("its own activation is behind it")
        if self.is_far:
            raise Refused("its input is so far from 0 that digits would be lost behind it")

    def as_layer(self, name: str) -> Affine:
        """A layer that takes the weights, built."""
        sizes = self.affine.scale.shape
        axes = [axis for axis, size in enumerate(sizes) if axis in self._axes or size > 1]
        layer = Affine(axes[0] if len(axes) == 1 else axes, self.is_far, name=name, dtype=self.inner.dtype_policy)
        layer.build([size if axis in axes else None for axis, size in enumerate(sizes)])
        return layer

    def assign_to(self, layer: Affine) -> None:
        """Gives `layer`, which `as_layer` made, the weights."""
        scale, offset = self.affine.scale, self.affine.offset
        weights = {"scale": scale, "offset": offset}
        if layer.center:
            weights |= {"offset": offset + scale * self._mean, "mean": self._mean}
        for name, value in weights.items():
            variable = getattr(layer, name)
            variable.assign(np.broadcast_to(value, scale.shape).reshape(variable.shape))

    def _with(self, affine: AffineMap, mean: np.ndarray) -> "Normalization":
        new = copy.copy(self)
        new.affine, new._mean = affine, mean
        return new
