"""Keras's batch normalization as kerasbn's, and back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kerasbn.layers.batch_norm import BatchNorm
from kerasbn.selection import Selection, batch_norms, layers_in
from kerasbn.transforms.clone import activation_layer, clone, custom_objects, free_name
from kerasbn.transforms.flow import trace
from kerasbn.transforms.fusion import Fusion
from kerasbn.transforms.nested_models import configuration
from kerasbn.transforms.optimizer_state import carry_optimizer
from kerasbn.transforms.rebuild import Change, rebuild
from kerasbn.transforms.serialized import replaced

KERAS = keras.layers.BatchNormalization

#: What `BatchNorm` has and Keras's layer lacks, and which makes no difference in inference.
IN_TRAINING_ONLY = ("unbiased", "virtual_batch_size", "sync_group_size")


def convert(
    model: keras.Model,
    layers: Selection = None,
    *,
    fuse_activations: bool = False,
    changes: list[Change] | None = None,
    **overrides: Any,
) -> keras.Model:
    """A copy of `model` in which every `keras.layers.BatchNormalization` is a `BatchNorm`, with its weights.

    The copy computes what `model` computes. Options of all its normalizations may be changed at once: those that were
    Keras's and those that were kerasbn's before. Layers in nested models are converted, and those in wrappers
    (`TimeDistributed`) and in layers that show what is in them in their configuration.

    A layer of a class that is derived from `BatchNorm` keeps its class, with the options changed in its configuration.

    Args:
        model: A functional or Sequential model. It is left as it is.
        layers: Which normalizations: `None` for all; a name or several; or a function of a layer that says whether it
            is meant. A layer stands for all in it. The others stay what they are.
        fuse_activations: Whether a ReLU, ReLU6 or leaky ReLU (slope 0.2) that follows, and that nothing else comes
            through, becomes the `activation` of the normalization, which saves two passes over memory and a tensor.
            That is what `Activation`, `ReLU`, `LeakyReLU` or `keras.ops` make, in the same model and dtype policy.
        changes: Optional list, to which a `Change` is appended for each layer that has another class and for each
            activation that went into one.
        **overrides: Arguments of `BatchNorm`, such as ``synchronized=True`` or ``virtual_batch_size=32``. `name` and
            `activation` are not allowed.

    Returns:
        A new model, compiled as `model` was. Its optimizer goes on where that of `model` was, with step, rate and the
        slots of all variables that are still there.

    Raises:
        ValueError: If an override is not allowed; if a layer is of a class that is derived from Keras's and not from
            `BatchNorm`, so that what it does would be lost; if one is in a layer that makes it in Python code; if
            `model` is not functional or Sequential; if there is no normalization, or `layers` names one that is not
            there.

    Example:
    >>> layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(name="bn"), keras.layers.ReLU()]
    >>> old = keras.Sequential([keras.Input((3,)), *layers])
    >>> new = convert(old, virtual_batch_size=16, fuse_activations=True)
    >>> [type(layer) is BatchNorm for layer in new.layers], new.get_layer("bn").activation.__name__
    ([False, True], 'relu')

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Alg. 1.
    """
    for name in {"name", "activation"} & overrides.keys():
        raise ValueError(
            f"Argument `{name}` of BatchNorm cannot be given: a layer keeps its name, and its activation comes from "
            f"fuse_activations=True. Received: {name}={overrides[name]!r}."
        )
    BatchNorm(**overrides)  # raises for what is not allowed
    meant = {id(layer) for layer in batch_norms(model, layers)}
    # What a derived class does with the result of its normalization comes before the activation.
    plain = {id(layer) for layer in batch_norms(model, layers) if type(layer) in (KERAS, BatchNorm)}
    fusion = Fusion(trace(model) if fuse_activations else [], plain)
    found: list[Change] = []

    def ours(config: dict[str, Any], was: Any, where: str, **more: Any) -> keras.layers.BatchNormalization:
        if was is KERAS:
            found.append(Change(where, "class", "keras.layers.BatchNormalization", "kerasbn.BatchNorm"))
        for name, value in overrides.items():
            if config.get(name) != value:
                found.append(Change(where, name, config.get(name), value))
        return (BatchNorm if was is KERAS else was).from_config(config | overrides | more)

    def rewrite(operation: Any, where: str) -> Sequence[Any]:
        if id(operation) in fusion.absorbed:
            return []
        if id(operation) not in meant:
            names = {layer.name for layer, _ in layers_in(operation) if id(layer) in meant}
            new = _with_inner(operation, where, names, ours)
            _check_class(new, names, where)
            return [new]
        if type(operation) is not KERAS:
            _check_class(operation, {operation.name}, where)
        more = {}
        if id(operation) in fusion.activations:
            more["activation"] = fusion.activations[id(operation)]
            found.append(Change(where, "activation", None, more["activation"].__name__))
        with keras.saving.custom_object_scope(custom_objects([operation])):
            return [ours(operation.get_config(), type(operation), where, **more)]

    new, _ = rebuild(model, rewrite)
    carry_optimizer(model, new)
    if changes is not None:
        changes += found
    return new


def to_keras(model: keras.Model, *, inference_only: bool = False, changes: list[Change] | None = None) -> keras.Model:
    """A copy of `model` in which every `BatchNorm` is a `keras.layers.BatchNormalization`.

    It is for machines without kerasbn, and computes in inference what `model` computes. An `activation` becomes a layer
    of its own, `bn_activation` after `bn`. `jit_compile`, which is about speed, is left out. Statistics along several
    axes are not in Keras's layer, and a model that has them is refused.

    `unbiased`, `virtual_batch_size`, `sync_group_size` and ``momentum=None`` are not in Keras's layer either, and
    change what a training computes: they are refused, unless you say that no training follows. The momentum is then
    Keras's default. Losses, optimizers and schedules of kerasbn in the settings of `compile` stay: load such a file
    with ``compile=False``.

    Args:
        model: A functional or Sequential model. It is left as it is.
        inference_only: Whether options that matter in training only are left out.
        changes: Optional list, to which a `Change` is appended for each layer that has another class, each option that
            was left out, and each activation that was split off.

    Returns:
        A new model, compiled as `model` was; its optimizer goes on where that of `model` was.

    Raises:
        ValueError: If a layer has an option that Keras lacks, as above; if a layer of kerasbn is in one that makes it
            in Python code, or, with an activation, in a wrapper; if the model has other layers of kerasbn, or of
            classes that are derived from them; if `model` is not functional or Sequential.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), BatchNorm(activation="relu", name="bn")])
    >>> [f"{type(layer).__name__} {layer.name}" for layer in to_keras(model).layers]
    ['BatchNormalization bn', 'Activation bn_activation']

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Alg. 2, line 11.
    """
    names = {layer.name for layer, _ in layers_in(model)}
    found: list[Change] = []

    def theirs(config: dict[str, Any], was: Any, where: str) -> keras.layers.BatchNormalization:
        if was is BatchNorm:
            found.append(Change(where, "class", "kerasbn.BatchNorm", "keras.layers.BatchNormalization"))
            config, left_out = _for_keras(config, where, inference_only)
            found.extend(Change(where, name, value, None) for name, value in left_out.items())
        return (KERAS if was is BatchNorm else was).from_config(config)

    def rewrite(operation: Any, where: str) -> Sequence[Any]:
        if type(operation) is BatchNorm:
            config = operation.get_config()
            config.pop("activation", None)
            chain = [theirs(config, BatchNorm, where)]
            if operation.activation is not keras.activations.linear:
                chain.append(activation_layer(operation, free_name(f"{operation.name}_activation", names)))
                shown = getattr(operation.activation, "__name__", operation.activation)
                found.append(Change(where, "activation", shown, f"layer {chain[-1].name}"))
            return chain
        new = _with_inner(operation, where, {layer.name for layer, _ in layers_in(operation)}, theirs)
        _check_of_keras(new, where)
        return [new]

    new, _ = rebuild(model, rewrite)
    carry_optimizer(model, new)
    if changes is not None:
        changes += found
    return new


#: From the configuration of a normalization layer, its class and where it is to the new layer.
Make = Callable[..., keras.layers.BatchNormalization]


def _with_inner(operation: Any, where: str, names: set[str], make: Make) -> Any:
    """A copy of `operation` whose configuration has new layers in the place of those of `names` in it."""
    if not any(isinstance(layer, KERAS) for layer, _ in layers_in(operation)):
        return clone(operation)
    ours = {type(layer) for layer, _ in layers_in(operation) if isinstance(layer, BatchNorm)}
    classes = {None: KERAS} | {keras.saving.get_registered_name(each): each for each in ours}

    def replace(serialized: dict[str, Any]) -> dict[str, Any]:
        was = classes.get(serialized.get("registered_name"))
        if was is None or serialized["class_name"] != was.__name__ or serialized["config"].get("name") not in names:
            return serialized
        inside = f"{where}/{serialized['config']['name']}"
        # Its calls in the graph of a model stay: a layer may store `model.get_config()`.
        return serialized | keras.saving.serialize_keras_object(make(serialized["config"], was, inside))

    return clone(operation, replaced(configuration(operation), replace))


def _check_class(operation: Any, names: set[str], where: str) -> None:
    """Raises ValueError if one of the normalizations in `operation` that have these names is not kerasbn's."""
    for layer, _ in layers_in(operation):
        if isinstance(layer, KERAS) and layer.name in names and not isinstance(layer, BatchNorm):
            if type(layer) is KERAS:
                why = (
                    f"is in {where!r} of class {type(operation).__name__}, which makes it in Python code. Make it an "
                    "argument of that class, in its configuration"
                )
            else:
                why = (
                    f"is of class {type(layer).__name__}, derived from keras.layers.BatchNormalization, and what that "
                    "class does would be lost. Derive it from kerasbn.BatchNorm"
                )
            raise ValueError(
                f"The normalization {layer.name!r} cannot be converted: it {why}; or leave it out, as in "
                "layers=lambda layer: isinstance(layer, keras.layers.BatchNormalization) and "
                f"layer.name != {layer.name!r}."
            )


