"""Local response normalization, as networks had it before batch normalization."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasbn.layers import arguments


@keras.saving.register_keras_serializable("kerasbn")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each value by the energy of its neighbours along the channels, at the same place.

    With `a[c]` the value in channel `c` (Krizhevsky et al. 2012, Sec. 3.3):

        y[c] = a[c] / (bias + alpha * sum(a[j] ** 2 for j in c - depth_radius, ..., c + depth_radius)) ** beta

    where `j` stays among the channels there are. The same as `tf.nn.local_response_normalization`, with its argument
    names, order and defaults, for inputs of any rank and any precision. It has no weights. Batch normalization makes
    it superfluous (Ioffe & Szegedy 2015, Sec. 4.2.1): it is here so that the networks of 2014 can be built, saved, and
    rid of it by `kerasbn.transforms.remove_local_response_normalization`.

    AlexNet has ``depth_radius=2, bias=2, alpha=1e-4, beta=0.75``. Caffe's and PyTorch's `alpha` is divided by the size
    of the window, ``2 * depth_radius + 1``; this one is not.

    Args:
        depth_radius: Integer, not negative: how many channels on each side count, besides the channel itself.
        bias: Float above 0, without unit if `alpha` has that of `1 / a ** 2`: what keeps the divisor from 0.
        alpha: Float, not negative: the weight of the sum of squares.
        beta: Float: the exponent.
        axis: Integer, the axis of the channels: -1, or 1 for channels-first images.
        **kwargs: Those of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        inputs: Floating-point tensor of rank 2 or more. Half precision is widened to float32 for the sums, whose
            squares it could not hold.

    Returns:
        Tensor of the shape of `inputs` in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> x = tf.constant([[1.0, 2.0, 0.0, 3.0]])
    >>> [round(float(y), 3) for y in LocalResponseNormalization(depth_radius=1, beta=1.0)(x)[0]]
    [0.167, 0.333, 0.0, 0.3]

    Reference:
        A. Krizhevsky, I. Sutskever & G. Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012,
        Sec. 3.3.
    """

    def __init__(
        self,
        depth_radius: int = 5,
        bias: float = 1.0,
        alpha: float = 1.0,
        beta: float = 0.5,
        *,
        axis: int = -1,
        **kwargs: Any,
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__(**kwargs)
        self.depth_radius = arguments.count("depth_radius", depth_radius)
        self.bias = arguments.number("bias", bias, 0)
        if self.bias == 0:
            raise ValueError(
                f"Argument `bias` must be above 0, or a channel of zeros is 0 / 0. Received: bias={bias!r}."
            )
        self.alpha = arguments.number("alpha", alpha, 0)
        self.beta = arguments.number("beta", beta, float("-inf"))
        axes = arguments.parse_axis(axis)
        if not isinstance(axes, int):
            raise ValueError(f"Argument `axis` must be one integer, the axis of the channels. Received: axis={axis!r}.")
        self.axis = axes
        self.supports_masking = True
        # Nothing to make: with this, Keras does not look for weights that `build` forgot.
        self.built = True

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """The shape of the input."""
        return input_shape

    def call(self, inputs: Any) -> tf.Tensor:
        """Normalizes `inputs`; see the class."""
        x = arguments.parse_inputs(inputs, self.compute_dtype)
        rank = len(x.shape)
        (axis,) = arguments.resolve_axis(self.axis, x.shape)
        square = tf.square(tf.cast(x, keras.backend.result_type(x.dtype, "float32")))
        # The sum over a window of channels is a product with a band matrix: one matrix product for any radius, where
        # shifted copies would be a pass over memory each.
        channels = tf.shape(x)[axis]
        radius = tf.minimum(self.depth_radius, channels)
        band = tf.linalg.band_part(tf.ones([channels, channels], square.dtype), radius, radius)
        energy = tf.tensordot(square, band, axes=[[axis], [0]])  # the channels are last now
        order = list(range(rank - 1))
        order.insert(axis, rank - 1)
        energy = tf.transpose(energy, order)
        y = tf.cast(x, energy.dtype) * tf.pow(self.bias + self.alpha * energy, -self.beta)
        y.set_shape(x.shape)
        return tf.cast(y, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        settings = {name: getattr(self, name) for name in ("depth_radius", "bias", "alpha", "beta", "axis")}
        return {**super().get_config(), **settings}
