"""The one place where models are copied: a transform says what takes the place of a layer, this does the rest."""

import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import keras

from kerasbn.arguments import a_model
from kerasbn.transforms.clone import clone, custom_objects
from kerasbn.transforms.graph import Graph, Source, is_model, revive
from kerasbn.transforms.nested_models import models_in, rebuilding


class Change(NamedTuple):
    """One thing that a transform changed.

    Attributes:
        where: The names of the models around the layer and of the layer, as in ``"encoder/conv1"``; or ``"optimizer"``.
        what: What was changed there, such as ``"kernel_regularizer.l2"``.
        old: Its value before.
        new: Its value now; `None` if it is gone.

    Example:
    >>> print(Change("encoder/conv1", "kernel_regularizer.l2", 0.0005, 0.0001))
    encoder/conv1: kernel_regularizer.l2 0.0005 -> 0.0001
    """

    where: str
    what: str
    old: Any
    new: Any

    def __str__(self) -> str:
        """One line."""
        return f"{self.where}: {self.what} {self.old} -> {self.new}"


class Replacement(NamedTuple):
    """An operation of a model, and those that took its place, in the order in which they are called."""

    where: str
    old: Any
    new: Sequence[Any]


#: What a transform is: from an operation (a layer, or one of `keras.ops`) and where it is, to new ones that are called
#: one after another in its place. An empty sequence removes it, `[clone(operation)]` keeps it. The first is called with
#: all arguments if it is of the same class or a related one, and otherwise, as those after it, with the first one.
Rewrite = Callable[[Any, str], Sequence[Any]]


class Rebuilt(NamedTuple):
    """A new model, and what became of each operation of the old one that is not a model itself."""

    model: keras.Model
    replacements: list[Replacement]


def rebuild(
    model: keras.Model, rewrite: Rewrite, recompile: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config
) -> Rebuilt:
    """A new model like `model`, with what `rewrite` gives in the place of each of its operations.

    `model` is left as it is and shares no layer with the new one. Functional and Sequential models are rebuilt with all
    that is nested in them; a layer that is called several times, in whichever of these models, stays one layer. Names,
    classes, dtype policies and `trainable` are kept. Weights and random states are carried over: all of an operation
    that was replaced by one of its class, or of a related one, with as many variables, and otherwise those whose names
    are still there. A compiled model is compiled again with the same settings; the optimizer is new and counts from 0.
    The new model lives under the `tf.distribute` strategy of the old one.

    Args:
        model: A functional or Sequential model.
        rewrite: What takes the place of an operation; see `Rewrite`.
        recompile: From the settings of `compile`, as `keras.Model.get_compile_config` gives them, to those of the new
            model.

    Raises:
        ValueError: If `model` says what it computes only in Python code; if its compile settings cannot be copied.
    """
    rebuilder = _Rebuilder(rewrite)
    with a_model(model).distribute_strategy.scope():
        new = rebuilder.model(model, "")
        _freeze_like(model, rebuilder.twins())
        for replacement in rebuilder.replacements:
            _carry_over(replacement, rebuilder.nested)
        if model.compiled:
            _compile_like(new, model, recompile)
    return Rebuilt(new, rebuilder.replacements)


class _Rebuilder:
    def __init__(self, rewrite: Rewrite) -> None:
        self.rewrite = rewrite
        self.replacements: list[Replacement] = []
        #: The ids of models that are in the configurations of layers, of old ones and of new ones.
        self.nested: set[int] = set()
        self._models: list[tuple[keras.Model, keras.Model]] = []
        self._made: dict[int, Sequence[Any]] = {}

    def twins(self) -> dict[int, Any]:
        """By the ids of old models and layers, the new ones that are most like them."""
        found = {id(old): new for old, new in self._models}
        for _, old, chain in self.replacements:
            found |= {id(old): new for new in reversed(chain) if _related(new, old)}
        return found

    def chain(self, operation: Any, where: str) -> Sequence[Any]:
        """What is called in the place of `operation`: made once, wherever it is called."""
        if id(operation) not in self._made:
            if is_model(operation):
                self._made[id(operation)] = [self.model(operation, where)]
            else:
                with rebuilding(lambda model: self._nested_model(model, where)):
                    self._made[id(operation)] = list(self.rewrite(operation, where))
                self.replacements.append(Replacement(where, operation, self._made[id(operation)]))
        return self._made[id(operation)]

    def _nested_model(self, model: keras.Model, where: str) -> keras.Model:
        """What takes the place of `model` in the configuration of the layer that is `where`."""
        (new,) = self.chain(model, f"{where}/{model.name}")
        self.nested |= {id(model), id(new)}
        return new

    def model(self, model: keras.Model, where: str) -> keras.Model:
        prefix = f"{where}/" if where else ""
        rebuilt = self._sequential if isinstance(model, keras.Sequential) else self._functional
        new = rebuilt(model, prefix)
        self._models.append((model, new))
        return new

    def _sequential(self, model: keras.Sequential, prefix: str) -> keras.Sequential:
        layers = [new for layer in model.layers for new in self.chain(layer, prefix + layer.name)]
        if model.layers and not layers:  # Keras cannot call a Sequential model without any
            layers.append(keras.layers.Activation("linear", dtype=model.layers[-1].dtype_policy))
        first = model.get_config()["layers"][:1]
        if first and first[0]["class_name"] == "InputLayer":  # which is not among `model.layers`
            layers.insert(0, keras.layers.deserialize(first[0]))
        new = type(model)(name=model.name)
        for layer in layers:
            new.add(layer, rebuild=layer is layers[-1])
        return new

    def _functional(self, model: keras.Model, prefix: str) -> keras.Model:
        graph = Graph(model)
        tensors: dict[Source, Any] = {}
        for name, operation in graph.operations.items():
            if isinstance(operation, keras.layers.InputLayer):
                entrance = clone(operation)
                tensors[Source(name, 0, 0)] = entrance.output
                self.replacements.append(Replacement(prefix + name, operation, [entrance]))
        for name, call, arguments in graph.calls():
            operation = graph.operations[name]
            args, kwargs = (revive(arguments[part], tensors.__getitem__) for part in ("args", "kwargs"))
            chain = self.chain(operation, prefix + name)
            if chain and _related(chain[0], operation):
                results = chain[0](*args, **kwargs)
                chain = chain[1:]
            else:  # what is of another class may not know the other arguments, such as `training`
                results = next(iter((*args, *kwargs.values())))
            for after in chain:
                results = after(results)
            for output, result in enumerate(keras.tree.flatten(results)):
                tensors[Source(name, call, output)] = result

        def find(structure: Any) -> Any:
            if isinstance(structure, Source):
                return tensors[structure]
            if isinstance(structure, dict):
                return {key: find(item) for key, item in structure.items()}
            return type(structure)(find(item) for item in structure)

        return type(model)(inputs=find(graph.inputs), outputs=find(graph.outputs), **graph.rest)


