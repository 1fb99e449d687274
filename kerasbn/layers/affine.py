"""One factor and one offset a channel: what is left of batch normalization in a network that only infers."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasbn.layers import arguments


@keras.saving.register_keras_serializable("kerasbn")
class Affine(keras.layers.Layer):
    """Multiplies each channel by a number and adds another: ``y = a * x + b``, line 11 of Alg. 2.

        y = scale * x + offset                 with `center=False`
        y = scale * (x - mean) + offset        with `center=True`

    `kerasbn.fold` leaves it where a batch normalization has no linear layer to go into. The second form is for channels
    whose mean is many standard deviations from 0: there ``scale * x`` and `offset` are large numbers of opposite sign,
    and their sum has lost digits that `y` had. Computed in float32 at least.

    Args:
        axis: Integer, the axis that has a number for each of its places (the channels), or a sequence of integers.
            The weights have those sizes, in ascending order of the axes.
        center: Whether there is a `mean` to subtract first.
        **kwargs: Those of `keras.layers.Layer`: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Floating-point tensor of rank 2 or more. Integers are taken as float32.

    Returns:
        Tensor of the shape of `inputs` in the layer's compute dtype.

    Raises:
        ValueError: If `axis` is out of range, named twice or of unknown size in the input.
        TypeError: If `axis` is not made of integers.

    Example:
    >>> import numpy as np
    >>> layer = Affine()
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([2.0, -1.0]), np.array([0.0, 10.0])])
    >>> layer(tf.constant([[1.0, 1.0], [2.0, 3.0]])).numpy().tolist()
    [[2.0, 9.0], [4.0, 7.0]]

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Alg. 2, line 11.
    """

    def __init__(self, axis: int | Sequence[int] = -1, center: bool = False, **kwargs: Any) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__(**kwargs)
        self.axis = arguments.parse_axis(axis)
        self.center = center
        self.supports_masking = True

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the weights: scale, offset, and mean if there is one."""
        sizes = arguments.kept_sizes(self.axis, input_shape)
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape), axes=sizes)
        self._broadcast_shape = tuple(sizes.get(axis, 1) for axis in range(len(input_shape)))
        dtype = keras.backend.result_type(self.variable_dtype, "float32")

        def weight(name, initializer):
            shape = tuple(sizes.values())
            return self.add_weight(shape=shape, name=name, initializer=initializer, dtype=dtype, autocast=False)

        self.scale = weight("scale", "ones")
        self.offset = weight("offset", "zeros")
        self.mean = weight("mean", "zeros") if self.center else None

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """The shape of the input."""
        return input_shape

    def call(self, inputs: Any) -> tf.Tensor:
        """Scales and shifts `inputs`; see the class."""
        x = arguments.parse_inputs(inputs, keras.backend.result_type(self.compute_dtype, "float32"))
        x = tf.cast(x, keras.backend.result_type(x.dtype, "float32"))

        def vector(weight):
            return tf.reshape(tf.cast(weight, x.dtype), self._broadcast_shape)

        if self.center:
            x -= vector(self.mean)
        return tf.cast(x * vector(self.scale) + vector(self.offset), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "axis": self.axis, "center": self.center}
