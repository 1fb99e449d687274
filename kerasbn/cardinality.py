"""How many batches data give, as far as they say."""

from typing import Any

import keras
import tensorflow as tf


def cardinality(data: Any) -> int:
    """The number of batches; ``tf.data.INFINITE_CARDINALITY`` or ``tf.data.UNKNOWN_CARDINALITY`` if it is none."""
    if isinstance(data, keras.utils.PyDataset):
        try:
            return tf.data.INFINITE_CARDINALITY if data.num_batches is None else data.num_batches
        except NotImplementedError:  # of a class that has neither `num_batches` nor `__len__`
            return tf.data.UNKNOWN_CARDINALITY
    if hasattr(data, "cardinality"):  # a method of datasets, an attribute of distributed ones
        return int(data.cardinality() if callable(data.cardinality) else data.cardinality)
    try:
        return len(data)
    except TypeError:
        return tf.data.UNKNOWN_CARDINALITY


def check_end(data: Any, steps: int | None) -> None:
    """Raises ValueError if all of `data` are asked for, which have no end."""
    if steps is None and cardinality(data) == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "Argument `steps` must be given for data without end, as `repeat()` makes them. Received: steps=None and a "
            f"{type(data).__name__} of infinite cardinality. Give the number of batches to read, such as steps=100."
        )


def progress(verbose: int | str, data: Any, steps: int | None) -> int:
    """`verbose` as Keras takes it; of `"auto"`, a progress bar where nobody knows how long reading will take."""
    if verbose != "auto":
        return int(verbose)
    return int(steps is None and cardinality(data) == tf.data.UNKNOWN_CARDINALITY)
