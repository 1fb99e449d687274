"""Gradients of kernels, their terms, and the gradient at the outputs."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from examples.understanding.initial_layers import layer_name, layers_by_depth, middle, table_layers
from examples.understanding.initial_numbers import significant
from kerasbn.monitors import Gradients

BINS = 61
#: Parts of the entries of a kernel's gradient that are smaller than what is written down, for its tail.
PARTS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def gradients(model: keras.Model, images: np.ndarray, labels: np.ndarray, depth: int) -> dict[str, Any]:
    """The gradients of the mean loss of a batch with respect to the kernels of some layers.

    Returns:
        `kurtosis` and `norm` by depth, the `histogram` of the layer in the `middle`, and the sums of `terms`.
    """
    numbers = {*layers_by_depth(depth), *table_layers(depth), middle(depth)}
    layers = {number: model.get_layer(layer_name(number)) for number in sorted(numbers)}
    ends = {number: (layer.input, layer.output) for number, layer in layers.items()}
    part = keras.Model(model.input, [list(ends.values()), model.output])
    with tf.GradientTape() as tape:
        found, outputs = part(tf.constant(images), training=True)
        loss = loss_of(labels, outputs)
    kernels = [layer.kernel.value for layer in layers.values()]
    of_kernels, of_outputs = tape.gradient(loss, [kernels, [output for _, output in found]])
    each = {
        number: Gradients.of([kernel.numpy()], output.numpy())
        for number, kernel, output in zip(layers, of_kernels, of_outputs, strict=True)
    }
    inputs = dict(zip(layers, (source for source, _ in found), strict=True))
    deltas = dict(zip(layers, of_outputs, strict=True))
    by_depth, in_table = layers_by_depth(depth), table_layers(depth)
    return {
        "layers": by_depth,
        "kurtosis": [significant(each[number].kurtosis) for number in by_depth],
        "norm": [significant(each[number].norm) for number in by_depth],
        "middle": {"layer": middle(depth), **histogram(each[middle(depth)])},
        "terms": [{"layer": n, **terms(layers[n], inputs[n], deltas[n])} for n in in_table],
    }


def histogram(found: Gradients) -> dict[str, Any]:
    """The entries of a gradient: their root mean square, and counts in `BINS` equal bins between plus and minus `max`.

    `tail` are quantiles of their absolute values at `PARTS`, divided by the root mean square.
    """
    size = np.abs(found.values)
    rms, largest = float(np.sqrt(np.mean(size**2))), float(size.max())
    counts, _ = np.histogram(found.values, BINS, (-largest, largest))
    return {
        "rms": significant(rms),
        "max": significant(largest),
        "kurtosis": significant(found.kurtosis),
        "tail": significant(np.quantile(size, PARTS) / rms, 3),
        "counts": counts.tolist(),
    }


def terms(layer: keras.layers.Conv2D, inputs: tf.Tensor, deltas: tf.Tensor) -> dict[str, float]:
    """How the terms ``d_bxy`` of a kernel's gradient add up, each a mean over the entries of the kernel.

    An entry's gradient is the sum over examples b and positions x, y of ``d_bxy = delta_bxy input_b(x+i)(y+j)``, where
    delta is the gradient at the output.

    Args:
        layer: The convolution, with padding `"same"`.
        inputs: What it got, ``[examples, height, width, channels]``.
        deltas: The gradient of the loss with respect to what it gave.

    Returns:
        `absolute`: ``sum_bxy |d_bxy|``; `by_example`: ``sum_b |sum_xy d_bxy|``; `summed`: ``|sum_bxy d_bxy|``.
    """

    def total(inputs: tf.Tensor, deltas: tf.Tensor) -> tf.Tensor:
        kernel = tf.zeros(layer.kernel.shape, inputs.dtype)
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            outputs = tf.nn.conv2d(inputs, kernel, layer.strides, "SAME")
        return tape.gradient(outputs, kernel, output_gradients=deltas)

    by_example = sum(tf.abs(total(inputs[b : b + 1], deltas[b : b + 1])) for b in range(inputs.shape[0]))
    sums = {
        "absolute": total(tf.abs(inputs), tf.abs(deltas)),
        "by_example": by_example,
        "summed": tf.abs(total(inputs, deltas)),
    }
    return {name: significant(np.mean(value.numpy(), dtype="float64")) for name, value in sums.items()}


def at_outputs(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the softmax gets, and the gradient of the mean loss with respect to it, both ``[images, classes]``."""
    outputs = model(tf.constant(images), training=True)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = loss_of(labels, outputs)
    return outputs.numpy(), tape.gradient(loss, outputs).numpy()


def one_sidedness(outputs: np.ndarray, gradient: np.ndarray) -> dict[str, float]:
    """How far the gradient at the outputs is the same for all images.

    Returns:
        `coherence`: ``sum_c |sum_b g_bc| / sum_bc |g_bc|``, 1 if all images pull each class one way;
        `largest_class`: the part of ``sum_bc |g_bc|`` that the class with the most of it has: 1/10 if all have as
        much, at most 1/2, as the entries of an image sum to 0;
        `same_prediction`: the part of images that are taken for the class that most are taken for.
    """
    found = Gradients.of([], gradient)
    taken_for = np.bincount(np.argmax(outputs, 1))
    return {
        "coherence": significant(np.abs(found.sums).sum() / found.absolute_sums.sum()),
        "largest_class": significant(found.absolute_sums.max() / found.absolute_sums.sum()),
        "same_prediction": significant(taken_for.max() / len(outputs)),
    }
