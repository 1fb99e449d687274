"""Initial weights of another size: what batch normalization makes less important (Sec. 3.3)."""

import keras

from kerasbn.arguments import built, positive
from kerasbn.selection import Selection, check_names, layers_in
from kerasbn.transforms.clone import clone
from kerasbn.transforms.rebuild import Change, rebuild


def scale_initialization(
    model: keras.Model, factor: float, layers: Selection = None, *, changes: list[Change] | None = None
) -> keras.Model:
    """A copy of `model` whose kernels are multiplied by `factor`, in a model that is not trained yet.

        W = factor * W

    Kernels are the trainable weights of two and more axes that Keras calls `kernel`, also `depthwise_kernel`,
    `recurrent_kernel` and so on. Biases, embeddings and the weights of normalizations stay. With batch normalization
    behind it, the scale of a kernel has no part in the output: ``BN(a W u) = BN(W u)``.

    Args:
        model: A built functional or Sequential model. It is left as it is.
        factor: Positive float.
        layers: Whose kernels: `None` for all; a layer's name or several; or a function that says whether a layer is
            meant. A layer stands for all in it.
        changes: Optional list, to which a `Change` is appended for each kernel, with its standard deviation.

    Returns:
        A new model with the weights of `model`, compiled as it was, with a new optimizer.

    Raises:
        ValueError: If `factor` is out of its range; if `layers` names one that is not there; if `model` is not built,
            or not functional or Sequential.
        TypeError: If `model` is no Keras model.

    Example:
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
    >>> scale_initialization(model, 0.5).layers[0].kernel.numpy().max()
    np.float32(0.5)

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 3.3.
            Sec. 4.2.3 has larger weights in the convolutions only:
            ``layers=lambda layer: isinstance(layer, keras.layers.Conv2D)``.
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 4.
    """
    factor = positive("factor", factor)
    new = rebuild(built(model), lambda operation, where: [clone(operation)]).model
    for variable in _variables(new, layers):
        if len(variable.shape) >= 2 and variable.name.endswith("kernel"):
            old = float(keras.ops.std(variable))
            variable.assign(variable * factor)
            if changes is not None:
                changes.append(Change(variable.path, "standard deviation", old, old * factor))
    return new


def _variables(model: keras.Model, layers: Selection) -> list[keras.Variable]:
    """The trainable variables of `layers`."""
    if layers is None:
        return model.trainable_variables
    found = list(layers_in(model, layers))
    check_names(layers, (layer.name for layer, _ in found), "Layers", (layer.name for layer in model.layers))
    meant = {id(variable) for layer, within in found if within for variable in layer.trainable_variables}
    return [variable for variable in model.trainable_variables if id(variable) in meant]