def _related(new: Any, old: Any) -> bool:
    """Whether they are of one class, or of one that the other is derived from: called alike, with the same weights."""
    return isinstance(new, type(old)) or isinstance(old, type(new))


def hidden_layers(layer: Any) -> list[Any]:
    """The layers in `layer` that no transform reaches: those of a model or pipeline that calls them in Python code."""
    inside = getattr(layer, "layers", None)
    inside = inside if isinstance(inside, list | tuple) else []
    return [hidden for sublayer in inside for hidden in (sublayer, *hidden_layers(sublayer))]


def _carry_over(replacement: Replacement, nested: Set[int]) -> None:
    """Weights, random states and what preprocessing layers have learned, from the old to the new ones.

    What is in a model whose id is among `nested` has that already.
    """
    old = replacement.old
    if not isinstance(old, keras.layers.Layer):
        return
    for new in replacement.new:
        if _related(new, old):
            if old.built and not new.built:  # in a Sequential model without input shape
                new.build_from_config(old.get_build_config())
    before = _variables(old, nested)
    after = [variable for new in replacement.new for variable in _variables(new, nested)]
    if not (len(replacement.new) == 1 and _related(replacement.new[0], old)) or len(before) != len(after):
        by_name = {name: variable for variable in before for name in (variable.name, variable.path)}
        after = [variable for variable in after if {variable.path, variable.name} & by_name.keys()]
        before = [by_name.get(variable.path, by_name.get(variable.name)) for variable in after]
    for source, target in zip(before, after, strict=True):
        target.assign(source.numpy())
        target.trainable = source.trainable
    for new in replacement.new:
        if hasattr(old, "save_assets") and isinstance(new, type(old)):  # vocabularies
            with tempfile.TemporaryDirectory() as folder:
                old.save_assets(folder)
                new.load_assets(folder)
        elif hasattr(new, "finalize_state"):  # what is computed from weights once they are known
            new.finalize_state()


def _variables(layer: keras.layers.Layer, nested: Set[int]) -> list[keras.Variable]:
    """The variables of `layer` besides those of models in it whose ids are among `nested`."""
    inside = {id(v) for model in models_in(layer) if id(model) in nested for v in model.variables}
    return [variable for variable in layer.variables if id(variable) not in inside]


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that are attributes of `layer`, or in a list that is one."""
    values = [item for v in vars(layer).values() for item in (v if isinstance(v, list | tuple) else [v])]
    return [value for value in values if isinstance(value, keras.layers.Layer)]


def _freeze_like(model: keras.Model, twins: Mapping[int, Any]) -> None:
    """Sets `trainable`, which Keras's configurations leave out, on what took the place of `model` and of all in it.

    Args:
        model: The old model.
        twins: From the ids of old models and layers to new ones. Layers within other layers are found by their place.
    """
    pairs: list[tuple[Any, Any]] = []
    seen: set[int] = set()

    def visit(old: Any, new: Any) -> None:
        if new is None or id(old) in seen:
            return
        seen.add(id(old))
        places: Iterable[Any] = itertools.repeat(None) if is_model(old) else sublayers(new)
        for inside, at_its_place in zip(old.layers if is_model(old) else sublayers(old), places, strict=False):
            visit(inside, twins.get(id(inside), at_its_place))
        pairs.append((old, new))

    visit(model, twins[id(model)])
    # A flag that is set on a layer is set on all in it: so what is around a layer comes before it.
    for old, new in reversed(pairs):
        new.trainable = old.trainable


def _compile_like(new: keras.Model, model: keras.Model, recompile: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    # The layers' own custom objects have no part in this, and could bear the same names.
    own = custom_objects(vars(model).values(), without=keras.layers.Layer)
    try:
        with keras.saving.custom_object_scope(own):
            new.compile_from_config(recompile(model.get_compile_config()))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The settings that {model.name!r} was compiled with cannot be copied: {error} Give functions a name, with "
            "`def` in place of `lambda`; or hand in a model that is not compiled, and compile the one that you get."
        ) from error
