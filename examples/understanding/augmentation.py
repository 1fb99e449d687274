"""What is done to training images of CIFAR-10: the mirroring and shifting of He et al. (2016), Sec. 4.2."""

from typing import Any

import tensorflow as tf

MARGIN = 4


def mirror_and_shift(images: Any, seed: Any) -> Any:
    """Mirrors every other image and shifts each by up to four pixels in both directions.

    Args:
        images: Tensor ``[images, height, width, channels]``.
        seed: Two integers, from which follows what becomes of each image.

    Returns:
        Images of the same shape, with 0.5, grey, which is the network's 0, where there was nothing.
    """
    n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    mirrored = tf.random.stateless_uniform([n, 1, 1, 1], seed) < 0.5
    images = tf.where(mirrored, tf.reverse(images, [2]), images)
    margin = [MARGIN, MARGIN]
    images = tf.pad(images, [[0, 0], margin, margin, [0, 0]], constant_values=0.5)
    # Another stream than that of the mirroring, which has the seeds that are not negative.
    first = tf.random.stateless_uniform([n, 2], -1 - seed, 0, 2 * MARGIN + 1, tf.int32)
    images = tf.gather(images, first[:, :1] + tf.range(height), axis=1, batch_dims=1)
    return tf.gather(images, first[:, 1:] + tf.range(width), axis=2, batch_dims=1)
