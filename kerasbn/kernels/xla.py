"""One function, two ways to run it: as the TensorFlow operations it is written in, or compiled by XLA."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

_is_uncompiled = ContextVar("_is_uncompiled", default=False)


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """A context in which `kerasbn.BatchNorm` layers write TensorFlow operations alone, for export.

    A layer that normalizes with the batch in inference (``training=True``), as in test-time adaptation or pix2pix, is
    exported in training mode. With the default ``jit_compile="auto"`` its graph holds compiled kernels too, if its
    batches may be large, and TFLite and ONNX refuse these. What is traced in this context is as with
    ``jit_compile=False``: all layers, at any depth, also those that other layers make in Python code. Layers and what
    was traced before stay as they are. Inference with the moving statistics needs no context.

    A program that XLA compiles as a whole (``compile(jit_compile=True)``) is compiled in this context, too.

    Returns:
        A context manager. It holds for the thread that enters it.

    Example:
    >>> import keras
    >>> from kerasbn import BatchNorm
    >>> model = keras.Sequential([keras.Input((64, 64, 3)), BatchNorm()])
    >>> signature = [tf.TensorSpec((None, 64, 64, 3))]
    >>> with uncompiled():
    ...     function = tf.function(lambda x: model(x, training=True), input_signature=signature)
    ...     graph = function.get_concrete_function().graph
    >>> any(operation.type == "StatelessIf" for operation in graph.get_operations())
    False
    """
    token = _is_uncompiled.set(True)
    try:
        yield
    finally:
        _is_uncompiled.reset(token)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets the keyword `jit_compile` of a pure function on tensors decide how it is run.

    ``jit_compile=True`` runs it as one XLA program of its own, also when called from an ordinary graph; inside a
    program that XLA compiles already it is inlined. ``False`` runs its operations as they stand, whatever surrounds
    them, and so does `True` where `only_operations`. Arguments that are not tensors are static: each value
    compiles once.
    """

    @functools.cache
    def compiled(fixed: tuple[Any, ...]) -> Callable[..., Any]:
        # One trace for tensors of all sizes: to trace again is a third of what a new size costs.
        return tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)

    @functools.wraps(function)
    def run(*args: Any, jit_compile: bool, **static: Any) -> Any:
        if not jit_compile or only_operations():
            return function(*args, jit_compile=False, **static)
        # In the gradient of a branch or loop, arguments come from the graph outside of it. They must enter the inner
        # graph before the call: what enters while TensorFlow prepares a compiled call, it takes for part of an XLA
        # program, and the branch around it, which is none, does not hand it in.
        args = tf.nest.map_structure(lambda t: None if t is None else tf.identity(t), args)
        # But not of all ranks; and bfloat16 is added up in another way where its last axis is even.
        tensors = [t for t in tf.nest.flatten(args) if t is not None]
        fixed = tuple((len(t.shape), t.shape[-1] if t.dtype == "bfloat16" else None) for t in tensors)
        return compiled(fixed)(*args, jit_compile=True, **static)

    return run


def computed_again(*tensors: tf.Tensor) -> Sequence[tf.Tensor]:
    """The same tensors, of which XLA does not know that they are, and which it has not before it has all of them.

    What is computed from these is computed again, although XLA has the same from before. Only for programs that XLA
    compiles. The operation has no public function; `tf.Graph.create_op` is public.
    """
    if tf.executing_eagerly():  # functions run eagerly, and nothing is compiled
        return tensors
    dtypes = [t.dtype for t in tensors]
    values = tf.compat.v1.AttrValue.ListValue(type=[dtype.as_datatype_enum for dtype in dtypes])
    graph, attributes = tf.compat.v1.get_default_graph(), {"T": tf.compat.v1.AttrValue(list=values)}
    results = graph.create_op("XlaOptimizationBarrier", tensors, dtypes, attrs=attributes).outputs
    for result, tensor in zip(results, tensors, strict=True):
        result.set_shape(tensor.shape)
    return results


def only_operations() -> bool:
    """Whether graphs get TensorFlow operations alone, no kernels and no functions: in `uncompiled`, under a debugger.

    A debugger (`tf.debugging.enable_check_numerics`, `enable_dump_debug_info`) adds operations that XLA cannot compile,
    and names the place where an operation was traced. Public functions begin and end it; none says whether it is on.
    Should the private one go, ``jit_compile=True`` fails under a debugger.
    """
    callbacks = getattr(tf.debugging.enable_check_numerics, "__globals__", {}).get("op_callbacks")
    is_watched = getattr(callbacks, "should_invoke_op_callbacks", None)
    return _is_uncompiled.get() or bool(is_watched and is_watched())


def gradients_are_recorded() -> bool:
    """Whether a tape records, as in a training step, and not in a graph that is exported.

    There is no public way to ask. Should the private one go, the answer is `True`, and batch statistics are exported
    in `uncompiled` only.
    """
    ask = getattr(getattr(tf.custom_gradient, "__globals__", {}).get("record"), "could_possibly_record", None)
    return bool(ask is None or ask())


def inside_xla() -> bool:
    """Whether the graph that is being built becomes part of one XLA program, as with ``compile(jit_compile=True)``.

    There is no public way to ask. TensorFlow marks such graphs with a control flow context, of which the accessor is
    private; should it go, the answer is `True`, with which nothing is wrong and large layers are slower in a graph.
    """
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None:
        if not hasattr(graph, "_get_control_flow_context"):
            return True
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False
