"""Batch normalization at the nonlinearities of a network that has none: first half of Alg. 2."""

from collections.abc import Callable
from typing import Any

import keras

from kerasbn import layer_kinds
from kerasbn.layer_kinds import LINEAR
from kerasbn.layers import arguments
from kerasbn.layers.batch_norm import BatchNorm
from kerasbn.transforms.clone import activation_layer, clone, free_name, inner_layer
from kerasbn.transforms.flow import Call, by_operation, followers, trace
from kerasbn.transforms.output_layers import output_layers
from kerasbn.transforms.rebuild import Change, hidden_layers, rebuild

PLACES = ("pre_activation", "post_activation")

#: Where to normalize a layer, from the layer: one of `PLACES`, `True` for the first, `None` or `False` for nowhere.
Where = str | Callable[[keras.layers.Layer], str | bool | None]

#: Layers that are nonlinearities. An `Activation` may be linear.
NONLINEAR = (
    keras.layers.Activation,
    keras.layers.ELU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ReLU,
    keras.layers.Softmax,
)

#: The operations that are nonlinearities, ``Relu`` of `keras.ops.relu`: they are called as the activations of Keras.
NONLINEAR_OPERATIONS = {name.replace("_", "") for name in dir(keras.activations)} - {"linear"}

#: Layers and operations that only give their values another shape or order.
REARRANGING = (keras.layers.Flatten, keras.layers.Identity, keras.layers.Permute, keras.layers.Reshape)
REARRANGING_OPERATIONS = {"ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose"}

#: And those that may come between a linear layer and its nonlinearity: a residual sum, a concatenation, a pooling.
BETWEEN = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.Concatenate,
    keras.layers.Maximum,
    keras.layers.Subtract,
    *layer_kinds.NOISE,
    *layer_kinds.AVERAGE_POOLING,
    *layer_kinds.GLOBAL_AVERAGE_POOLING,
    *layer_kinds.GLOBAL_MAX_POOLING,
    *layer_kinds.MAX_POOLING,
    *layer_kinds.CROPPING,
    *layer_kinds.UPSAMPLING,
    *layer_kinds.ZERO_PADDING,
)
BETWEEN_OPERATIONS = {"Add", "AveragePool", "Concatenate", "MaxPool", "Maximum", "Pad", "Subtract"}


