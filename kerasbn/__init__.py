"""kerasbn: batch normalization for Keras 3 on TensorFlow."""

import sys
from typing import NoReturn

from kerasbn import command_line

if command_line.about_to_run():  # help and wrong options do not wait for TensorFlow
    command_line.begin()

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"kerasbn needs the TensorFlow backend of Keras. Received: backend {keras.backend.backend()!r}. "
        "Set the environment variable KERAS_BACKEND=tensorflow before the first import of keras."
    )

from kerasbn import callbacks, data, distribute, monitors, schedules, transforms
from kerasbn.acceleration import accelerate
from kerasbn.diagnosis import diagnose
from kerasbn.freezing import freeze, unfreeze
from kerasbn.kernels.xla import uncompiled
from kerasbn.layers.affine import Affine
from kerasbn.layers.batch_norm import BatchNorm
from kerasbn.layers.local_response_normalization import LocalResponseNormalization
from kerasbn.learning_rate_finder import find_learning_rate
from kerasbn.population import recalibrate
from kerasbn.transforms import batch_normalize, convert, fold, from_torch_state, to_keras
from kerasbn.version import __version__

__all__ = [
    "Affine",
    "BatchNorm",
    "LocalResponseNormalization",
    "__version__",
    "accelerate",
    "batch_normalize",
    "callbacks",
    "convert",
    "data",
    "diagnose",
    "distribute",
    "find_learning_rate",
    "fold",
    "freeze",
    "from_torch_state",
    "monitors",
    "recalibrate",
    "schedules",
    "to_keras",
    "transforms",
    "uncompiled",
    "unfreeze",
]

#: What other libraries call it.
_OTHER_NAMES = {
    "BatchNormalization": "BatchNorm",
    "SyncBatchNormalization": "BatchNorm(synchronized=True)",
    "SyncBatchNorm": "BatchNorm(synchronized=True)",
}


def __getattr__(name: str) -> NoReturn:
    """Raises AttributeError, which says what the layer is called here."""
    hint = f" Use `kerasbn.{_OTHER_NAMES[name]}`." if name in _OTHER_NAMES else ""
    message = f"module {__name__!r} has no attribute {name!r}.{hint}"
    raise AttributeError(message, name=name, obj=sys.modules[__name__])
