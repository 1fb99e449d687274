"""Initial weights of another size: what batch normalization makes less important (Sec. 3.3)."""

import keras

from kerasbn.arguments import built, positive
from kerasbn.transforms.clone import clone
from kerasbn.transforms.rebuild import Change, rebuild


def scale_initialization(model: keras.Model, factor: float, *, changes: list[Change] | None = None) -> keras.Model:
    """A copy of `model` whose kernels are multiplied by `factor`, in a model that is not trained yet.

        W = factor * W

    Kernels are the trainable weights of two and more axes that Keras calls `kernel`, also `depthwise_kernel`,
    `recurrent_kernel` and so on. Biases, embeddings and the weights of normalizations stay. With batch normalization
    behind it, the scale of a kernel has no part in the output: ``BN(a W u) = BN(W u)``.

    Args:
        model: A built functional or Sequential model. It is left as it is.
        factor: Positive float.
        changes: Optional list, to which a `Change` is appended for each kernel, with its standard deviation.

    Returns:
        A new model with the weights of `model`, compiled as it was, with a new optimizer.

    Raises:
        ValueError: If `factor` is out of its range; if `model` is not built, or not functional or Sequential.

    Example:
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
    >>> scale_initialization(model, 0.5).layers[0].kernel.numpy().max()
    np.float32(0.5)

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 3.3.
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 4.
    """
    factor = positive("factor", factor)
    new = rebuild(built(model), lambda operation, where: [clone(operation)]).model
    for variable in new.trainable_variables:
        if len(variable.shape) >= 2 and variable.name.endswith("kernel"):
            old = float(keras.ops.std(variable))
            variable.assign(variable * factor)
            if changes is not None:
                changes.append(Change(variable.path, "standard deviation", old, old * factor))
    return new
