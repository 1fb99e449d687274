"""Batch normalization as one differentiable function of a batch: the passes, and the gradient that they are."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kerasbn.kernels import passes
from kerasbn.kernels.batch_norm import Settings
from kerasbn.kernels.moving_statistics import MovingStatistics, Update
from kerasbn.moments import Moments


def batch_normalize(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    mask: tf.Tensor | None = None,
    moments: Moments | None = None,
    moving: MovingStatistics | None = None,
    *,
    settings: Settings,
    update: Update | None = None,
    parts: int = 1,
    inlined: bool = False,
    jit_compile: bool | tf.Tensor,
    statistics: Callable[[tf.Tensor], Moments],
    over_replicas: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tuple[tf.Tensor, Any]:
    """Normalizes a batch by its moments, with a gradient that knows the moments come from `x`.

    Args:
        x: The batch, collapsed.
        gamma: Scale, a vector.
        beta: Offset, a vector.
        mask: As for `batch_moments`.
        moments: Those of the batch, ``statistics(x)``, where they are known already. They receive no gradient; `x`
            receives theirs. By default they are computed here, in one program with the rest.
        moving: Moving statistics, to be moved by the batch. They receive no gradient.
        settings: What is the same for every batch.
        update: How the moving statistics move.
        parts: In how many parts compiled sums over the batch are computed, side by side.
        inlined: Whether what runs uncompiled is written into the graph (`kernels/shared_trace.py`).
        jit_compile: Whether XLA compiles the kernels; a boolean tensor says so when it runs.
        statistics: ``x -> Moments`` in differentiable operations, used only for derivatives of second and higher order.
        over_replicas: Sums a tensor over all replicas whose batches are in `moments`, if there are several.

    Returns:
        The normalized batch, of the shape of `x`, and the moving statistics after it, `Moved`, if there are some.
    """
    constant = tf.stop_gradient

    def differentiate(x, gamma, beta, dy, *, moments, jit_compile):
        values = (x, mask, dy, moments, gamma, beta)
        run = {"settings": settings, "parts": parts, "inlined": inlined, "jit_compile": jit_compile}
        if over_replicas is None:
            dx, sums = passes.differentiate(*values, None, **run)
        else:
            sums = passes.find_parameter_gradients(*values, **run)
            dx, _ = passes.differentiate(*values, tuple(tf.unstack(over_replicas(tf.stack(sums)), 2)), **run)
        # gamma and beta get this replica's part only: their gradients are summed over replicas by the optimizer.
        return dx, *sums

    # Two nested gradients, each an opaque pass over values that no tape follows, so that nothing is kept but what is
    # named here. The second derivative is rare (gradient penalties) and comes from differentiating the formula itself.
    # What else is found leaves by `moved`: as a result of `forward` it would get gradients, all zero.
    moved: Any = None

    @tf.custom_gradient
    def forward(x, gamma, beta):
        nonlocal moved
        run = {"settings": settings, "update": update, "parts": parts, "inlined": inlined, "jit_compile": jit_compile}
        y, found, moved = passes.normalize(constant(x), mask, moments, constant(gamma), constant(beta), moving, **run)
        return y, lambda dy: backward(x, gamma, beta, dy, found)

    def backward(x, gamma, beta, dy, moments):
        @tf.custom_gradient
        def first(*values):
            def second(*upstream):
                with tf.GradientTape() as tape:
                    tape.watch(values)
                    again = differentiate(*values, moments=statistics(values[0]), jit_compile=False)
                return tape.gradient(again, values, upstream, unconnected_gradients="zero")

            return differentiate(*map(constant, values), moments=moments, jit_compile=jit_compile), second

        return first(x, gamma, beta, dy)

    y = forward(x, gamma, beta)
    return y, moved
