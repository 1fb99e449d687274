"""One function, two ways to run it: as the TensorFlow operations it is written in, or compiled by XLA."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets the keyword `jit_compile` of a pure function on tensors decide how it is run.

    ``jit_compile=True`` runs it as one XLA program of its own, also when called from an ordinary graph; inside a
    program that XLA compiles already it is inlined. ``False`` runs its operations as they stand, whatever surrounds
    them, and so does `True` while a debugger watches operations. Arguments that are not tensors are static: each value
    compiles once.
    """

    @functools.cache
    def compiled(fixed: tuple[Any, ...]) -> Callable[..., Any]:
        # One trace for tensors of all sizes: to trace again is a third of what a new size costs.
        return tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)

    @functools.wraps(function)
    def run(*args: Any, jit_compile: bool, **static: Any) -> Any:
        if not jit_compile or operations_are_watched():
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


def operations_are_watched() -> bool:
    """Whether a debugger adds operations to graphs: `tf.debugging.enable_check_numerics`, `enable_dump_debug_info`.

    XLA cannot compile what they add, and their errors name the place where an operation was traced. Public functions
    begin and end it; none says whether it is on. Should the private one go, the answer is `False`, and
    ``jit_compile=True`` fails under a debugger.
    """
    callbacks = getattr(tf.debugging.enable_check_numerics, "__globals__", {}).get("op_callbacks")
    ask = getattr(callbacks, "should_invoke_op_callbacks", None)
    return bool(ask and ask())


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
