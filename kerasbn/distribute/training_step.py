"""What the optimizers of a model need in a training step on several replicas."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import tensorflow as tf

#: Arguments of Keras's optimizers that are the limit of a clipping.
LIMITS = ("clipnorm", "clipvalue", "global_clipnorm")

#: Those for which Keras calls `merge_call` within a `tf.cond`, which TensorFlow refuses, and what to do instead.
REFUSED = {
    "gradient_accumulation_steps": "Train with larger batches, or with more replicas",
    "ema_overwrite_frequency": "Set it to None: the averages go into the weights at the end of `fit`. Or swap them in "
    "with keras.callbacks.SwapEMAWeights",
}


@contextmanager
def training_step(model: keras.Model, strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Within it, a training step of `model` clips the gradient of the joined batch, as one device does.

    Raises:
        ValueError: If the optimizer or a weight was made outside of the scope of `strategy`; if the optimizer has an
            option that Keras cannot run on several replicas.
    """
    optimizers = _optimizers(model)
    for optimizer in optimizers:
        _check_options(optimizer)
        _check_scope(optimizer.variables, f"The optimizer {optimizer.name!r} of the model {model.name!r}", strategy)
    _check_scope(model.weights, f"The model {model.name!r}", strategy)
    with ExitStack() as stack:
        for optimizer in optimizers:
            limits = {name: getattr(optimizer, name) for name in LIMITS if getattr(optimizer, name)}
            if limits:
                stack.enter_context(_clipping_what_is_joined(optimizer, limits, strategy.num_replicas_in_sync))
        yield


def _optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """That of `compile` and others that a model of the user's own has, as a GAN; of a wrapper the one within."""
    found = [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]
    # The variables of a LossScaleOptimizer are changed once for all replicas.
    found = [getattr(optimizer, "inner_optimizer", optimizer) for optimizer in found]
    return list({id(optimizer): optimizer for optimizer in found}.values())


@contextmanager
def _clipping_what_is_joined(
    optimizer: keras.optimizers.Optimizer, limits: dict[str, float], replicas: int
) -> Iterator[None]:
    """Within it, `apply` takes the sum over replicas of the gradients before Keras clips them.

    Keras clips on each replica, and then adds up what is clipped. Each gets the `replicas`-th part of the sum and of
    the limit here, so that the parts, which are all the same, add up to the sum, clipped at the limit.
    """
    apply = optimizer.apply
    _replace(optimizer, {"apply": _joined(apply, replicas)} | {name: limits[name] / replicas for name in limits})
    try:
        yield
    finally:
        del optimizer.apply
        _replace(optimizer, limits)


def _replace(optimizer: keras.optimizers.Optimizer, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        setattr(optimizer, name, value)


def _joined(apply: Callable[..., Any], replicas: int) -> Callable[..., Any]:
    """`apply` of an optimizer, with a part of the sum over replicas in the place of each gradient."""

    def apply_joined(grads: Sequence[Any], trainable_variables: Any = None) -> Any:
        there = [gradient for gradient in grads if gradient is not None]
        context = tf.distribute.get_replica_context()
        total = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, there) if there else [])
        parts = [None if gradient is None else _part(next(total), replicas) for gradient in grads]
        return apply(parts, trainable_variables)

    return apply_joined


def _part(gradient: Any, replicas: int) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values / replicas, gradient.indices, gradient.dense_shape)
    return gradient / replicas


def _check_options(optimizer: keras.optimizers.Optimizer) -> None:
    for name, remedy in REFUSED.items():
        value = getattr(optimizer, name)
        if value:
            raise ValueError(
                f"Argument `{name}` of the optimizer must be None on several replicas, where Keras cannot run it. "
                f"Received: {name}={value!r}. {remedy}."
            )


def _check_scope(variables: Sequence[keras.Variable], owner: str, strategy: tf.distribute.Strategy) -> None:
    for variable in variables:
        if not strategy.extended.variable_created_in_scope(variable.value):
            raise ValueError(
                f"{owner} must be made inside of `strategy.scope()`. Received: {variable.path!r}, made outside, which "
                f"each of the {strategy.num_replicas_in_sync} replicas would change in each step. Build and compile "
                "the model inside: with strategy.scope(): model = ...; model.compile(...)."
            )
