"""Which of the ways to compute a thing is taken, and the measurements that say so (docs/performance.md)."""

import itertools
import math
import os
from collections.abc import Sequence

import tensorflow as tf

from kerasbn.kernels.view import View
from kerasbn.kernels.xla import inside_xla

#: A part of a batch smaller than this is not worth the launch of a program. On two cores whole and halved batches are
#: even at 2 MB, halves are 1.1 times faster at 4 MB and 1.2 times at 25 MB.
PART_BYTES = 2**20

#: Of the smallest batch that is compiled in time (`kernels/tiered.py`) the parts are not smaller than `PART_BYTES`.
MOST_PARTS = 4

#: TensorFlow shares the memory of slices along the first axis if rows are multiples of this, and copies others.
ALIGNMENT = 64


def on_cpu() -> bool:
    """Whether what is traced here will run on a CPU: it is placed there, or there is nothing else.

    What is not placed goes to an accelerator if there is one.
    """
    if all(device.device_type == "CPU" for device in tf.config.list_logical_devices()):
        return True
    # An operation is the one public way to ask where operations are placed. Nobody uses it, so it never runs.
    placed = tf.DeviceSpec.from_string(tf.zeros([]).device)
    return placed.device_type == "CPU"


def number_of_parts(x: tf.Tensor, view: View) -> int:
    """In how many parts a compiled batch is reduced, side by side: about one a core.

    The loop that adds rows runs on one core. A graph runs what does not wait for each other at the same time, so two
    cores are through with half a batch each in half the time. Parts are slices along the first axis, which share the
    memory of `x`. Inside one XLA program they would be copies, and run one after the other.

    Where the graph does not know the size of the batch it is taken for a large one: small ones are compiled only if the
    user says so, and then parts of them cost a launch each.
    """
    first, size = view.runs[0]
    row = [*x.shape[len(first) :]]
    if tf.executing_eagerly() or inside_xla() or not on_cpu() or size is not None or None in row:
        return 1
    if x.dtype.size * math.prod(row) % ALIGNMENT:
        return 1
    most = min(_cores(), MOST_PARTS)
    if None in x.shape:
        return most
    return max(1, min(x.dtype.size * math.prod(x.shape) // PART_BYTES, most))


def cut(tensors: Sequence[tf.Tensor | None], parts: int) -> list[Sequence[tf.Tensor | None]]:
    """Cuts the first axis of all tensors into so many parts, as equal as can be."""
    if parts == 1:
        return [tensors]
    rows = tf.shape(tensors[0])[0]
    bounds = [rows * part // parts for part in range(parts + 1)]
    return [[None if t is None else t[a:b] for t in tensors] for a, b in itertools.pairwise(bounds)]


def _cores() -> int:
    """The cores that TensorFlow may use at once."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threading = tf.config.threading
    settings = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
    return min(here, *(setting or here for setting in settings))
