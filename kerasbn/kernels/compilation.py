"""Whether XLA compiles a layer where the user leaves it to us, and what it compiles then."""

import functools
import math
from typing import NamedTuple

import tensorflow as tf

from kerasbn.kernels import passes, tiered
from kerasbn.kernels.batch_norm import Settings
from kerasbn.kernels.xla import inside_xla, only_operations

#: No larger batch is expected of a graph that does not know its size: layers that are small even then are not counted.
LARGE_BATCH = 128


class Program(NamedTuple):
    """All that compiled kernels of a layer depend on but the number of rows.

    Attributes:
        row: The shape of a collapsed batch without the first axis.
        dtype: Of the batch.
        mask_row: The shape of a collapsed mask without the first axis, or `None`.
        settings: Of the layer.
        parts: In how many parts the batch is reduced.
        moments_apart: Whether something comes between the moments and the normalization.
        sums_apart: Whether something comes between the sums and the gradient of the input.
    """

    row: tuple[int, ...]
    dtype: tf.DType
    mask_row: tuple[int, ...] | None
    settings: Settings
    parts: int
    moments_apart: bool
    sums_apart: bool

    @classmethod
    def of(cls, x: tf.Tensor, mask: tf.Tensor | None, settings: Settings, parts: int, **apart: bool) -> "Program":
        """That of a collapsed batch."""
        mask_row = None if mask is None else tuple(mask.shape[1:])
        return cls(tuple(x.shape[1:]), x.dtype, mask_row, settings, parts, **apart)

    def compile_for(self, rows: int) -> None:
        """Runs all kernels once, so that they are compiled for so many rows on the device."""
        run = {"settings": self.settings, "parts": self.parts, "jit_compile": True}

        # TensorFlow shares what it compiled for a graph with all other graphs, but not with eager calls.
        @tf.function(autograph=False)
        def each_once(x, mask, vector):
            moments = passes.find_moments(x, mask, **run) if self.moments_apart else None
            y, moments, _ = passes.normalize(x, mask, moments, vector, vector, None, update=None, **run)
            values = (x, mask, x, moments, vector, vector)
            sums = passes.find_parameter_gradients(*values, **run) if self.sums_apart else None
            dx, sums = passes.differentiate(*values, sums, **run)
            return tf.reduce_max(y), tf.reduce_max(dx), sums

        axes = self.settings.axes
        vector = [1 if axis in axes else size for axis, size in enumerate((rows, *self.row))]
        mask = None if self.mask_row is None else tf.ones((rows, *self.mask_row), "bool")
        each_once(tf.zeros((rows, *self.row), self.dtype), mask, tf.ones(vector, self.settings.statistics_dtype))


def compiles(x: tf.Tensor, program: Program, flat: tf.Tensor) -> bool | tf.Tensor:
    """Whether the kernels for a batch `x` are compiled: yes, no, or a boolean tensor that says so when it runs.

    In eager mode inputs change shape at will. Nothing is compiled where there are to be `only_operations`. A program
    that XLA compiles as a whole gets the kernels that are made for it. In a graph on CPUs large batches are compiled in
    time (`kernels/tiered.py`); accelerators add in trees, as TensorFlow's operations do there.
    """
    if tf.executing_eagerly() or not tf.test.is_built_with_xla() or only_operations():
        return False
    if inside_xla():
        return True
    if not program.settings.on_cpu or None in program.row or _is_deterministic():
        return False
    sample = list(x.shape[1:])
    batch = LARGE_BATCH if x.shape[0] is None else x.shape[0]
    if None not in sample and x.dtype.size * math.prod(sample) * batch < tiered.MIN_BYTES:
        return False
    return tiered.takes_over(flat, program, functools.partial(Program.compile_for, program))


def _is_deterministic() -> bool:
    """Whether the user asked TensorFlow for results that agree to the last bit.

    There is a public function to ask for it and none to see whether it was; should the private one go, the answer is
    `False`, and results still agree as long as the compiler is as fast as expected (`kernels/tiered.py`).
    """
    ask = getattr(tf.config.experimental.enable_op_determinism, "__globals__", {}).get("is_op_determinism_enabled")
    return bool(ask and ask())
