"""Without local response normalization: fifth of the changes of Sec. 4.2.1."""

import types
from typing import Any

import keras
import tensorflow as tf

from kerasbn.layers.local_response_normalization import LocalResponseNormalization
from kerasbn.transforms.clone import clone
from kerasbn.transforms.rebuild import Change, hidden_layers, rebuild

#: What layers of this kind are called, in kerasbn and in the code that people have, in small letters.
CLASS_NAMES = {"localresponsenormalization", "localresponsenorm", "lrn", "lrn2d"}

#: What functions of this kind are called: `tf.nn.local_response_normalization`, `tf.nn.lrn`, `tf.raw_ops.LRN`.
FUNCTION_NAMES = {"local_response_normalization", "lrn", "LRN"}


def remove_local_response_normalization(model: keras.Model, *, changes: list[Change] | None = None) -> keras.Model:
    """A copy of `model` without its local response normalization.

    Recognized are `kerasbn.LocalResponseNormalization`, layers of other classes with such a name
    (`LocalResponseNormalization`, `LocalResponseNorm`, `LRN`, `LRN2D`), and `keras.layers.Lambda` around
    `tf.nn.local_response_normalization` or a function that does nothing else. What came out of the layer before comes
    now where the layer's output went.

    "While Inception and other networks (Srivastava et al., 2014) benefit from it, we found that with Batch
    Normalization it is not necessary."

    Args:
        model: A functional or Sequential model. It is left as it is.
        changes: Optional list, to which a `Change` is appended for each layer that was removed.

    Returns:
        A new model with the weights of `model`, compiled as it was, with a new optimizer.

    Raises:
        ValueError: If `model` is not functional or Sequential, or has such a layer in a nested model that is not; if a
            `Lambda` normalizes local responses and does something else as well.
        TypeError: If `model` is no Keras model.

    Example:
    >>> from kerasbn import LocalResponseNormalization
    >>> conv = keras.layers.Conv2D(4, 3, activation="relu")
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), conv, LocalResponseNormalization(), keras.layers.Flatten()])
    >>> [type(layer).__name__ for layer in remove_local_response_normalization(model).layers]
    ['Conv2D', 'Flatten']

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, Sec. 4.2.1, "Remove Local Response Normalization".
    """
    found: list[Change] = []

    def rewrite(layer: Any, where: str) -> list[Any]:
        if _normalizes_local_responses(layer, where):
            found.append(Change(where, "local response normalization", type(layer).__name__, None))
            return []
        for hidden in hidden_layers(layer):
            if _normalizes_local_responses(hidden, f"{where}/{hidden.name}"):
                raise ValueError(
                    f"Layer {hidden.name!r} of class {type(hidden).__name__} is in {where!r}, of class "
                    f"{type(layer).__name__}, which calls its layers in Python code, so it cannot be removed. "
                    "Build that part with the functional API."
                )
        return [clone(layer)]

    new, _ = rebuild(model, rewrite)
    if changes is not None:
        changes += found
    return new


def _normalizes_local_responses(layer: Any, where: str) -> bool:
    if isinstance(layer, keras.layers.TimeDistributed):
        return _normalizes_local_responses(layer.layer, where)
    if isinstance(layer, keras.layers.Lambda) and _names_it(layer.function):
        others = _operations(layer) - {"LRN"}
        if others:
            raise ValueError(
                f"Layer {where!r}, a Lambda, cannot be removed: besides local response normalization it computes "
                f"{', '.join(sorted(others))}. Split it into two layers."
            )
        return True
    if isinstance(layer, LocalResponseNormalization):
        return True
    return isinstance(layer, keras.layers.Layer) and type(layer).__name__.lower() in CLASS_NAMES


def _names_it(function: Any) -> bool:
    """Whether `function` is that of TensorFlow, or its code calls one of that name."""
    if not isinstance(function, types.FunctionType):
        return False
    return bool({function.__name__, *function.__code__.co_names} & FUNCTION_NAMES)


def _operations(layer: keras.layers.Lambda) -> set[str]:
    """The kinds of TensorFlow operations that compute the layer's result from its input."""
    images = tf.TensorSpec([None, None, None, None], layer.compute_dtype)
    graph = tf.function(lambda x: layer(x)).get_concrete_function(images).graph
    return {operation.type for operation in graph.get_operations()} - {"Placeholder", "Const", "Identity"}
