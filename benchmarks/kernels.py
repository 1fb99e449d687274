"""Times one training step of batch normalization, forward and backward, against Keras, TensorFlow and PyTorch.

Every peer gets the same x and dy and gives y, dx, dgamma, dbeta and moving statistics. "floor" is the least that
memory allows: the four passes (read x; read x, write y; read x and dy; read x and dy, write dx) as plain elementwise
and reduction operations of PyTorch, or of NumPy on one core where PyTorch is not installed. "fused" is TensorFlow's
fused operation, which has the channels last.
"""

import argparse
import sys

from benchmarks import options
from benchmarks.ending import ADVICE, ended

SHAPES = [
    (32, 56, 56, 64),
    (64, 28, 28, 256),
    (128, 14, 14, 512),
    (128, 32, 32, 16),
    (64, 32, 32, 16),
    (128, 8, 8, 64),
    (256, 1024),
    (60, 100),
]
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
# Where the channels of an image are, for Keras and kerasbn.
LAYOUTS = {"last": -1, "first": 1, "middle": 2}


def parse_shape(text):
    """A shape such as 32x56x56x64, for argparse."""
    try:
        shape = tuple(map(int, text.split("x")))
    except ValueError:
        shape = ()
    if len(shape) not in (2, 4) or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"must be BATCHxCHANNELS or BATCHxHEIGHTxWIDTHxCHANNELS, got {text!r}")
    return shape


def main(arguments=None):
    parser = options.parser(
        "kernels",
        __doc__,
        quick="5 rounds; under a minute",
        repeats="40",
        example="--quick --shapes 128x8x8x64 60x100 --dtype bfloat16",
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=parse_shape,
        default=SHAPES,
        metavar="NxHxWxC",
        help="batch, height, width (or neither), channels (default: those of docs/performance.md)",
    )
    parser.add_argument("--dtype", choices=POLICIES, default="float32", help="of x; Keras's policies are mixed ones")
    parser.add_argument("--layout", choices=LAYOUTS, default="last", help="where images have their channels, in Keras")
    parser.add_argument(
        "--threads",
        type=options.at_least_one,
        metavar="N",
        help="of an operation, TensorFlow's and PyTorch's (default: as many as there are cores)",
    )
    options.run("kernels", parser.parse_args(arguments))


if __name__ == "__main__":  # above the imports of what is measured, which take seconds
    sys.exit(ended(main, ADVICE))

import contextlib
import math
import os
from importlib.util import find_spec

import keras
import numpy as np
import tensorflow as tf

from benchmarks import floor, fresh, report
from benchmarks.networks import compile_soon
from benchmarks.options import MODES
from benchmarks.progress import Progress
from benchmarks.timing import WARM_UP, in_rounds, median_ratio, medians, timed
from kerasbn import BatchNorm
from kerasbn.kernels import tiered

TORCH = {"torch": "contiguous_format", "torch channels_last": "channels_last"}
# Else PyTorch gets the memory of each step's larger results from the system, page by page: several times the step.
TORCH_ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def data(shape, dtype):
    """x and dy."""
    return [tf.cast(np.random.default_rng(seed).normal(size=shape), dtype) for seed in (0, 1)]


def ready(step, mode, x, dy):
    """A call that returns when the results are there, not when they are promised. As in `fit`, the batch size is not
    known to the graph.
    """
    signature = [tf.TensorSpec((None, *x.shape[1:]), x.dtype)] * 2
    function = tf.function(step, jit_compile=mode == "xla", autograph=False, input_signature=signature)
    return timed(lambda: function(x, dy)[-1].numpy())  # of one number a channel: what is large would be copied


def layer_step(layer_class, mode, axis, x, dy):
    """A step of a Keras layer."""
    layer = layer_class(axis=axis, dtype=POLICIES[x.dtype.name])
    layer.build(x.shape)

    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, *tape.gradient(y, [x, layer.gamma.value, layer.beta.value], dy)

    return ready(step, mode, x, dy)


