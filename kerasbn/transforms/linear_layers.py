"""Linear layers that take in an affine map, of their result or of their input, by having other weights."""

import copy
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from kerasbn.transforms.affine_map import AffineMap, Refused
from kerasbn.transforms.affine_passing import channel_axis
from kerasbn.transforms.clone import inner_layer

#: How much of its largest value a weight may lose to rounding. bfloat16 takes 0.4 %; float16 loses more where a folded
#: weight is too large for it, or so small that it has few bits left.
ROUNDING = 0.01


class Linear:
    """The weights of a linear layer in float64, and what they become."""

    #: The attributes that the layer keeps its kernels in.
    kernels: tuple[str, ...] = ("kernel",)

    def __init__(self, layer: keras.layers.Layer) -> None:
        """Reads the weights of `layer`.

        Raises:
            Refused: If they are not what the layer computes with.
        """
        self.layer = layer
        self.inner = inner_layer(layer)
        if getattr(self.inner, "quantization_mode", None) or getattr(self.inner, "lora_enabled", False):
            raise Refused(f"{layer.name} is quantized or has a low-rank adapter")
        self.weights = {name: float64(getattr(self.inner, name)) for name in self.kernels}
        if self.inner.bias is not None:
            self.weights["bias"] = float64(self.inner.bias)
        # Where the channels are, in the tensors of `layer`: with those of TimeDistributed an axis further.
        axis = channel_axis(self.inner)
        self.axis = axis if axis == -1 else axis + (self.inner is not layer)

    def after(self, affine: AffineMap) -> "Linear":
        """The layer whose result is `affine` of what it was.

        Raises:
            Refused: If there is none.
        """
        if self.inner.activation is not keras.activations.linear:
            raise Refused(f"{self.layer.name} has an activation")
        return self._after(affine)

    def before(self, affine: AffineMap) -> "Linear":
        """The layer whose result for `x` is what it was for `affine` of `x`.

        Raises:
            Refused: If there is none.
        """
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The configuration of such a layer, without penalties and constraints: they were on other weights."""
        config = self.layer.get_config()
        inner = config if self.inner is self.layer else config["layer"]["config"]
        inner.update({name: None for name in inner if name.endswith(("_regularizer", "_constraint"))})
        inner.update(self._bias_config())
        return config

    def assign_to(self, layer: keras.layers.Layer) -> None:
        """Gives `layer`, which was made from `config`, the weights."""
        for name, value in self.weights.items():
            variable = getattr(inner_layer(layer), name)
            variable.assign(np.broadcast_to(value, variable.shape))

    def changes(self) -> list[tuple[str, Any, Any]]:
        """What has another value in `config` than it had before, penalties and constraints left aside."""
        return [("use_bias", False, True)] if self.inner.bias is None and "bias" in self.weights else []

    @property
    def bias(self) -> np.ndarray:
        """The bias, 0 where there is none."""
        return self.weights.get("bias", np.zeros(()))

    def _after(self, affine: AffineMap) -> "Linear":
        raise NotImplementedError

    def _bias_config(self) -> dict[str, Any]:
        return {"use_bias": "bias" in self.weights}

    def _with(self, **weights: np.ndarray) -> Self:
        """This layer with other weights, if they fit into its numbers; with a bias if it needs one."""
        if "bias" not in self.weights and not weights["bias"].any():
            del weights["bias"]
        for value in weights.values():
            with np.errstate(invalid="ignore"):  # statistics that are not finite stay so
                lost = np.abs(tf.cast(value, self.inner.compute_dtype).numpy().astype("float64") - value)
            if (lost > ROUNDING * np.abs(value).max(initial=0)).any():
                raise Refused(
                    f"{self.layer.name} computes in {self.inner.compute_dtype}, too coarse for what it would be"
                )
        new = copy.copy(self)
        new.weights = self.weights | weights
        return new

    def _check_padding(self, offset: np.ndarray) -> None:
        """A kernel that reaches over the border sees zeros there, not `offset`."""
        wide = any(size > 1 for size in getattr(self.inner, "kernel_size", ()))
        if offset.any() and wide and self.inner.padding != "valid":
            raise Refused(f"{self.layer.name} pads with zeros, which an offset would have to move")


class _Convolution(Linear):
    """`Dense`, which is a convolution of no axes, and `Conv*`: kernels ``[..., inputs of a group, outputs]``."""

    def _after(self, affine: AffineMap) -> Linear:
        kernel = self.weights["kernel"]
        scale, offset = affine.channels(self.axis, kernel.shape[-1])
        return self._with(kernel=kernel * scale, bias=self.bias * scale + offset)

    def before(self, affine: AffineMap) -> Linear:
        kernel, groups = self.weights["kernel"], getattr(self.inner, "groups", 1)
        inputs, outputs = kernel.shape[-2:]
        scale, offset = affine.channels(self.axis, inputs * groups)
        self._check_padding(offset)
        # Which channel a number of the kernel is multiplied with.
        channel = np.arange(inputs)[:, None] + inputs * (np.arange(outputs) // (outputs // groups))
        constant = (kernel * offset[channel]).reshape(-1, outputs).sum(0)
        return self._with(kernel=kernel * scale[channel], bias=self.bias + constant)


class _TransposedConvolution(Linear):
    """`Conv*Transpose`: kernels ``[..., outputs, inputs]``."""

    def _after(self, affine: AffineMap) -> Linear:
        kernel = self.weights["kernel"]
        scale, offset = affine.channels(self.axis, kernel.shape[-2])
        return self._with(kernel=kernel * scale[:, None], bias=self.bias * scale + offset)

    def before(self, affine: AffineMap) -> Linear:
        kernel = self.weights["kernel"]
        outputs, inputs = kernel.shape[-2:]
        scale, offset = affine.channels(self.axis, inputs)
        if offset.any() and any(size > 1 for size in (*self.inner.kernel_size, *self.inner.strides)):
            raise Refused(f"{self.layer.name} adds up more values here than there, and as many offsets")
        constant = (kernel * offset).reshape(-1, outputs, inputs).sum((0, 2))
        return self._with(kernel=kernel * scale, bias=self.bias + constant)


class _DepthwiseConvolution(Linear):
    """`DepthwiseConv*`: kernels ``[..., inputs, outputs of an input]``."""

    def _after(self, affine: AffineMap) -> Linear:
        kernel = self.weights["kernel"]
        inputs, multiplier = kernel.shape[-2:]
        scale, offset = affine.channels(self.axis, inputs * multiplier)
        return self._with(kernel=kernel * scale.reshape(inputs, multiplier), bias=self.bias * scale + offset)

    def before(self, affine: AffineMap) -> Linear:
        kernel = self.weights["kernel"]
        inputs, multiplier = kernel.shape[-2:]
        scale, offset = affine.channels(self.axis, inputs)
        self._check_padding(offset)
        constant = (kernel * offset[:, None]).reshape(-1, inputs * multiplier).sum(0)
        return self._with(kernel=kernel * scale[:, None], bias=self.bias + constant)


class _SeparableConvolution(Linear):
    """`SeparableConv*`: a depthwise kernel, and one of size 1 with the bias behind it."""

    kernels = ("depthwise_kernel", "pointwise_kernel")

    def _after(self, affine: AffineMap) -> Linear:
        kernel = self.weights["pointwise_kernel"]
        scale, offset = affine.channels(self.axis, kernel.shape[-1])
        return self._with(pointwise_kernel=kernel * scale, bias=self.bias * scale + offset)

    def before(self, affine: AffineMap) -> Linear:
        kernel, pointwise = (self.weights[name] for name in self.kernels)
        inputs, multiplier = kernel.shape[-2:]
        scale, offset = affine.channels(self.axis, inputs)
        self._check_padding(offset)
        between = (kernel * offset[:, None]).reshape(-1, inputs * multiplier).sum(0)
        constant = between @ pointwise.reshape(inputs * multiplier, -1)
        return self._with(depthwise_kernel=kernel * scale[:, None], bias=self.bias + constant)


class _Einsum(Linear):
    """`EinsumDense`: a kernel with a letter for each axis."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__(layer)
        left, self._result = self.inner.equation.replace("...", ".").split("->")
        self._input, self._kernel = left.split(",")
        self._bias_axes = self.inner.bias_axes or ""
        if self._input.endswith("."):
            raise Refused(f"{layer.name} has the equation {self.inner.equation!r}")

    def _after(self, affine: AffineMap) -> Linear:
        letters = self._letters(affine, self._result)
        kernel = np.einsum(f"{self._kernel},{letters}->{self._kernel}", self.weights["kernel"], affine.scale.squeeze())
        return self._with_bias(kernel, self.bias * affine.scale + affine.offset)

    def before(self, affine: AffineMap) -> Linear:
        if set(self._input[1:]) - set(self._kernel) - set(self._result):
            raise Refused(f"{self.layer.name} has the equation {self.inner.equation!r}")
        letters, kernel = self._letters(affine, self._input), self.weights["kernel"]
        of_result = "".join(letter for letter in self._result if letter in self._kernel)
        constant = np.einsum(f"{self._kernel},{letters}->{of_result}", kernel, affine.offset.squeeze())
        shape = [constant.shape[of_result.index(letter)] if letter in of_result else 1 for letter in self._result]
        kernel = np.einsum(f"{self._kernel},{letters}->{self._kernel}", kernel, affine.scale.squeeze())
        return self._with_bias(kernel, self.bias + constant.reshape(shape))

    def _letters(self, affine: AffineMap, axes: str) -> str:
        """The letters of the axes along which `affine` is not the same everywhere."""
        axes = axes.rjust(affine.values.ndim - 1, ".")[-(affine.values.ndim - 1) :]
        letters = "".join(axis for axis, size in zip(axes, affine.values.shape[1:], strict=True) if size > 1)
        if set(letters) - set(self._kernel):
            raise Refused("it differs from place to place within a channel")
        return letters

    def _with_bias(self, kernel: np.ndarray, bias: np.ndarray) -> Linear:
        """With a bias of the rank of the result, or lower: kept from the first axis on along which it differs."""
        sizes = dict(zip(reversed(self._result), reversed(bias.shape), strict=False))
        axes = "".join(a for a in self._result if a in self._bias_axes or sizes.get(a, 1) > 1) or self._result[-1]
        if self._bias_axes and set(self._bias_axes) != set(axes):
            raise Refused(f"{self.layer.name} has a bias along {self._bias_axes} only")
        rank = len(self._result) - self._result.index(axes[0])
        new = self._with(kernel=kernel, bias=bias.reshape(bias.shape[bias.ndim - rank :]))
        new._bias_axes = axes if "bias" in new.weights else ""
        return new

    def _bias_config(self) -> dict[str, Any]:
        return {"bias_axes": self._bias_axes or None}


