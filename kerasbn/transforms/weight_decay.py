"""Less weight decay: third of the changes of Sec. 4.2.1."""

from typing import Any

import keras

from kerasbn.layers import arguments
from kerasbn.transforms.clone import clone
from kerasbn.transforms.nested_models import configuration
from kerasbn.transforms.rebuild import Change, Replacement, rebuild
from kerasbn.transforms.serialized import edited

#: The regularizers that pull weights towards 0, with the arguments that say how strongly.
STRENGTHS = {"L1": ("l1",), "L2": ("l2",), "L1L2": ("l1", "l2")}
REGULARIZERS = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


def scale_weight_decay(
    model: keras.Model, factor: float = 1 / 5, *, changes: list[Change] | None = None
) -> keras.Model:
    """A copy of `model` whose weight decay is multiplied by `factor`, as penalty in the loss and in the optimizer.

    With penalties `l1` and `l2` of a weight `w` in the loss, and the optimizer's `weight_decay`:

        loss = ... + factor * (l1 * sum(|w|) + l2 * sum(w ** 2))
        w   -= learning_rate * factor * weight_decay * w

    All `L1`, `L2` and `L1L2` of Keras are scaled, wherever a layer's configuration has them: kernels, biases, gamma
    and beta, cells of recurrent layers, wrapped layers, nested models. Penalties on *activities*
    (`activity_regularizer`) are not weight decay and stay, as do regularizers of other classes. For the optimizer to be
    scaled, the model must be compiled. Keras forgets what `Optimizer.exclude_from_weight_decay` excluded whenever an
    optimizer is made from its configuration, here too: call it again.

    "While in Inception an L2 loss on the model parameters controls overfitting, in Modified BN-Inception the weight of
    this loss is reduced by a factor of 5. We find that this improves the accuracy on the held-out validation data."

    Args:
        model: A functional or Sequential model. It is left as it is.
        factor: Float, not negative. 1/5 is the paper's; 0 is no decay.
        changes: Optional list, to which a `Change` is appended for each strength that was scaled.

    Returns:
        A new model with the weights of `model`, compiled as it was, with a new optimizer.

    Raises:
        ValueError: If `factor` is negative; if `model` is not functional or Sequential; if a regularizer is hidden in
            a layer whose configuration does not show it.
        TypeError: If `model` is no Keras model.

    Example:
    >>> layer = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.01))
    >>> changes = []
    >>> model = scale_weight_decay(keras.Sequential([keras.Input((3,)), layer]), 0.5, changes=changes)
    >>> model.layers[0].kernel_regularizer.l2, layer.kernel_regularizer.l2
    (0.005, 0.01)
    >>> print(changes[0].what, changes[0].old, changes[0].new)
    kernel_regularizer.l2 0.01 0.005

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, Sec. 4.2.1, "Reduce the L2 weight regularization".
    """
    factor = arguments.number("factor", factor, 0)
    found: list[Change] = []

    def scaled(where: str, what: str, old: float) -> float:
        if old:
            found.append(Change(where, what, old, old * factor))
        return old * factor

    def rewrite(layer: Any, where: str) -> list[Any]:
        def edit(class_name: str, config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
            # A regularizer is the same wherever it hangs, but on activities it is not weight decay.
            if class_name not in STRENGTHS or path[-1:] == ("activity_regularizer",):
                return config
            return config | {
                name: scaled(where, ".".join((*path, name)), config[name]) for name in STRENGTHS[class_name]
            }

        return [clone(layer, edited(configuration(layer), edit, type(layer)))]

    def recompile(compile_settings: dict[str, Any]) -> dict[str, Any]:
        def edit(class_name: str, config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
            old = config.get("weight_decay")
            if old is None:
                return config
            return config | {"weight_decay": scaled(path[0], ".".join((*path[1:], "weight_decay")), old)}

        return edited(compile_settings, edit)

    new, replacements = rebuild(model, rewrite, recompile)
    if factor != 1:
        for replacement in replacements:
            _check_all_scaled(replacement)
    if changes is not None:
        changes += found
    return new


def _check_all_scaled(replacement: Replacement) -> None:
    """Raises ValueError if a weight has the penalty it had: its layer makes it in a way the configuration hides."""
    if not isinstance(replacement.old, keras.layers.Layer):
        return
    for before, after in zip(replacement.old.variables, replacement.new[0].variables, strict=True):
        if isinstance(after.regularizer, REGULARIZERS):
            strengths = after.regularizer.get_config()
            if any(strengths.values()) and strengths == before.regularizer.get_config():
                raise ValueError(
                    f"The weight decay of layer {replacement.where!r} of class {type(replacement.old).__name__} cannot "
                    f"be scaled: weight {after.path!r} has the penalty {strengths}, which the layer's `get_config` "
                    "does not show. Make the regularizer an argument of the layer."
                )
