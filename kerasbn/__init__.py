"""kerasbn: batch normalization for Keras 3 on TensorFlow."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"kerasbn needs the TensorFlow backend of Keras. Received: backend {keras.backend.backend()!r}. "
        "Set the environment variable KERAS_BACKEND=tensorflow before the first import of keras."
    )

from kerasbn import callbacks, schedules
from kerasbn.layers.batch_norm import BatchNorm
from kerasbn.learning_rate_finder import find_learning_rate
from kerasbn.version import __version__

__all__ = ["BatchNorm", "__version__", "callbacks", "find_learning_rate", "schedules"]
