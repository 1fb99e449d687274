"""Batch normalizations of a PyTorch network in a Keras model."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasbn.arguments import built
from kerasbn.layers.arguments import number
from kerasbn.layers.batch_norm import BatchNorm
from kerasbn.selection import batch_norms
from kerasbn.transforms.clone import clone
from kerasbn.transforms.flow import trace
from kerasbn.transforms.rebuild import rebuild

#: PyTorch's names, with those of Keras.
NAMES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def from_torch_state(
    model: keras.Model,
    state: Mapping[str, Any] | str | os.PathLike,
    names: Mapping[str, str] | None = None,
    *,
    momentum: float | None = 0.1,
    epsilon: float = 1e-5,
) -> keras.Model:
    """A copy of `model` whose batch normalizations have the weights of those of a PyTorch network.

    | PyTorch | Keras |
    |---|---|
    | `weight`, `bias` | `gamma`, `beta`; 1 and 0 where PyTorch has none (``affine=False``) |
    | `running_mean`, `running_var` | `moving_mean`, `moving_variance` |
    | ``momentum=m``, the share of the new value | ``momentum=1 - m``, the share of the old one |
    | ``momentum=None``, `num_batches_tracked` | `BatchNorm` with ``momentum=None``, `moving_count` |
    | ``eps=1e-5`` | ``epsilon=1e-5``; Keras's default is 1e-3 |

    PyTorch's `running_var` takes the unbiased variance, as `BatchNorm` with ``unbiased=True``, and Keras's the biased
    one; that matters to how it goes on, not to inference. Other weights of the network are not looked at.

    Args:
        model: A functional or Sequential model with as many batch normalizations as the network has, of Keras or
            kerasbn, not in wrappers. It is left as it is.
        state: What ``network.state_dict()`` gives, from names to tensors on the CPU or arrays; or the path of an
            ``.npz`` file of the same names, ``np.savez(path, **{name: value.numpy() for name, value in
            network.state_dict().items()})``. No pickle is loaded.
        names: From the names of layers in Keras (in nested models ``"backbone/bn1"``) to those of modules in PyTorch,
            ``"layer1.0.bn1"``; layers that are not named stay. Or `None`: one after the other, in the order in which
            `model` calls them and in which the state has them, that of the network's constructor. In a residual network
            the two may differ, about the shortcuts: give names.
        momentum: Float in [0, 1] or `None`, PyTorch's argument, which no state has.
        epsilon: Float, not negative: PyTorch's `eps`, which no state has.

    Returns:
        A new model, compiled as `model` was, with a new optimizer.

    Raises:
        ValueError: If a number is out of its range; if the normalizations do not match in number, names, shapes, or in
            what they have; if ``momentum=None`` is given for a layer of Keras, which lacks it.

    Example:
    >>> layers = [keras.layers.Dense(2), keras.layers.BatchNormalization(name="bn")]
    >>> state = {"bn.weight": [1, 2], "bn.bias": [0.0, 0.5], "bn.running_mean": [3, 4], "bn.running_var": [5, 6]}
    >>> layer = from_torch_state(keras.Sequential([keras.Input((3,)), *layers]), state).get_layer("bn")
    >>> layer.moving_variance.numpy().tolist(), layer.momentum, layer.epsilon
    ([5.0, 6.0], 0.9, 1e-05)

    Reference:
        PyTorch, torch.nn.BatchNorm2d, https://pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html
    """
    built(model)
    epsilon = number("epsilon", epsilon, 0)
    settings = {"epsilon": epsilon, "momentum": None if momentum is None else 1 - number("momentum", momentum, 0, 1)}
    modules = _modules(state)
    partners = _partners(_layers(model), modules, names)
    values = {
        where: _values(layer, where, module, modules[module], epsilon) for where, (layer, module) in partners.items()
    }
    for where, (layer, _) in partners.items():
        if momentum is None and not isinstance(layer, BatchNorm):
            raise ValueError(
                f"Argument `momentum` must be a number for layers of Keras, as is {where!r}. Received: momentum=None. "
                "Convert the model first: kerasbn.convert(model, momentum=None)."
            )

    def rewrite(operation: Any, where: str) -> Sequence[Any]:
        if where not in partners:
            return [clone(operation)]
        return [clone(operation, operation.get_config() | settings)]

    new, replacements = rebuild(model, rewrite)
    for replacement in replacements:
        for name, value in values.get(replacement.where, {}).items():
            if hasattr(replacement.new[0], name):  # No `moving_count` with a momentum.
                getattr(replacement.new[0], name).assign(value)
    return new


def _modules(state: Mapping[str, Any] | str | os.PathLike) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of each batch normalization, by the name of the module; those that have running statistics."""
    if isinstance(state, str | os.PathLike):
        with np.load(state, allow_pickle=False) as file:
            state = dict(file)
    if not isinstance(state, Mapping):
        raise TypeError(
            "Argument `state` must be a dictionary of arrays, as `network.state_dict()`, or the path of an .npz file. "
            f"Received: an object of class {type(state).__name__}."
        )
    found = {}
    for key in state:
        module, _, name = key.rpartition(".")
        if name == "running_mean":
            parts = {part: f"{module}.{part}" if module else part for part in (*NAMES, "num_batches_tracked")}
            found[module] = {part: np.asarray(state[key]) for part, key in parts.items() if key in state}
    if not found:
        raise ValueError(
            "Argument `state` must have the running statistics of a batch normalization, names that end in "
            f"'running_mean'. Received: {sorted(state)[:5]}. Is it `network.state_dict()`?"
        )
    return found


