"""What a training changes, held on the host and put back to the bit."""

import random
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasbn.arguments import built
from kerasbn.optimizers import stepping


class Snapshot:
    """The values of variables at one moment.

    Every replica's copy is kept for itself: under a strategy they may differ (moving statistics that drift apart, sums
    of metrics that are added up when they are read), and reading or assigning the variable as a whole would mix them.
    """

    def __init__(self, variables: Iterable[Any], strategy: tf.distribute.Strategy) -> None:
        """Copies `variables`, which were created under `strategy`, to the host."""
        self._copies = [copy for v in variables for copy in strategy.experimental_local_results(v.value)]
        self._values = [copy.numpy() for copy in self._copies]

    def restore(self) -> None:
        """Gives every variable the value that it had."""
        for copy, value in zip(self._copies, self._values, strict=True):
            copy.assign(value)

    def non_finite(self) -> int:
        """How many of the numbers held are NaN or infinite."""
        numbers = [value for value in self._values if value.dtype.kind not in "iub"]  # bfloat16 is of kind "V"
        return sum(int(value.size - np.count_nonzero(np.isfinite(value))) for value in numbers)


def training_state(model: keras.Model) -> list[Any]:
    """All variables that training `model` changes: weights, statistics, seeds and the optimizer's.

    The learning rate is not among them: it belongs to whoever sets it. An optimizer without slots gets them here.

    Raises:
        ValueError: If the model is not built.
    """
    optimizer = built(model).optimizer
    if not optimizer.built:
        with model.distribute_strategy.scope():
            optimizer.build(model.trainable_variables)
    found = {id(v): v for v in (*model.variables, *optimizer.variables)}
    for part in stepping(optimizer):
        found.pop(id(part.learning_rate), None)
    return list(found.values())


class RandomState:
    """The global random state that a training may draw from: Python's, NumPy's and Keras's.

    TensorFlow's stateful operations (``tf.random.uniform`` and its kin) keep a state that cannot be read.
    """

    def __init__(self) -> None:
        """Remembers the state."""
        self._python, self._numpy = random.getstate(), np.random.get_state()
        # Keras has no name for its global generator, but a trace of one draw, which draws nothing, knows its variable.
        # Where there is none yet, this makes the one that the next draw would have made.
        draw = tf.function(lambda: keras.random.uniform(())).get_concrete_function()
        random.setstate(self._python)
        self._keras = [(variable, variable.numpy()) for variable in draw.variables]

    def restore(self) -> None:
        """Puts the state back."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        for variable, value in self._keras:
            variable.assign(value)
