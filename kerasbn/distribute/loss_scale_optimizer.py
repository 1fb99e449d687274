"""Loss scaling for training in float16 on several replicas."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasbn.sync import sum_over_replicas


@keras.saving.register_keras_serializable("kerasbn")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` for several replicas: if one must skip a step, all do.

    Keras's own looks at the gradients before they are added up over replicas. What overflows on another replica than
    the first one reaches the weights of all; workers that decide differently wait for each other for ever. This costs
    one collective of one number a step. On one replica it is Keras's.

    Args:
        inner_optimizer: The `keras.optimizers.Optimizer` to scale the loss for.
        **kwargs: `initial_scale`, `dynamic_growth_steps` and the others of Keras's.

    Raises:
        ValueError: If Keras's has no such argument, or it belongs to `inner_optimizer`, as `clipnorm` does.

    Example:
        >>> import keras, kerasbn
        >>> optimizer = kerasbn.distribute.LossScaleOptimizer(keras.optimizers.SGD(0.1))
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, dtype="mixed_float16")])
        >>> model.compile(optimizer, "mse")

    Reference:
        P. Micikevicius et al., Mixed Precision Training, 2018, https://arxiv.org/abs/1710.03740: Sec. 3.2.
    """

    def check_finite(self, grads: Sequence[Any]) -> tf.Tensor:
        """Whether the gradients of all replicas are finite."""
        finite = super().check_finite(grads)
        return sum_over_replicas(tf.cast(~finite, "float32")) == 0
