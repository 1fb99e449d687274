"""Normalization that stays as it is while a model is fine-tuned."""

import weakref
from collections.abc import Callable

import keras

from kerasbn.calls import InInferenceMode, as_it_is
from kerasbn.selection import Selection, batch_norms

#: What puts each frozen layer back; gone with the layer.
_undo: weakref.WeakKeyDictionary[keras.Layer, Callable[[keras.Layer], None]] = weakref.WeakKeyDictionary()


def freeze(model: keras.Model, layers: Selection = None, *, parameters: bool = True) -> None:
    """Keeps the batch normalizations of `model` in inference mode in training, in place.

    A frozen layer computes in training what it computes in inference,

        y = gamma * (x - moving_mean) / sqrt(moving_variance + epsilon) + beta,

    and its moving statistics stay. That is for fine-tuning, with batches that are too small or too unlike the data of
    the first training to take statistics from.

    In Keras ``trainable = False`` means for most layers that their weights stay; for batch normalization it also
    means inference mode, as "frozen weights" under changing statistics would be another function in each batch. So
    there is no flag for frozen statistics with `gamma` and `beta` that go on learning, which is ``parameters=False``
    here.

    With ``parameters=True`` this is ``trainable = False`` on each layer, which `model.save` stores with the layers.
    With ``parameters=False`` the `call` of each layer is taken over on the instance; that is *not* stored, nor copied
    by `clone_model` or by kerasbn's transforms: freeze again after loading. What `unfreeze` puts back is known of the
    very layers that were frozen, not of loaded or copied ones. A class of your own that asks `BatchNorm`, or Keras's
    layer, for training mode gets inference mode from it, whatever its `call` says; one that computes statistics of the
    batch in code of its own cannot be frozen from outside.

    Args:
        model: The model that is trained. If it is compiled, its training step is traced anew; models around it are
            not known here. To save all of a model that was trained before, compile it again first: its optimizer
            still has slots of `gamma` and `beta`, which Keras refuses to load.
        layers: Which: `None` for all, at any depth; a name or several; or a function of a layer that says whether it is
            meant. A layer stands for all in it.
        parameters: Whether `gamma` and `beta` stay as they are too.

    Raises:
        ValueError: If no batch normalization is meant, or `layers` names a layer that is not there.
        TypeError: If `model` is no Keras model or layer.

    Example:
    >>> import kerasbn
    >>> model = keras.Sequential([keras.Input((3,)), kerasbn.BatchNorm(), keras.layers.Dense(2)])
    >>> freeze(model)
    >>> len(model.trainable_variables)
    2
    >>> unfreeze(model)
    >>> freeze(model, parameters=False)
    >>> _ = model(keras.ops.ones((4, 3)), training=True)
    >>> len(model.trainable_variables), model.layers[0].moving_mean.numpy().tolist()
    (4, [0.0, 0.0, 0.0])

    Reference:
        Keras, Transfer learning & fine-tuning, https://keras.io/guides/transfer_learning, "The BatchNormalization
        layer".
    """
    for layer in batch_norms(model, layers):
        _thaw(layer)  # frozen in the other way, perhaps
        _undo[layer] = as_it_is(layer)
        if parameters:
            layer.trainable = False
        else:
            layer.call = InInferenceMode(layer)
    _trace_anew(model)


def unfreeze(model: keras.Model, layers: Selection = None) -> None:
    """Puts back what `freeze` changed, in place; layers that it did not freeze stay as they are.

    A layer that had ``trainable = False`` before has it again.

    Args:
        model: The model that was given to `freeze`, or one that its layers are in. If its optimizer was built while
            they were frozen, it does not know `gamma` and `beta`: call `compile` before you train.
        layers: Which, as in `freeze`.

    Raises:
        ValueError: If no batch normalization is meant, or `layers` names a layer that is not there.
        TypeError: If `model` is no Keras model or layer.

    Example:
    >>> import kerasbn
    >>> layers = [kerasbn.BatchNorm(name="a"), kerasbn.BatchNorm(name="b", trainable=False)]
    >>> model = keras.Sequential([keras.Input((3,)), *layers])
    >>> freeze(model)
    >>> unfreeze(model)
    >>> [layer.trainable for layer in model.layers]
    [True, False]

    Reference:
        As of `freeze`.
    """
    for layer in batch_norms(model, layers):
        _thaw(layer)
    _trace_anew(model)


def is_frozen(layer: keras.layers.BatchNormalization) -> bool:
    """Whether `layer` runs in inference mode in training."""
    return not layer.trainable or isinstance(layer.call, InInferenceMode)


def _thaw(layer: keras.layers.BatchNormalization) -> None:
    undo = _undo.pop(layer, None)
    if undo:
        undo(layer)


def _trace_anew(model: keras.Model) -> None:
    if getattr(model, "compiled", False):
        model.make_train_function(force=True)