def batch_normalize(
    model: keras.Model, where: Where = "pre_activation", *, changes: list[Change] | None = None, **layer_arguments: Any
) -> keras.Model:
    """A copy of `model` with `BatchNorm` at its nonlinearities, as lines 1 to 5 of Alg. 2 build it.

    For a linear layer and its nonlinearity, ``y = g(W u + b)``, the copy computes (Sec. 3.2)

        y = g(BN(W u))        with `"pre_activation"`, or
        y = BN(g(W u + b))    with `"post_activation"`.

    Before the nonlinearity the bias goes, as the normalization subtracts it again and has one of its own, `beta`. All
    other weights are carried over. The statistics of the new layers start as those of any new layer: train, or estimate
    them, before you evaluate.

    Linear layers are those of Keras called `Dense`, `Conv*`, `DepthwiseConv*` and `SeparableConv*`, also in a
    `TimeDistributed`. The nonlinearity is their `activation`, which is split off as a layer of its own, or the
    `Activation`, `ReLU` and so on that follows, directly or after layers that keep what is linear or order: dropout,
    pooling, reshaping, the `Add` of a residual block. Nested models are gone through as if their layers were those of
    the model, and so is a model in a `TimeDistributed`, where the batch of each time step is normalized alone. What
    follows is left alone:

    - output layers: those after which no other linear layer comes on the way to an output of the model, whatever else
      does: a nonlinearity, a factor, a global pooling, a `Rescaling`. Every layer with a kernel counts as linear here,
      a recurrent one or a custom one, too;
    - layers whose result already goes through a `BatchNormalization`, before or after the nonlinearity;
    - linear layers that no nonlinearity follows, and those with ``trainable=False``, which stay what they are;
    - layers of other kinds and what is within them: recurrent layers, attention, custom layers.

    An `activity_regularizer` stays with the linear layer, whose result is ``W u`` now.

    Args:
        model: A functional or Sequential model. It is left as it is.
        where: `"pre_activation"`, `"post_activation"`, or a function from a linear layer to one of the two, to `True`
            for the first, or to `None` or `False` for a layer to be left alone.
        changes: Optional list, to which a `Change` is appended for each layer that was added, each bias that was
            dropped, and each activation that was split off.
        **layer_arguments: Those of `BatchNorm`. `axis` is that of the channels if not given, 1 for channels-first
            convolutions. `name` and `activation` are not allowed.

    Returns:
        A new model, compiled as `model` was, with a new optimizer. The layers of `model` keep their names; the new ones
        are called after them, `conv1_bn` and `conv1_activation` after `conv1`. A layer that is called several times
        has one normalization, called as often.

    Raises:
        ValueError: If `where` or a layer argument is not one of those allowed; if `model` is not functional or
            Sequential, or has linear layers in a nested model that is not (unless `where` is a function that gives
            `None` for it); if layers share a nonlinearity behind which each would need a normalization of its own.
        TypeError: If `model` is no Keras model.

    Example:
    >>> layers = [keras.layers.Dense(5, activation="relu", name="hidden"), keras.layers.Dense(2, name="logits")]
    >>> model = batch_normalize(keras.Sequential([keras.Input((3,)), *layers]), momentum=0.9)
    >>> [layer.name for layer in model.layers]
    ['hidden', 'hidden_bn', 'hidden_activation', 'logits']
    >>> model.layers[0].use_bias, model.layers[1].momentum
    (False, 0.9)

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, Alg. 2, lines 1-5, and Sec. 3.2.
    """
    if not callable(where):
        arguments.one_of("where", where, PLACES)
    for name in {"name", "activation"} & layer_arguments.keys():
        raise ValueError(
            f"Argument `{name}` of BatchNorm cannot be given: each new layer has a name of its own, and the "
            f"nonlinearity stays a layer of its own. Received: {name}={layer_arguments[name]!r}."
        )
    BatchNorm(**layer_arguments)  # raises for what is not allowed, whether there is a layer to normalize or not
    plan = _Plan(trace(model), where, layer_arguments)
    new, _ = rebuild(model, plan.rewrite)
    if changes is not None:
        changes += plan.changes
    return new


class _Plan:
    """Which layers are normalized where, decided before the first of them is replaced."""

    def __init__(self, calls: list[Call], where: Where, layer_arguments: dict[str, Any]) -> None:
        self.changes: list[Change] = []
        self._arguments = layer_arguments
        self._names = {call.operation.name for call in calls if call.operation is not None}
        # By the id of the operation behind which the normalization goes, the linear layer whose channels it has.
        self._before_activation: dict[int, keras.layers.Layer] = {}
        self._after_activation: dict[int, keras.layers.Layer] = {}
        normalized: dict[int, set[int]] = {}  # by the id of a nonlinearity's call, those linear layers
        operations, outputs = by_operation(calls), output_layers(calls)
        for layer, calls_of_layer in operations:
            if isinstance(layer, keras.Model):
                _check_nothing_hidden(layer, calls_of_layer[0].where, where)
            nonlinearities = [] if id(layer) in outputs else _nonlinearities(layer, calls_of_layer)
            place = _place(layer, where) if nonlinearities else None
            if place == "pre_activation":
                self._before_activation[id(layer)] = layer
            if place == "post_activation":
                for call in nonlinearities:
                    self._after_activation[id(call.operation)] = layer
                    normalized.setdefault(id(call), set()).add(id(layer))
        for operation, calls_of_operation in operations:
            if id(operation) in self._after_activation:
                if len({frozenset(normalized.get(id(call), ())) for call in calls_of_operation}) > 1:
                    raise ValueError(
                        f"The nonlinearity {calls_of_operation[0].where!r} is called {len(calls_of_operation)} times, "
                        "behind different layers, each of which would need a normalization of its own behind it. "
                        "Give each of them a nonlinearity of its own, or normalize with where='pre_activation'."
                    )

    def rewrite(self, operation: Any, where: str) -> list[Any]:
        """What takes the place of `operation`."""
        if id(operation) in self._before_activation:
            return self._without_activation(operation, where)
        if id(operation) in self._after_activation:
            return [clone(operation), self._normalization(operation, where, self._after_activation[id(operation)])]
        return [clone(operation)]

    def _without_activation(self, layer: keras.layers.Layer, where: str) -> list[keras.layers.Layer]:
        """The layer without bias and activation, its normalization, and its activation if it has one."""
        inner = inner_layer(layer)
        config = layer.get_config()
        inner_config = config if inner is layer else config["layer"]["config"]
        inner_config.update(use_bias=False, activation="linear")
        chain = [clone(layer, config), self._normalization(layer, where, layer)]
        if inner.use_bias:
            self.changes.append(Change(where, "use_bias", True, False))
        if inner.activation is not keras.activations.linear:
            chain.append(activation_layer(inner, self._name(layer, "activation")))
            name = getattr(inner.activation, "__name__", inner.activation)
            self.changes.append(Change(where, "activation", name, f"layer {chain[-1].name}"))
        return chain

    def _normalization(self, operation: Any, where: str, layer: keras.layers.Layer) -> BatchNorm:
        """A normalization behind `operation` of the channels of `layer`."""
        inner = inner_layer(layer)
        axis = -1
        if getattr(inner, "data_format", None) == "channels_first":
            axis = 1 if inner is layer else 2
        settings = {"axis": axis, "dtype": inner.dtype_policy} | self._arguments
        new = BatchNorm(name=self._name(operation, "bn"), **settings)
        self.changes.append(Change(where, "normalization", None, f"layer {new.name}"))
        return new

    def _name(self, operation: Any, suffix: str) -> str:
        return free_name(f"{operation.name}_{suffix}", self._names)


