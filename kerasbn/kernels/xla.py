"""One function, two ways to run it: as the TensorFlow operations it is written in, or compiled by XLA."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets the keyword `jit_compile` of a pure function on tensors decide how it is run.

    ``jit_compile=True`` runs it as one XLA program of its own, also when called from an ordinary graph; inside a
    program that XLA compiles already it is inlined. ``False`` runs its operations as they stand, whatever surrounds
    them. Arguments that are not tensors are static: each value compiles once.
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def run(*args: Any, jit_compile: bool, **static: Any) -> Any:
        if not jit_compile:
            return function(*args, jit_compile=False, **static)
        # In the gradient of a branch or loop, arguments come from the graph outside of it. They must enter the inner
        # graph before the call: what enters while TensorFlow prepares a compiled call, it takes for part of an XLA
        # program, and the branch around it, which is none, does not hand it in.
        return compiled(
            *tf.nest.map_structure(lambda t: None if t is None else tf.identity(t), args), jit_compile=True, **static
        )

    return run
