"""Trains a small network for very many steps, with validation and every callback, and looks whether anything grows.

Resident memory, Python's own memory, threads, open files and traces of the network are read after each epoch. What the
first quarter of the training does is warm-up: it traces, compiles and removes dropout. After it nothing may grow: no
thread, no open file, no trace, and memory by no more than `MEMORY` MB and by no more than `SLOPE` MB in 1,000 steps.
Those leave room for the allocator: one epoch of Keras saving files and nothing else moves memory by 0.1 MB up or down.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import options
from benchmarks.ending import ADVICE, ended

STEPS, FEWEST = 20_000, 80


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__.split("\n\n")[0],
        epilog="Example: python -m benchmarks.soak --steps 2000",
    )
    parser.add_argument("--steps", type=options.at_least_one, default=STEPS, metavar="N", help="(default: %(default)s)")
    options.add_out(parser, "soak")
    chosen = parser.parse_args(arguments)
    if chosen.steps < FEWEST:
        parser.error(f"argument --steps: must be at least {FEWEST}, of which a quarter is warm-up, got {chosen.steps}")
    return options.run("soak", chosen)


if __name__ == "__main__":  # above the imports of what is measured, which take seconds
    sys.exit(ended(main, ADVICE))

import gc
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, fields

import keras
import numpy as np
import tensorflow as tf

import kerasbn
from benchmarks import report
from benchmarks.memory import resident
from benchmarks.progress import Progress
from kerasbn import callbacks, monitors

EPOCHS = 200
BATCH, FEATURES, CLASSES = 32, 16, 4
#: The part of the epochs in which everything may grow.
WARM_UP = 0.25
#: How many MB of a million bytes resident memory may grow after it, in all and in 1,000 steps.
MEMORY, SLOPE = 32.0, 2.0
#: MB that come and go with garbage and buffers.
NOISE = 8.0


@dataclass
class Reading:
    """What the process has after so many steps."""

    step: int
    megabytes: float
    objects: int
    threads: int
    files: int
    traces: int


class Traced(keras.layers.Layer):
    """Passes on what it gets, and counts how often its Python code is run: once in each trace."""

    traces = 0

    def call(self, x):
        Traced.traces += 1
        return x


class Reader(keras.callbacks.Callback):
    """Reads the state of the process at the end of each epoch."""

    def __init__(self, progress):
        super().__init__()
        self.readings: list[Reading] = []
        self._steps, self._progress = 0, progress

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1

    def on_epoch_end(self, epoch, logs=None):
        gc.collect()
        self.readings.append(read(self._steps))
        self._progress.add(1, str(self.readings[-1]))


def read(step):
    """The state of this process. Linux's /proc has it."""
    return Reading(
        step=step,
        megabytes=round(resident()[0] / 1e6, 2),
        objects=len(gc.get_objects()),
        threads=len(list(Path("/proc/self/task").iterdir())),
        files=len(list(Path("/proc/self/fd").iterdir())),
        traces=Traced.traces,
    )


