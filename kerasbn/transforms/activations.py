"""Another nonlinearity: batch normalization makes even saturating ones trainable (Sec. 4.2.2, BN-x5-Sigmoid)."""

from typing import Any

import keras

from kerasbn.transforms.batch_normalization import LINEAR, NONLINEAR, is_nonlinear
from kerasbn.transforms.clone import clone
from kerasbn.transforms.flow import trace
from kerasbn.transforms.output_layers import output_layers
from kerasbn.transforms.rebuild import Change, rebuild


def replace_activations(model: keras.Model, activation: str, *, changes: list[Change] | None = None) -> keras.Model:
    r"""A copy of `model` whose hidden nonlinearities are all `activation`.

    They are the `activation` of the layers of Keras called `Dense`, `Conv*`, `DepthwiseConv*` and `SeparableConv*`, if
    it is not linear, also in a `TimeDistributed`, and the layers `Activation`, `ReLU`, `LeakyReLU`, `PReLU` and `ELU`.
    Left alone are those of output layers, after which no other layer with a kernel comes on the way to an output of the
    model; softmaxes, as in attention; and what is inside of other layers, such as the gates of recurrent ones.

    Args:
        model: A functional or Sequential model. It is left as it is.
        activation: Name of one of `keras.activations`, such as `"sigmoid"`.
        changes: Optional list, to which a `Change` is appended for each nonlinearity that was replaced.

    Returns:
        A new model with the weights of `model`, compiled as it was, with a new optimizer. Layers keep their names.

    Raises:
        ValueError: If `activation` is not known; if `model` is not functional or Sequential.
        TypeError: If `model` is no Keras model.

    Example:
    >>> layers = [keras.layers.Dense(5, "relu", name="hidden"), keras.layers.Dense(2, "softmax")]
    >>> changes = []
    >>> model = replace_activations(keras.Sequential([keras.Input((3,)), *layers]), "sigmoid", changes=changes)
    >>> print(*changes, sep="\n")
    hidden: activation relu -> sigmoid

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 4.2.2.
    """
    keras.activations.get(activation)  # raises for what is not known
    outputs = output_layers(trace(model))
    found: list[Change] = []

    def rewrite(operation: Any, where: str) -> list[Any]:
        inner = operation.layer if isinstance(operation, keras.layers.TimeDistributed) else operation
        own = isinstance(inner, LINEAR) and inner.activation is not keras.activations.linear
        hidden = id(operation) not in outputs and "softmax" not in _name(inner)
        if not hidden or not (own or (isinstance(operation, NONLINEAR) and is_nonlinear(operation))):
            return [clone(operation)]
        found.append(Change(where, "activation", _name(inner), activation))
        if not own:
            return [keras.layers.Activation(activation, name=operation.name, dtype=operation.dtype_policy)]
        config = operation.get_config()
        (config if inner is operation else config["layer"]["config"])["activation"] = activation
        return [clone(operation, config)]

    new = rebuild(model, rewrite).model
    if changes is not None:
        changes += found
    return new


def _name(layer: Any) -> str:
    """The name of the nonlinearity, as in `keras.activations`."""
    activation = getattr(layer, "activation", layer)
    return getattr(activation, "__name__", type(activation).__name__).lower()