KINDS: dict[type, type[Linear]] = {
    keras.layers.Dense: _Convolution,
    keras.layers.Conv1D: _Convolution,
    keras.layers.Conv2D: _Convolution,
    keras.layers.Conv3D: _Convolution,
    keras.layers.Conv1DTranspose: _TransposedConvolution,
    keras.layers.Conv2DTranspose: _TransposedConvolution,
    keras.layers.Conv3DTranspose: _TransposedConvolution,
    keras.layers.DepthwiseConv1D: _DepthwiseConvolution,
    keras.layers.DepthwiseConv2D: _DepthwiseConvolution,
    keras.layers.SeparableConv1D: _SeparableConvolution,
    keras.layers.SeparableConv2D: _SeparableConvolution,
    keras.layers.EinsumDense: _Einsum,
}


def is_linear(layer: Any) -> bool:
    """Whether `layer` is one of these. A class derived from one of Keras's may compute anything."""
    return type(inner_layer(layer)) in KINDS


def linear(layer: keras.layers.Layer) -> Linear:
    """What is known of a layer that `is_linear`. Raises Refused if its weights are not what it computes with."""
    return KINDS[type(inner_layer(layer))](layer)


def float64(variable: Any) -> np.ndarray:
    """The value of a variable."""
    return np.asarray(variable.numpy()).astype("float64")