def _place(layer: keras.layers.Layer, where: Where) -> str | None:
    """One of `PLACES`, or `None`."""
    if not callable(where):
        return where
    place = arguments.one_of(f"where({layer.name!r})", where(layer), (*PLACES, True, False, None))
    return "pre_activation" if place is True else place or None


def _nonlinearities(layer: Any, calls: list[Call]) -> list[Call]:
    """The calls of the nonlinearity of a linear layer, its own or those that follow; none if it is to be left alone."""
    if not isinstance(inner_layer(layer), LINEAR) or not layer.trainable:
        return []
    first = [follower for call in calls for follower in followers(call, _is_between)]
    if inner_layer(layer).activation is keras.activations.linear:
        nonlinearities = [follower for follower in first if is_nonlinear(follower.operation)]
    else:
        nonlinearities = calls
    beyond = [b for call in nonlinearities for b in followers(call, lambda op: _is_between(op) or is_nonlinear(op))]
    if any(isinstance(call.operation, keras.layers.BatchNormalization) for call in (*first, *beyond)):
        return []
    return nonlinearities


def is_nonlinear(operation: Any) -> bool:
    """Whether `operation` is a nonlinearity."""
    if isinstance(operation, keras.layers.Layer):
        return isinstance(operation, NONLINEAR) and not _is_linear_activation(operation)
    return type(operation).__name__.lower() in NONLINEAR_OPERATIONS


def _is_linear_activation(operation: Any) -> bool:
    """As at the end of models with mixed precision: `Activation("linear", dtype="float32")`."""
    return isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.linear


def rearranges(operation: Any) -> bool:
    """Whether `operation` leaves its values as they are."""
    if isinstance(operation, keras.layers.Layer):
        return isinstance(operation, REARRANGING) or _is_linear_activation(operation)
    return type(operation).__name__ in REARRANGING_OPERATIONS


def _is_between(operation: Any) -> bool:
    if isinstance(operation, keras.layers.Layer):
        return isinstance(operation, BETWEEN) or rearranges(operation)
    return type(operation).__name__ in BETWEEN_OPERATIONS or rearranges(operation)


def _check_nothing_hidden(model: keras.Model, name: str, where: Where) -> None:
    """Raises ValueError if `model`, which is not functional, has layers that should be normalized."""
    hidden = [layer for layer in hidden_layers(model) if isinstance(inner_layer(layer), LINEAR) and layer.trainable]
    if hidden and _place(model, where):
        raise ValueError(
            f"Layer {hidden[0].name!r} of class {type(hidden[0]).__name__} is in {name!r}, a model of class "
            f"{type(model).__name__} that calls its layers in Python code, so it cannot be normalized. Build that "
            "model with the functional API, or leave it alone: where=lambda layer: not isinstance(layer, keras.Model)."
        )
