"""One trace for all layers: Python builds the graph of a function once, and every layer calls it.

To trace is what a training step costs at the start: a layer has some fifty operations in each direction, and Python
needs a tenth of a second for them. A call of a function that is traced already is one operation.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kerasbn.kernels.xla import inside_xla, only_operations

Specs = tuple[tuple[tuple[int | None, ...], tf.DType], ...]


def shared_trace(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a pure function on tensors one that is traced once for all tensors of the same ranks and dtypes.

    Tensors may be anywhere in nested tuples of arguments; all else in these is static and hashable, and there is a
    trace for each value. The function is called as it is inside a program that XLA compiles as a whole, where functions
    run eagerly (`tf.config.run_functions_eagerly`), and where there are to be `only_operations`: what a debugger adds
    must not stay in the trace, and should name the layer that it is of.

    The keyword `inlined` says whether TensorFlow writes the function into each graph that calls it, and optimizes it
    there. A call takes 0.05 ms, which counts in a layer of some hundred numbers; but to optimize a function again for
    each of fifty layers takes seconds.

    A keyword `jit_compile`, if the function has it, may be a boolean tensor in a graph: it says which of two traces
    runs, that with `True` or that with `False`. Nothing of the other is prepared or compiled.
    """

    @functools.cache
    def trace(arguments: "_Structure", specs: Specs, inlined: bool) -> Callable[..., Any]:
        def flat(*tensors: tf.Tensor) -> Any:
            args, keywords = arguments.filled_with(tensors)
            return function(*args, **dict(keywords))

        traced = tf.function(flat, autograph=False, experimental_attributes={"_noinline": not inlined})
        # The trace belongs to nobody: not to the loop, the branch or the device where it is called first.
        with tf.init_scope(), tf.device(None):
            return traced.get_concrete_function(*(tf.TensorSpec(shape, dtype) for shape, dtype in specs))

    @functools.wraps(function)
    def run(*args: Any, inlined: bool = False, **keywords: Any) -> Any:
        if tf.config.functions_run_eagerly() or inside_xla() or only_operations():
            return function(*args, **keywords)
        which = keywords.get("jit_compile")
        ways = (True, False) if tf.is_tensor(which) else (which,)
        traces = []
        for way in ways:
            static = keywords if which is None else keywords | {"jit_compile": way}
            arguments, tensors = _Structure.of((args, tuple(sorted(static.items()))))
            traces.append(trace(arguments, tuple(map(_spec, tensors)), inlined))
        return traces[0](*tensors) if len(traces) == 1 else _one_of(which, traces, tensors)

    return run


def _one_of(condition: tf.Tensor, ways: Sequence[Any], tensors: Sequence[tf.Tensor]) -> Any:
    """The first of two traces, called with the tensors, where the condition is `True`; else the second.

    `tf.cond` would write both into the graph, and prepare both when the graph runs for the first time; this operation
    prepares what it runs.
    """
    then, otherwise = ways
    structure, outputs = _Structure.of(then.structured_outputs)
    results = tf.raw_ops.StatelessIf(
        cond=condition,
        input=tensors,
        Tout=[output.dtype for output in outputs],
        then_branch=then,
        else_branch=otherwise,
    )
    for result, output in zip(results, outputs, strict=True):
        result.set_shape(output.shape)
    return structure.filled_with(tuple(results))


def _spec(tensor: tf.Tensor) -> tuple[tuple[int | None, ...], tf.DType]:
    """Rank and dtype. How bfloat16 is added up depends on its last axis (`kernels/reduction.py`)."""
    shape: list[int | None] = [None] * len(tensor.shape)
    if tensor.dtype == "bfloat16":
        shape[-1] = tensor.shape[-1]
    return tuple(shape), tensor.dtype


class _Structure:
    """Nested values with the tensors taken out: what is static in them."""

    def __init__(self, static: Any) -> None:
        self._static = static

    @classmethod
    def of(cls, nested: Any) -> tuple["_Structure", list[tf.Tensor]]:
        tensors = [leaf for leaf in tf.nest.flatten(nested) if tf.is_tensor(leaf)]
        return cls(tf.nest.map_structure(lambda leaf: _TENSOR if tf.is_tensor(leaf) else leaf, nested)), tensors

    def filled_with(self, tensors: tuple[tf.Tensor, ...]) -> Any:
        given = iter(tensors)
        return tf.nest.map_structure(lambda leaf: next(given) if leaf is _TENSOR else leaf, self._static)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Structure) and self._static == other._static

    def __hash__(self) -> int:
        return hash(self._static)


#: Where a tensor goes.
_TENSOR = object()