def _check_of_keras(operation: Any, where: str) -> None:
    """Raises ValueError if `operation` or a layer in it is kerasbn's, or of a class derived from one of these."""
    for layer, _ in layers_in(operation):
        for cls in type(layer).__mro__:
            if cls.__module__.split(".")[0] == "kerasbn":
                what = f"kerasbn {'BatchNorm' if cls is BatchNorm else cls.__name__}"
                if cls is not type(layer):
                    what = f"{type(layer).__name__}, derived from {what},"
                inside = "" if layer is operation else f" in {where!r}"
                if inside and type(layer) is BatchNorm:
                    inside += ", which makes it in Python code,"
                raise ValueError(
                    f"The layer {layer.name!r} of class {what}{inside} has no equal in Keras. Take it out of "
                    "the model, or load the model where kerasbn is installed."
                )


def _for_keras(config: Mapping[str, Any], where: str, inference_only: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration as Keras's layer has it, and the options that it lacks."""
    config = {name: value for name, value in config.items() if name != "jit_compile"}
    if "activation" in config:
        raise ValueError(
            f"The BatchNorm {where!r} has an activation, {config['activation']!r}, which cannot become a layer of its "
            "own where it is, within another layer. Put the activation behind that."
        )
    axis = config["axis"]
    if isinstance(axis, Sequence):
        if len(axis) > 1:
            raise ValueError(
                f"The BatchNorm {where!r} normalizes along several axes, axis={axis!r}, which Keras's layer cannot. "
                "Load the model where kerasbn is installed."
            )
        config["axis"] = axis[0]
    left_out = {name: config.pop(name) for name in IN_TRAINING_ONLY if name in config}
    if config["momentum"] is None:
        left_out["momentum"] = config.pop("momentum")
    if left_out and not inference_only:
        options = ", ".join(f"{name}={value!r}" for name, value in left_out.items())
        raise ValueError(
            f"The BatchNorm {where!r} has {options}, which Keras's layer lacks. It matters in training only: "
            "to_keras(model, inference_only=True) leaves it out."
        )
    return config, left_out
