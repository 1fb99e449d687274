"""What a mask means to an elementwise formula. `None` is the mask that is `True` everywhere, at no cost."""

import tensorflow as tf


def select(mask: tf.Tensor | None, x: tf.Tensor) -> tf.Tensor:
    """`x` where the mask is `True`, 0 elsewhere, also where `x` is NaN."""
    return x if mask is None else tf.where(mask, x, tf.zeros([], x.dtype))


def select_finite(
    x: tf.Tensor, mask: tf.Tensor | None, value: tf.Tensor, otherwise: tf.Tensor | float = 0.0
) -> tf.Tensor:
    """`value`, but `otherwise` where `x` is masked and not finite."""
    if mask is None:
        return value
    return tf.where(mask | tf.math.is_finite(x), value, tf.cast(otherwise, value.dtype))
