"""Trains many models, and one model with many batch sizes, in one process, and looks what each leaves behind.

Memory and memory maps of the process are read after each model and after each size. XLA gives nothing back of what it
compiled, and Linux ends a process that has too many maps; so what is left must not grow with the number of models.
"""

import sys

from benchmarks import options
from benchmarks.ending import ADVICE, ended

MODELS, QUICK_MODELS = 25, 4
SIZES, QUICK_SIZES = 100, 6


def main(arguments=None):
    parser = options.parser(
        "many_models",
        __doc__,
        quick=f"{QUICK_MODELS} models and {QUICK_SIZES} sizes",
        repeats="1",
        example="--repeats 3",
    )
    options.run("many_models", parser.parse_args(arguments))


if __name__ == "__main__":  # above the imports of what is measured, which take seconds
    sys.exit(ended(main, ADVICE))

import gc
import itertools
import statistics
from pathlib import Path

import keras
import numpy as np

from benchmarks import fresh, report
from benchmarks.memory import resident
from benchmarks.networks import LAYERS
from benchmarks.progress import Progress

NAMES = ("keras", "kerasbn")
NORMALIZATIONS, UNITS, EXAMPLES, BATCH = 6, 32, 72, 32
KINDS = {"models": "a model of six layers, two batch sizes", "sizes": "a batch size not seen before"}


def model_of(layer_class):
    """A network with six normalizations, ready to train."""
    inputs = x = keras.Input((16,))
    for _ in range(NORMALIZATIONS):
        x = keras.layers.ReLU()(layer_class()(keras.layers.Dense(UNITS, use_bias=False)(x)))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def read():
    """MB of a million bytes that are resident, and memory maps."""
    gc.collect()
    return resident()[0] / 1e6, Path("/proc/self/maps").read_bytes().count(b"\n")


def train(name, models, sizes):
    """What the process had after each model, and after each size, in this process, which should be fresh."""
    x = np.random.default_rng(0).normal(size=(max(EXAMPLES, BATCH + sizes), 16)).astype("float32")
    readings = {"models": [], "sizes": []}
    for _ in range(models):
        model = model_of(LAYERS[name])
        model.fit(x[:EXAMPLES], x[:EXAMPLES, :1], BATCH, epochs=2, verbose=0)
        readings["models"].append(read())
    for size in range(BATCH + 1, BATCH + 1 + sizes):
        model.train_on_batch(x[:size], x[:size, :1])
        readings["sizes"].append(read())
    return readings


def growth(readings, column):
    """What one more leaves behind: the mean over the second half, after the warm-up."""
    half = readings[len(readings) // 2 :]
    return (half[-1][column] - half[0][column]) / max(1, len(half) - 1)


def measure(models, sizes, repeats):
    """For each kind of layer and of what there are many of, MB and maps that one more leaves behind."""
    runs = {name: [] for name in NAMES}
    with Progress("many_models", total=len(NAMES) * repeats) as progress:
        for name, repeat in itertools.product(NAMES, range(repeats)):
            runs[name].append(fresh.call("benchmarks.many_models:train", name, models, sizes))
            progress.add(1, f"{name}, {repeat + 1} of {repeats}")
    return [
        {
            "kind": kind,
            **{
                unit: {
                    name: round(statistics.median(growth(run[kind], column) for run in runs[name]), 3) for name in NAMES
                }
                for column, unit in enumerate(("megabytes", "maps"))
            },
        }
        for kind in KINDS
    ]


def rows(content):
    """The table, from what was written."""
    heading = ["one more of these leaves behind", *(f"{unit}, {name}" for unit in ("MB", "maps") for name in NAMES)]
    return [heading] + [
        [KINDS[result["kind"]], *(f"{result[unit][name]:.2f}" for unit in ("megabytes", "maps") for name in NAMES)]
        for result in content["results"]
    ]


def run(chosen):
    """Measures what was chosen, and publishes it."""
    models, sizes = (QUICK_MODELS, QUICK_SIZES) if chosen.quick else (MODELS, SIZES)
    content = {"benchmark": "many_models", "models": models, "sizes": sizes}
    content["results"] = measure(models, sizes, chosen.repeats or 1)
    report.publish(chosen.out, content, rows(content))
