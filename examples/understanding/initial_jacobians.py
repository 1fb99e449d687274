"""Singular values: of products of random matrices, and of Jacobians of stacks of dense layers, normalized or not.

A layer goes from one normalized vector to the next, as in Sec. 3.3 of Ioffe & Szegedy (2015): activation, weights
without a bias, normalization. Without normalization it is the same layer, with the same weights, up to its last part.
"""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from examples.understanding.initial_numbers import significant
from kerasbn import BatchNorm

#: The activations, with the variance times inputs of weights that keeps the size of what goes through without
#: normalization.
ACTIVATIONS = {"linear": 1.0, "relu": 2.0}
WEIGHTS = ("gaussian", "orthogonal")
#: What is differentiated: no normalization; each example alone, mean and variance held at those of the batch; or the
#: whole batch, whose mean and variance change with it.
KINDS = ("none", "held", "batch")
#: Ranks, as parts of all from smallest to largest, at which singular values are written down.
RANKS = (0, 0.01, 0.02, 0.05, 0.075, *(i / 20 for i in range(2, 19)), 0.925, 0.95, 0.98, 0.99, 1)
#: A singular value is taken for 0 below this part of the largest.
ZERO = 1e-6
#: So small that what it adds to a variance of about 1 is below `ZERO`.
EPSILON = 1e-9


def random_products(size: int, counts: tuple[int, ...], seed: int) -> dict[int, dict[str, Any]]:
    """Singular values of products of so many matrices, ``[size, size]``, with entries of variance ``1 / size``."""
    rng = np.random.default_rng(seed)
    factors = (rng.normal(scale=size**-0.5, size=(size, size)) for _ in range(max(counts)))
    return _of_products((factor[None] for factor in factors), counts)


def stack_jacobians(
    activation: str, weights: str, width: int, examples: int, counts: tuple[int, ...], seed: int
) -> dict[str, dict[int, dict[str, Any]]]:
    """Singular values of the Jacobians of the first so many layers, for each of `KINDS`, at a batch of Gaussian noise.

    Args:
        activation: One of `ACTIVATIONS`.
        weights: One of `WEIGHTS`.
        width: Number of units of each layer.
        examples: Size of the batch.
        counts: Numbers of layers.
        seed: Of weights and batch.
    """
    plain, held, batch = layer_jacobians(activation, weights, width, examples, max(counts), seed)
    return {kind: _of_products(factors, counts) for kind, factors in zip(KINDS, (plain, held, batch), strict=True)}


def layer_jacobians(
    activation: str, weights: str, width: int, examples: int, layers: int, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """The Jacobians of each layer by `KINDS`.

    Returns:
        Without normalization and with one that is held, ``[examples, width, width]`` each: an example's output by its
        own input, as nothing else has to do with it. Of the batch, ``[1, examples * width, examples * width]``.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, width))
    unnormalized = normalized = tf.constant((x - x.mean(0)) / x.std(0))
    before = keras.Sequential(
        [
            keras.Input((width,), dtype="float64"),
            keras.layers.Activation(activation, dtype="float64"),
            keras.layers.Dense(width, use_bias=False, dtype="float64", name="dense"),
        ]
    )
    normalize = BatchNorm(epsilon=EPSILON, momentum=0.0, dtype="float64")  # its moving moments are the last batch's
    normalize.build((examples, width))
    of_plain = _jacobian(before)
    of_batch = _jacobian(lambda x: normalize(before(x), training=True), of_batch=True)
    of_held = _jacobian(lambda x: normalize(before(x), training=False))
    plain, held, batch = [], [], []
    for layer in range(layers):
        initial = initializer(activation, weights, seed + 1000 * (layer + 1))
        before.get_layer("dense").kernel.assign(initial((width, width), "float64"))
        blocks, unnormalized = of_plain(unnormalized)
        whole, after = of_batch(normalized)
        plain.append(blocks.numpy())
        batch.append(whole.numpy())
        held.append(of_held(normalized)[0].numpy())  # after `of_batch`, which leaves the moments
        normalized = after
    return plain, held, batch


def initializer(activation: str, weights: str, seed: int) -> keras.initializers.Initializer:
    """Of the weights of a layer."""
    gain = ACTIVATIONS[activation]
    if weights == "orthogonal":
        return keras.initializers.Orthogonal(gain=gain**0.5, seed=seed)
    return keras.initializers.VarianceScaling(gain, "fan_in", "untruncated_normal", seed=seed)


def _jacobian(function: Callable[[Any], Any], of_batch: bool = False) -> Callable[[Any], tuple[Any, Any]]:
    """From ``x`` to the Jacobian of `function` and what it gives.

    The Jacobian is that of each example, ``[examples, outputs, inputs]``, or of the batch, with 1 in front.
    """

    @tf.function(autograph=False)
    def call(x: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        if not of_batch:
            return tape.batch_jacobian(y, x), y
        size = x.shape.num_elements()
        return tf.reshape(tape.jacobian(y, x), (1, size, size)), y

    return call


def _of_products(factors: Iterable[np.ndarray], counts: tuple[int, ...]) -> dict[int, dict[str, Any]]:
    found, product = {}, None
    for count, factor in enumerate(factors, 1):
        product = factor if product is None else factor @ product
        if count in counts:
            found[count] = spectrum(np.linalg.svd(product, compute_uv=False).ravel())
    return found


def spectrum(values: np.ndarray) -> dict[str, Any]:
    """Singular values in short.

    Returns:
        `quantiles`: at `RANKS`; `rms`: their root mean square; `zero`: the part of them below `ZERO` of the largest;
        and of the others `low`, `median`, `high`: their quantiles of 5, 50 and 95 %, `near_one`: the part of them
        between 1/2 and 2, `condition`: largest by smallest. Those are `None` if all are 0.
    """
    rest = values[values > ZERO * values.max()]
    low, median, high = np.quantile(rest, (0.05, 0.5, 0.95)) if rest.size else (np.nan,) * 3
    return {
        "quantiles": significant(np.quantile(values, RANKS), 3),
        "rms": significant(np.sqrt(np.mean(values**2))),
        "zero": significant(1 - rest.size / values.size),
        "low": significant(low),
        "median": significant(median),
        "high": significant(high),
        "near_one": significant(np.sum((rest >= 0.5) & (rest <= 2)) / max(1, rest.size)),
        "condition": significant(rest.max() / rest.min()) if rest.size else None,
    }
