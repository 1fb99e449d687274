"""`python -m benchmarks.kernels`: one training step of batch normalization, forward and backward, against its peers.

Every peer gets the same x and dy and gives y, dx, dgamma, dbeta and moving statistics. "floor" is the least that
memory allows: the four passes (read x; read x, write y; read x and dy; read x and dy, write dx) as plain elementwise
and reduction operations of PyTorch, or of NumPy on one core where PyTorch is not installed.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's threads would spin on into the next one's time

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import interleaved, median_ratio, table, write
from kerasbn import BatchNorm

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
MODES = ("graph", "xla")


def layer_step(layer_class, shape, mode, x, dy):
    """A step of a Keras layer, as it is inside `fit`: the batch size is not known to the graph."""
    layer = layer_class()
    layer.build(shape)

    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, *tape.gradient(y, [x, layer.gamma.value, layer.beta.value], dy)

    signature = [tf.TensorSpec((None, *shape[1:]))] * 2
    return ready(tf.function(step, jit_compile=mode == "xla", autograph=False, input_signature=signature), x, dy)


def fused_step(shape, mode, x, dy):
    """TensorFlow's fused operation, which takes four dimensions."""
    image = shape if len(shape) == 4 else (shape[0], 1, 1, shape[1])
    channels = shape[-1]
    gamma, beta = tf.Variable(tf.ones(channels)), tf.Variable(tf.zeros(channels))
    mean, variance = tf.Variable(tf.zeros(channels)), tf.Variable(tf.ones(channels))

    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, m, v = tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=1e-3, is_training=True)
        mean.assign(0.99 * mean + 0.01 * m)
        variance.assign(0.99 * variance + 0.01 * v)
        return y, *tape.gradient(y, [x, gamma, beta], dy)

    signature = [tf.TensorSpec((None, *image[1:]))] * 2
    function = tf.function(step, jit_compile=mode == "xla", autograph=False, input_signature=signature)
    return ready(function, tf.reshape(x, image), tf.reshape(dy, image))


def ready(function, *arguments):
    """A call that returns when the results are there, not when they are promised."""

    def call():
        function(*arguments)[-1].numpy()  # of one number a channel: what is large would be copied

    return call


def floor(shape, x, dy):
    """The four passes, in whatever this machine has that streams on all cores."""
    x, dy = (t.numpy().reshape(-1).copy() for t in (x, dy))
    y = np.empty_like(x)
    try:
        import torch

        x, dy, y = map(torch.from_numpy, (x, dy, y))
        torch.set_num_threads(os.cpu_count())
        add, multiply = torch.add, torch.mul
    except ModuleNotFoundError:
        add, multiply = np.add, np.multiply

    def call():
        x.sum()
        multiply(x, 2.0, out=y)
        x.dot(dy)
        add(x, dy, out=y)

    return call


def functions(shape):
    x, dy = (tf.constant(np.random.default_rng(seed).normal(size=shape), "float32") for seed in (0, 1))
    found = {"floor": floor(shape, x, dy)}
    for mode in MODES:
        found[f"kerasbn {mode}"] = layer_step(BatchNorm, shape, mode, x, dy)
        found[f"keras {mode}"] = layer_step(keras.layers.BatchNormalization, shape, mode, x, dy)
        found[f"fused {mode}"] = fused_step(shape, mode, x, dy)
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few repeats, under a minute")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/kernels.json"), help="where the JSON goes")
    options = parser.parse_args(arguments)
    measured, rows = [], []
    for shape in SHAPES:
        times = interleaved(functions(shape), repeats=5 if options.quick else 40)
        medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
        ratios = {}
        for mode in MODES:
            for peer in (f"keras {mode}", "fused graph"):
                ratios[f"{peer} / kerasbn {mode}"] = round(median_ratio(times[peer], times[f"kerasbn {mode}"]), 2)
            ratios[f"kerasbn {mode} / floor"] = round(median_ratio(times[f"kerasbn {mode}"], times["floor"]), 2)
        measured.append({"shape": shape, "milliseconds": medians, "ratios": ratios})
        if not rows:
            rows.append(["ms, median", *medians, "keras/kerasbn graph", "xla"])
        speed_up = [f"{ratios[f'keras {mode} / kerasbn {mode}']:.1f}x" for mode in MODES]
        rows.append(["x".join(map(str, shape)), *(f"{v:.2f}" for v in medians.values()), *speed_up])
        print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))
    write(options.out, {"benchmark": "kernels", "repeats": 5 if options.quick else 40, "results": measured})
    print(f"\nWritten: {options.out}")


if __name__ == "__main__":
    main()