def _layers(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """The normalizations by where they are, in the order in which they are first called."""
    meant = {id(layer) for layer in batch_norms(model)}
    found: dict[int, tuple[str, Any]] = {}
    for call in trace(model):
        if id(call.operation) in meant:
            found.setdefault(id(call.operation), (call.where, call.operation))
    hidden = [layer.name for layer in batch_norms(model) if id(layer) not in found]
    if hidden:
        raise ValueError(
            "Argument `model` must have its normalizations in functional and Sequential models. "
            f"Received: {hidden}, which are within other layers."
        )
    return dict(found.values())


def _partners(
    layers: Mapping[str, Any], modules: Mapping[str, Any], names: Mapping[str, str] | None
) -> dict[str, tuple[Any, str]]:
    """For each layer that gets weights, by where it is, the layer and the module they come from."""
    if names is None:
        if len(layers) != len(modules):
            raise ValueError(
                f"Argument `names` must say which layer is which module, as there are {len(layers)} layers, "
                f"{list(layers)}, and {len(modules)} modules, {list(modules)}. Received: names=None."
            )
        names = dict(zip(layers, modules, strict=True))
    if not isinstance(names, Mapping):
        raise TypeError(
            "Argument `names` must be a dictionary from layers to modules, or None. "
            f"Received: an object of class {type(names).__name__}."
        )
    for name, module in names.items():
        if name not in layers or module not in modules:
            raise ValueError(
                f"Argument `names` must lead from layers, which are {list(layers)}, to modules, which are "
                f"{list(modules)}. Received: {name!r}: {module!r}."
            )
    return {name: (layers[name], module) for name, module in names.items()}


def _values(
    layer: Any, where: str, module: str, arrays: Mapping[str, np.ndarray], epsilon: float
) -> dict[str, np.ndarray]:
    """What the variables of `layer` become, by their attributes."""
    shape = tuple(layer.moving_mean.shape)
    found = {"gamma": np.ones(shape), "beta": np.zeros(shape)}
    found |= {NAMES[part]: value for part, value in arrays.items() if part in NAMES}
    if layer.renorm:
        stddev = np.sqrt(found["moving_variance"] + epsilon)
        found |= {"moving_stddev": stddev, "renorm_stddev": stddev, "renorm_mean": found["moving_mean"]}
    if "num_batches_tracked" in arrays:
        found["moving_count"] = np.broadcast_to(arrays["num_batches_tracked"], shape)
    for name in ("gamma", "beta"):
        if getattr(layer, name) is None:
            value = found.pop(name)
            if name in (NAMES[part] for part in arrays if part in NAMES):
                raise ValueError(
                    f"Layer {where!r} must have a {name}, as {module!r} has. Received: a layer without, {value.size} "
                    "values. Make it with center=True and scale=True."
                )
    for name, value in found.items():
        if value.shape != shape:
            raise ValueError(
                f"Layer {where!r} must have as many channels as {module!r}. Received: {name} of shape {value.shape} "
                f"for shape {shape}."
            )
    return found