def fused_step(mode, x, dy):
    """TensorFlow's fused operation, which takes four dimensions."""
    if x.shape.rank == 2:
        x, dy = (t[:, tf.newaxis, tf.newaxis, :] for t in (x, dy))
    channels = x.shape[-1]
    gamma, beta = tf.Variable(tf.ones(channels)), tf.Variable(tf.zeros(channels))
    mean, variance = tf.Variable(tf.zeros(channels)), tf.Variable(tf.ones(channels))

    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, m, v = tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=1e-3, is_training=True)
        mean.assign(0.99 * mean + 0.01 * m)
        variance.assign(0.99 * variance + 0.01 * v)
        return y, *tape.gradient(y, [x, gamma, beta], dy)

    return ready(step, mode, x, dy)


def tensorflow_steps(shape, dtype, layout):
    x, dy = data(shape, dtype)
    axis = LAYOUTS[layout] if len(shape) == 4 else -1
    arranged = [tf.constant(np.moveaxis(t.numpy(), -1, axis)) for t in (x, dy)]
    steps = {}
    for mode in MODES:
        steps[f"kerasbn {mode}"] = layer_step(BatchNorm, mode, axis, *arranged)
        steps[f"keras {mode}"] = layer_step(keras.layers.BatchNormalization, mode, axis, *arranged)
        steps[f"fused {mode}"] = fused_step(mode, x, dy)
    return steps


def torch_steps(process, shape, dtype, threads):
    """PyTorch's steps, which it times in its own process; that is idle meanwhile."""

    def call(function, *arguments):
        return lambda: process.call(f"benchmarks.torch_peer:{function}", *arguments, threads, timeout=60)

    steps = {"floor": call("four_passes", size(shape, dtype))}
    for name, layout in TORCH.items():
        if len(shape) == 4 or layout == "contiguous_format":
            steps[name] = call("batch_norm", shape, layout, dtype)
    return steps


def size(shape, dtype):
    return math.prod(shape) * tf.as_dtype(dtype).size


def measure(shape, dtype, layout, threads, repeats, process):
    compile_soon()
    steps = tensorflow_steps(shape, dtype, layout)
    if process:
        steps |= torch_steps(process, shape, dtype, threads)
    else:
        steps["floor"] = timed(floor.passes(*floor.numbers(size(shape, dtype)), np.multiply, np.add))
    in_rounds(steps, 2)
    tiered.wait_until_compiled()
    times = in_rounds(steps, repeats, WARM_UP)
    ratios = {
        f"{peer} / kerasbn {mode}": median_ratio(times[peer], times[f"kerasbn {mode}"])
        for mode in MODES
        for peer in times
        if not peer.startswith("kerasbn")
    }
    return {"shape": shape, "megabytes": size(shape, dtype) / 1e6, "milliseconds": medians(times), "ratios": ratios}


def rows(content):
    """The table, from what was written."""
    results = content["results"]
    names = max((result["milliseconds"] for result in results), key=len)
    heading = ["shape (MB)", *(f"{name}, ms" for name in names), *(f"Keras / kerasbn, {mode}" for mode in MODES)]
    return [heading] + [
        [
            f"{'x'.join(map(str, result['shape']))} ({result['megabytes']:.1f})",
            *(f"{result['milliseconds'][name]:.2f}" if name in result["milliseconds"] else "-" for name in names),
            *(f"{result['ratios'][f'keras {mode} / kerasbn {mode}']:.1f}" for mode in MODES),
        ]
        for result in results
    ]


def run(chosen):
    """Measures what was chosen, and publishes it."""
    repeats = chosen.repeats or (5 if chosen.quick else 40)
    threads = chosen.threads or os.cpu_count()
    if chosen.threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    has_torch = find_spec("torch") is not None
    results = []
    with (
        fresh.Process(**TORCH_ENVIRONMENT) if has_torch else contextlib.nullcontext() as process,
        Progress("kernels", total=len(chosen.shapes)) as progress,
    ):
        for shape in chosen.shapes:
            results.append(measure(shape, chosen.dtype, chosen.layout, threads, repeats, process))
            progress.add(1, "  ".join(rows({"results": results})[-1]), keep=True)
    content = {"benchmark": "kernels", "dtype": chosen.dtype, "layout": chosen.layout, "threads": threads}
    content |= {"repeats": repeats, "floor": "PyTorch" if has_torch else "NumPy", "results": results}
    report.publish(chosen.out, content, rows(content))
    if not has_torch:
        print("PyTorch is not installed: it has no columns, and the floor is that of NumPy on one core.")
