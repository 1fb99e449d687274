"""bfloat16 by operations on words: XLA:CPU makes vector code of these, and twice as slow code of its conversions.

A bfloat16 is the upper half of a float32.
"""

import tensorflow as tf


def narrow(x: tf.Tensor, dtype: str | tf.DType, *, on_cpu: bool, jit_compile: bool) -> tf.Tensor:
    """`x` in `dtype`, as `tf.cast` rounds it: to the nearest, ties to even, NaN to NaN."""
    if not (on_cpu and jit_compile and x.dtype == "float32" and dtype == "bfloat16"):
        return tf.cast(x, dtype)
    word = tf.bitcast(x, "uint32")
    even = tf.bitwise.bitwise_and(tf.bitwise.right_shift(word, _word(16)), _word(1))
    # Rounding up must not carry a NaN over into the sign.
    word = tf.where(tf.math.is_nan(x), _word(0x7FC00000), word + _word(0x7FFF) + even)
    return tf.bitcast(tf.cast(tf.bitwise.right_shift(word, _word(16)), "uint16"), "bfloat16")


def halves(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The numbers at even and at odd positions along the last axis of what `words` returned, as float32."""
    first, second = tf.bitwise.left_shift(x, _word(16)), tf.bitwise.bitwise_and(x, _word(0xFFFF0000))
    return tf.bitcast(first, "float32"), tf.bitcast(second, "float32")


def words(x: tf.Tensor) -> tf.Tensor:
    """Two neighbours along the last axis, of even size, as one word. No copy."""
    shape = tf.shape(x)
    return tf.bitcast(tf.reshape(x, tf.concat([shape[:-1], [shape[-1] // 2, 2]], 0)), "uint32")


def _word(value: int) -> tf.Tensor:
    return tf.constant(value, "uint32")
