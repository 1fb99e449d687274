"""The inference network: last part of Alg. 2, each normalization one affine map, in the weights of a neighbour."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kerasbn.transforms.affine_map import AffineMap, Refused
from kerasbn.transforms.affine_passing import backward, forward
from kerasbn.transforms.clone import activation_layer, clone, free_name, inner_layer
from kerasbn.transforms.flow import Call, by_operation, trace
from kerasbn.transforms.inference_normalization import Normalization, is_normalization
from kerasbn.transforms.linear_layers import Linear, is_linear, linear
from kerasbn.transforms.rebuild import Change, rebuild, sublayers


def fold(model: keras.Model, *, changes: list[Change] | None = None) -> keras.Model:
    r"""The inference network of `model`: what `predict` computes, without batch normalization.

    In inference a normalization is an affine map of each channel (Alg. 2, line 11),

        y = a * x + b    with a = gamma / sqrt(moving_variance + epsilon), b = beta - a * moving_mean

    so that a linear layer before it, ``x = W u + c``, computes both with other weights, as does one behind it:

        y = (a * W) u + (a * c + b)        W y + c = (W * a) x + (W b + c)

    Linear layers are those of Keras called `Dense`, `EinsumDense`, `Conv*`, `Conv*Transpose`, `DepthwiseConv*` and
    `SeparableConv*`, also in a `TimeDistributed`. The one before is taken if there is one: if it has no activation and
    if all of its results go to the normalization and nowhere else. On the way there may be dropout, average pooling,
    cropping, upsampling, reshaping, maximum pooling unless an `a` is negative, `Add` and `Concatenate` (all of whose
    inputs must come from such layers). Otherwise it goes into the layers behind it, if all of its results go to such
    layers; where these pad with zeros, as with ``padding="same"``, every `b` must be 0. Normalizations in a row become
    one. What finds no place becomes a layer `Affine`, as between an `Add` and a ReLU.

    Layers that are called several times are folded if they have the same neighbour in each of these calls. Nested
    models are gone through as if their layers were those of the model. A normalization that is in a layer of another
    class, whose Python code calls it, stays there. The activation of a `BatchNorm` becomes a layer. Weights are
    computed in float64 and then cast. Layers of different compute dtypes are kept apart.

    The result is for inference: no weight in it is trainable, so that penalties on weights are no part of its loss.

    Args:
        model: A functional or Sequential model. It is left as it is.
        changes: Optional list, to which a `Change` is appended for each normalization, with the layers that it was
            folded into, or with the reasons that it became an affine layer or was kept; and for each bias that is new.

    Returns:
        A new model with the inputs and outputs of `model`, and their names, compiled as `model` was. Layers keep their
        names. What takes the place of a normalization, if anything does, has its name.

    Raises:
        ValueError: If `model` is not functional or Sequential, or has a normalization that is not built.
        TypeError: If `model` is no Keras model.

    Example:
    >>> normalization = keras.layers.BatchNormalization(beta_initializer="ones", name="bn")
    >>> layers = [keras.layers.Conv2D(4, 3, use_bias=False, name="conv"), normalization]
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.ReLU(name="relu")])
    >>> changes = []
    >>> [layer.name for layer in fold(model, changes=changes).layers]
    ['conv', 'relu']
    >>> print(*changes, sep="\n")
    conv: use_bias False -> True
    bn: normalization BatchNormalization -> folded into conv

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Alg. 2, lines 8-12.
    """
    plan = _Plan(trace(model))
    new, replacements = rebuild(model, plan.rewrite)
    with model.distribute_strategy.scope():
        for replacement in replacements:
            plan.assign(replacement.old, replacement.new)
    new.trainable = False
    if changes is not None:
        changes += plan.changes
    return new


class _Plan:
    """Which normalization goes where, decided before the first layer is replaced."""

    def __init__(self, calls: list[Call]) -> None:
        self.changes: list[Change] = []
        operations = by_operation(calls)
        self._calls = {id(operation): calls_of_it for operation, calls_of_it in operations}
        self._names = {operation.name for operation, _ in operations}
        self._outputs = {id(call.operation) for call in calls[-1].inputs}
        layers = [operation for operation, _ in operations if is_normalization(operation)]
        # By the id of a layer: normalizations that are there, with all that was folded into them; those that are not,
        # but for their activation; linear layers with other weights; and what became of each normalization.
        self._normalizations = {id(layer): Normalization(layer) for layer in layers}
        self._gone: dict[int, Normalization] = {}
        self._linear: dict[int, Linear] = {}
        self._fate: dict[int, str] = {}
        self._fold(layers)
        self._say_what_happened(operations)

    def rewrite(self, operation: Any, where: str) -> list[Any]:
        """What takes the place of `operation`. What is an output of the model keeps its name."""
        name = operation.name
        if id(operation) in self._gone:
            gone = self._gone[id(operation)]
            if gone.has_activation:
                return [activation_layer(gone.inner, name)]
            named = [keras.layers.Activation("linear", name=name, dtype=gone.inner.dtype_policy)]
            return named if id(operation) in self._outputs else []
        if id(operation) in self._normalizations:
            normalization = self._normalizations[id(operation)]
            if normalization.has_activation:
                affine = normalization.as_layer(free_name(f"{name}_affine", self._names))
                return [affine, activation_layer(normalization.inner, name)]
            return [normalization.as_layer(name)]
        if id(operation) in self._linear:
            return [clone(operation, self._linear[id(operation)].config())]
        return [clone(operation)]

    def assign(self, old: Any, new: Sequence[Any]) -> None:
        """Gives the layers that took the place of `old` their weights."""
        state = self._normalizations.get(id(old)) or self._linear.get(id(old))
        if state is not None:
            state.assign_to(new[0])

    def _fold(self, layers: list[keras.layers.Layer]) -> None:
        """Moves the maps of the normalizations `layers`, in this order, into other layers, where they can go."""
        remaining = []
        for layer in layers:
            try:
                self._move(layer, to_front=True)
            except Refused as refused:
                remaining.append((layer, str(refused)))
        # Those that are gone by now are in nobody's way.
        for layer, reason in remaining:
            try:
                self._move(layer, to_front=False)
            except Refused as refused:
                self._fate[id(layer)] = f"Affine: {reason}; {refused}"

    def _move(self, layer: keras.layers.Layer, to_front: bool) -> None:
        """Moves the map of `layer` to the layers before or behind it, or raises Refused and changes nothing."""
        normalization = self._normalizations[id(layer)]
        reached: list[tuple[Call, AffineMap]] = []
        for call in self._calls[id(layer)]:
            if to_front:
                reached += self._before(call.inputs[0], call, normalization.affine)
            else:
                normalization.check_goes_forward()
                reached += self._behind(call, normalization.affine)
        taking = by_operation(call for call, _ in reached)
        changed = {}
        for operation, _ in taking:
            state, affine = self._state(operation), self._the_same(reached, operation)
            changed[id(operation)] = state.after(affine) if to_front else state.before(affine)
        for identity, state in changed.items():
            (self._normalizations if isinstance(state, Normalization) else self._linear)[identity] = state
        self._gone[id(layer)] = self._normalizations.pop(id(layer))
        self._fate[id(layer)] = "folded into " + ", ".join(calls[0].where for _, calls in taking)

    def _before(self, source: Call, user: Call, affine: AffineMap) -> list[tuple[Call, AffineMap]]:
        """The calls of linear layers that make the result of `source`, an input of `user`, what `affine` makes of it.

        With each the map of its own result.
        """
        operation = source.operation
        if operation is None:
            raise Refused("an input of the model is before it")
        if source.users != [user]:
            others = [other.where for other in source.users if other is not user]
            raise Refused(f"{operation.name} goes to {(others or [user.where])[0]}, too")
        _check_precision(operation, user.operation)
        if self._takes(operation):
            return [(source, affine)]
        maps = [affine] if self._passes(operation) else backward(operation, affine)
        inputs = zip(source.inputs, maps, strict=False)  # a mask may be among the inputs, as the last one
        return [found for before, map_before in inputs for found in self._before(before, source, map_before)]

    def _behind(self, source: Call, affine: AffineMap) -> list[tuple[Call, AffineMap]]:
        """The calls of linear layers that do what `affine` does to the result of `source`.

        With each the map of its own input.
        """
        found = []
        for user in source.users:
            operation = user.operation
            if operation is None:
                raise Refused("an output of the model is behind it")
            if user.inputs != [source]:
                raise Refused(f"{operation.name} ({type(operation).__name__}) is behind it")
            _check_precision(operation, source.operation)
            if self._takes(operation):
                found.append((user, affine))
            else:
                found += self._behind(user, affine if self._passes(operation) else forward(operation, affine))
        return found

    def _takes(self, operation: Any) -> bool:
        """Whether `operation` is of a kind that takes maps."""
        return id(operation) in self._normalizations or is_linear(operation)

    def _state(self, operation: Any) -> Any:
        """What is known by now of a layer that takes maps."""
        return self._normalizations.get(id(operation)) or self._linear.get(id(operation)) or linear(operation)

    def _passes(self, operation: Any) -> bool:
        """Whether `operation` is a normalization of which nothing is left."""
        return id(operation) in self._gone and not self._gone[id(operation)].has_activation

    def _the_same(self, reached: list[tuple[Call, AffineMap]], operation: Any) -> AffineMap:
        """The map that reached `operation` at each of its calls."""
        maps = {id(call): affine for call, affine in reached}
        affine, *others = [maps.get(id(call)) for call in self._calls[id(operation)]]
        if affine is None or any(other is None or not np.array_equal(affine, other) for other in others):
            raise Refused(f"{operation.name} is called elsewhere, too")
        return affine

    def _say_what_happened(self, operations: list[tuple[Any, list[Call]]]) -> None:
        for operation, calls in operations:
            where = calls[0].where
            if id(operation) in self._fate:
                kind = type(inner_layer(operation)).__name__
                self.changes.append(Change(where, "normalization", kind, self._fate[id(operation)]))
            elif id(operation) in self._linear:
                self.changes += [Change(where, *change) for change in self._linear[id(operation)].changes()]
            else:
                hidden_ones = _normalizations_in(operation, set())
                for hidden in (layer for layer in hidden_ones if id(layer) not in self._fate):
                    kind = type(hidden).__name__
                    reason = f"kept: the Python code of {type(operation).__name__} says what it computes"
                    path = where if hidden is operation else f"{where}/{hidden.name}"
                    self.changes.append(Change(path, "normalization", kind, reason))


def _check_precision(operation: Any, neighbour: Any) -> None:
    """Raises Refused if one of two operations casts what comes from, or goes to, the other."""
    dtypes = [getattr(inner_layer(one), "compute_dtype", None) for one in (operation, neighbour)]
    if None not in dtypes and dtypes[0] != dtypes[1]:
        raise Refused(f"{operation.name} computes in {dtypes[0]}")


def _normalizations_in(layer: Any, seen: set[int]) -> Iterator[keras.layers.Layer]:
    """The normalizations that `layer` is, or that are in it."""
    if isinstance(layer, keras.layers.Layer) and id(layer) not in seen:
        seen.add(id(layer))
        if isinstance(layer, keras.layers.BatchNormalization):
            yield layer
        for inside in sublayers(layer):
            yield from _normalizations_in(inside, seen)
