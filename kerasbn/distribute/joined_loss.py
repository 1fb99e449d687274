"""The loss of the joined batch of all replicas."""

from typing import Any

import keras
import tensorflow as tf

from kerasbn.sync import sum_over_replicas


@keras.saving.register_keras_serializable("kerasbn")
class JoinedLoss(keras.losses.Loss):
    """The mean of a loss over the joined batch of all replicas, whatever each has of it.

    ``sum over replicas (sum of l) / sum over replicas (number of l)``, `l` being the values of `loss`.

    Keras takes the mean on each replica and then the mean of these. With shards of 4 and 1 samples the one weighs four
    times as much as each of the others, and an empty shard pulls the loss, and the gradient, towards 0. With this loss
    and ``BatchNorm(synchronized=True)`` a training step is that of one device on the joined batch. Without several
    replicas it is the loss that it wraps. It costs one collective of two numbers a step.

    If a value of the loss is not finite on one replica, the loss is so on all, and all gradients are NaN on all: every
    replica sees it in the logs, and a `kerasbn.distribute.LossScaleOptimizer` skips the step on all of them alike.

    Args:
        loss: A `keras.losses.Loss` with a mean as its `reduction`: `"sum_over_batch_size"` (Keras's default), `"mean"`
            or `"mean_with_sample_weight"`. Masks and sample weights count as they do there.
        name: Of the loss; that of `loss` by default.

    Raises:
        ValueError: `loss` is no `keras.losses.Loss` or has another reduction.

    Example:
        >>> import keras, kerasbn
        >>> loss = kerasbn.distribute.JoinedLoss(keras.losses.MeanSquaredError())
        >>> float(loss([[0.0], [0.0]], [[1.0], [3.0]]))
        5.0
    """

    def __init__(self, loss: keras.losses.Loss, name: str | None = None) -> None:
        """Checks and remembers the arguments; see the class."""
        means = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
        if not isinstance(loss, keras.losses.Loss):
            raise ValueError(
                "Argument `loss` must be a keras.losses.Loss, for instance keras.losses.MeanSquaredError() instead of "
                f"'mse'. Received: loss={loss!r}."
            )
        if loss.reduction not in means:
            raise ValueError(
                f"Argument `loss` must have one of these as its `reduction`: {', '.join(map(repr, means))}. "
                f"Received: a loss with reduction={loss.reduction!r}, which has no mean that could be joined."
            )
        super().__init__(name=name or loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self.loss = loss
        self._sum = _Sum(loss)
        self._count = _Count(loss)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """The values of `loss`, not reduced."""
        return self.loss.call(y_true, y_pred)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """This replica's share of the joined mean: all shares are equal and add up to it, as Keras expects."""
        weighted = self.reduction == "mean_with_sample_weight"
        # Keras does not add up where it knows that there is nothing to add.
        own = tf.reduce_sum(self._sum(y_true, y_pred, sample_weight))
        count = tf.reduce_sum(self._count(y_true, y_pred, sample_weight if weighted else None))
        total, of, replicas = tf.unstack(
            sum_over_replicas(tf.stack([tf.stop_gradient(own), tf.cast(count, own.dtype), tf.ones_like(own)]))
        )
        # A NaN here, and not only where the value is, makes every replica take, or skip, the step like the others.
        all_finite = tf.where(tf.math.is_finite(total), tf.ones_like(total), float("nan"))
        part = tf.math.divide_no_nan(own, of) * all_finite
        return part + tf.stop_gradient(tf.math.divide_no_nan(total, of * replicas) - part)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"loss": keras.saving.serialize_keras_object(self.loss), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "JoinedLoss":
        """From what `get_config` returned."""
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


class _Sum(keras.losses.Loss):
    """The sum of a loss; Keras applies weights and masks."""

    def __init__(self, loss: keras.losses.Loss) -> None:
        super().__init__(name=loss.name, reduction="sum", dtype=loss.dtype)
        self.loss = loss

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        return self.loss.call(y_true, y_pred)


class _Count(_Sum):
    """What a mean of that loss divides by."""

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        return tf.ones_like(super().call(y_true, y_pred))
