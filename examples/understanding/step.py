"""One step along the negative gradient of one mini-batch, of any size, and nothing else."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasbn.snapshot import Snapshot


class Step:
    """Moves the weights of a model along ``-gradient`` of the loss of a mini-batch, and puts them back.

        weights(size) = weights - size * dloss/dweights

    The gradient is taken once, where the model stands, as in training: with the statistics of the mini-batch. The
    loss is the cross-entropy, without what regularization adds. As a context, it puts all variables back in the end.
    """

    def __init__(self, model: keras.Model) -> None:
        """Traces what is called again and again, for mini-batches of any size."""
        self._model = model
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        @tf.function(autograph=False)
        def of_loss(x: Any, y: Any) -> Any:
            return loss(y, model(x, training=True))

        @tf.function(autograph=False)
        def of_gradient(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                value = loss(y, model(x, training=True))
            return value, tape.gradient(value, [v.value for v in model.trainable_variables])

        mini_batch = tf.TensorSpec(model.input_shape), tf.TensorSpec([None], tf.int32)
        self._of_loss, self._of_gradient = (f.get_concrete_function(*mini_batch) for f in (of_loss, of_gradient))

    def __enter__(self) -> "Step":
        self._before = Snapshot(self._model.variables, self._model.distribute_strategy)
        return self

    def __exit__(self, *_: Any) -> None:
        self._before.restore()

    def along(self, x: np.ndarray, y: np.ndarray) -> float:
        """Takes the gradient of a mini-batch, where the model stood at the beginning. Returns its loss there."""
        self._before.restore()
        self._x, self._y = tf.constant(x), tf.constant(y)
        self._weights = [np.asarray(v) for v in self._model.trainable_variables]
        loss, self._gradient = self._of_gradient(self._x, self._y)
        self.loss = float(loss)
        return self.loss

    def to(self, size: float) -> float:
        """Goes there from where the model stood. Returns the loss of the mini-batch, relative to that before."""
        for variable, weight, gradient in zip(
            self._model.trainable_variables, self._weights, self._gradient, strict=True
        ):
            variable.assign(weight - np.float32(size) * gradient)
        return float(self._of_loss(self._x, self._y)) / self.loss
