r"""From a model to a new one: normalization put in or exchanged, and what Sec. 4.2.1 of Ioffe & Szegedy (2015) changes.

Every transform leaves the model that it gets as it is, returns a new one with the same weights, compiled with the same
settings, and appends to `changes` what it changed. So they compose:

>>> import keras
>>> l2 = keras.regularizers.L2(1e-4)
>>> layers = [keras.Input((3,)), keras.layers.Dense(5, "relu", kernel_regularizer=l2, name="a"), keras.layers.Dense(2)]
>>> changes = []
>>> model = scale_weight_decay(keras.Sequential(layers), 0.5, changes=changes)
>>> model = batch_normalize(model, changes=changes)
>>> print(*changes, sep="\n")
a: kernel_regularizer.l2 0.0001 -> 5e-05
a: normalization None -> layer a_bn
a: use_bias True -> False
a: activation relu -> layer a_activation
"""

from kerasbn.transforms.activations import replace_activations
from kerasbn.transforms.batch_normalization import batch_normalize
from kerasbn.transforms.conversion import convert, to_keras
from kerasbn.transforms.folding import fold
from kerasbn.transforms.initialization import scale_initialization
from kerasbn.transforms.local_response_normalization import remove_local_response_normalization
from kerasbn.transforms.photometric_distortions import reduce_photometric_distortions
from kerasbn.transforms.rebuild import Change
from kerasbn.transforms.torch_state import from_torch_state
from kerasbn.transforms.weight_decay import scale_weight_decay

__all__ = [
    "Change",
    "batch_normalize",
    "convert",
    "fold",
    "from_torch_state",
    "reduce_photometric_distortions",
    "remove_local_response_normalization",
    "replace_activations",
    "scale_initialization",
    "scale_weight_decay",
    "to_keras",
]