def network():
    """Dense layers with normalization of both kinds, dropout and a schedule, compiled."""
    keras.utils.set_random_seed(0)
    layers = [
        Traced(),
        keras.layers.Dense(32, use_bias=False, name="first"),
        kerasbn.BatchNorm(name="ours"),
        keras.layers.ReLU(name="relu"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(32, use_bias=False, name="second"),
        keras.layers.BatchNormalization(name="theirs"),
        keras.layers.ReLU(),
        keras.layers.Dense(CLASSES),
    ]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 1000, 0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
    return model


def every_callback(x, y, folder):
    """All that kerasbn has, and those of Keras that keep something, with files in `folder`."""

    def into(name):
        return {"file": folder / f"{name}.csv", "log_dir": folder / name}

    few, labels = x[:64], y[:64]
    return [
        callbacks.LearningRateAcceleration(2.0, on_divergence="backoff"),
        callbacks.DropoutRemoval(at=2),
        callbacks.PopulationStatistics((x,), steps=2, when="validation"),
        callbacks.StopOnDivergence(),
        kerasbn.distribute.BackupAndRestore(folder / "backup", double_checkpoint=True),
        monitors.ActivationPercentiles(few, ["relu"], **into("percentiles")),
        monitors.ActivationStatistics(few, ["relu"], **into("activations")),
        monitors.CovariateShift(few, ["ours"], **into("shift")),
        monitors.GradientStatistics(few, labels, ["second"], **into("gradients")),
        keras.callbacks.ModelCheckpoint(folder / "best.keras", save_best_only=True),
        keras.callbacks.CSVLogger(folder / "log.csv"),
    ]


def soak(steps):
    """Trains for `steps`; a reading after each epoch."""
    epochs = min(EPOCHS, steps // 10)
    random = np.random.default_rng(0)
    x = random.normal(size=(512, FEATURES)).astype("float32")
    y = np.argmax(x[:, :CLASSES] + random.normal(size=(512, CLASSES)), 1)
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).repeat().batch(BATCH)
    Traced.traces = 0
    with tempfile.TemporaryDirectory() as folder, Progress("soak", total=epochs) as progress:
        reader = Reader(progress)
        network().fit(
            data,
            epochs=epochs,
            steps_per_epoch=steps // epochs,
            validation_data=(x[:128], y[:128]),
            shuffle=False,  # the data are
            callbacks=[*every_callback(x, y, Path(folder)), reader],
            verbose=0,
        )
    return reader.readings


def verdict(readings):
    """What grew after the warm-up: a sentence for each; none if nothing did."""
    steady = readings[int(len(readings) * WARM_UP) :]
    half = len(steady) // 2
    said = []
    for name in ("threads", "files", "traces"):  # threads of data pipelines come and go
        before, after = (max(getattr(each, name) for each in part) for part in (steady[:half], steady[half:]))
        if after > before:
            said.append(f"{name} grew from {before} to {after}")
    megabytes, slope = growth(steady)
    if megabytes > MEMORY:
        said.append(f"memory grew by {megabytes:.1f} MB, more than {MEMORY:g}")
    if megabytes > NOISE and slope > SLOPE:
        said.append(f"memory grew by {slope:.2f} MB in 1,000 steps, more than {SLOPE:g}")
    return said


def growth(steady):
    """MB by which the median of the last quarter is above that of the first, and that in 1,000 steps."""
    part = max(1, len(steady) // 4)
    first, last = steady[:part], steady[-part:]
    megabytes, steps = (
        statistics.median(getattr(each, name) for each in last)
        - statistics.median(getattr(each, name) for each in first)
        for name in ("megabytes", "step")
    )
    return megabytes, 1000 * megabytes / steps


def rows(content):
    """The table, from what was written: ten readings of all."""
    readings = content["results"]
    shown = readings[:: max(1, len(readings) // 10)]
    return [[field.name for field in fields(Reading)], *([f"{value:g}" for value in each.values()] for each in shown)]


def run(chosen):
    """Trains, publishes what was read, and returns the exit status."""
    start = time.perf_counter()
    readings = soak(chosen.steps)
    megabytes, slope = growth(readings[int(len(readings) * WARM_UP) :])
    grown = verdict(readings)
    content = {
        "benchmark": "soak",
        "steps": chosen.steps,
        "seconds": round(time.perf_counter() - start),
        "megabytes_grown": round(megabytes, 2),
        "megabytes_in_1000_steps": round(slope, 3),
        "verdict": "; ".join(grown) or "nothing grew",
        "results": [asdict(reading) for reading in readings],
    }
    report.publish(chosen.out, content, rows(content))
    print(f"After the warm-up: {content['verdict']}. Memory: {megabytes:+.2f} MB, {slope:+.3f} in 1,000 steps.")
    return 1 if grown else 0
