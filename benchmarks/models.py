"""`python -m benchmarks.models`: a training step of whole models without normalization, with Keras's layer and with
kerasbn.

What a user pays is the overhead: the step with normalization minus the step without. The last column is kerasbn's
overhead as a part of Keras's. Steps are those of `Model.train_on_batch`-like functions: forward, backward, SGD,
moving statistics.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import interleaved, table, write
from kerasbn import BatchNorm

LAYERS = {"no BN": None, "keras": keras.layers.BatchNormalization, "kerasbn": BatchNorm}
MODES = ("graph", "xla")


def normalize(x, layer_class):
    return x if layer_class is None else layer_class()(x)


def resnet20(layer_class):
    """He et al. 2016, Sec. 4.2, for CIFAR-10; without normalization as it is but for the layers."""
    inputs = keras.Input((32, 32, 3))

    def conv(x, filters, stride=1, relu=True):
        x = keras.layers.Conv2D(filters, 3, stride, "same", use_bias=layer_class is None)(x)
        x = normalize(x, layer_class)
        return keras.layers.ReLU()(x) if relu else x

    x = conv(inputs, 16)
    for filters in (16, 32, 64):
        for block in range(3):
            stride = 2 if block == 0 and filters > 16 else 1
            shortcut = x if x.shape[-1] == filters else keras.layers.Conv2D(filters, 1, stride)(x)
            x = conv(conv(x, filters, stride), filters, relu=False)
            x = keras.layers.ReLU()(keras.layers.Add()([x, shortcut]))
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


def mlp(layer_class):
    """That of the MNIST example."""
    inputs = x = keras.Input((784,))
    for _ in range(3):
        x = keras.layers.Dense(100, use_bias=layer_class is None)(x)
        x = keras.layers.Activation("sigmoid")(normalize(x, layer_class))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


MODELS = {"ResNet-20": (resnet20, 128), "MLP": (mlp, 60)}


def training_step(build, layer_class, batch, mode):
    """A call that does one step of a compiled model, with the batch size unknown to its graph, as `fit` has it."""
    keras.utils.set_random_seed(0)
    model = build(layer_class)
    model.compile(
        # So small a rate that nothing diverges without normalization: NaN is slow to compute with.
        keras.optimizers.SGD(1e-6),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=mode == "xla",
    )
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=(batch, *model.input_shape[1:])), "float32")
    y = tf.constant(random.integers(0, 10, batch))
    model.make_train_function()
    iterator = iter(tf.data.Dataset.from_tensor_slices((x, y)).batch(batch).cache().repeat())  # of unknown batch size
    return lambda: [float(v) for v in tf.nest.flatten(model.train_function(iterator))]


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few repeats, under a minute")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/models.json"), help="where the JSON goes")
    options = parser.parse_args(arguments)
    measured, rows = [], [["model", "mode", *LAYERS, "overhead, kerasbn / keras"]]
    for name, (build, batch) in MODELS.items():
        for mode in MODES:
            functions = {label: training_step(build, layer, batch, mode) for label, layer in LAYERS.items()}
            repeats = (200 if name == "MLP" else 20) // (4 if options.quick else 1)
            times = interleaved(functions, repeats)
            medians = {label: round(statistics.median(values), 3) for label, values in times.items()}
            rounds = zip(*(times[label] for label in LAYERS), strict=True)
            share = round(
                statistics.median((ours - without) / (theirs - without) for without, theirs, ours in rounds), 2
            )
            measured.append({"model": name, "batch": batch, "mode": mode, "milliseconds": medians, "overhead": share})
            rows.append([name, mode, *(f"{v:.2f} ms" for v in medians.values()), f"{share:.2f}"])
            print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))
    write(options.out, {"benchmark": "models", "results": measured})
    print(f"\nWritten: {options.out}")


if __name__ == "__main__":
    main()
