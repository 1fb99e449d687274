"""Times trainings from their first step on, in fresh processes, where graphs are traced and kernels compiled.

Each process trains for `--steps` steps; the last batch of each epoch is half as large. What is compared is the time
from the start of `fit` to the end of a step: it holds all that a user waits for. After that each process meets batch
sizes that it has not seen, one step each.
"""

import statistics
import time

import keras
import numpy as np

from benchmarks import each_network, fresh
from benchmarks.networks import NETWORKS, compiled, examples
from benchmarks.timing import in_rounds, median_ratio

LAYERS = ("keras", "kerasbn")
#: The steps after which time is read, as far as a training goes.
READ = (1, 2, 10, 100, 1000)
#: Of full batches in an epoch, behind which comes half of one.
FULL_BATCHES = 19
#: How many sizes that were never seen.
NEW_SIZES = 8
#: Steps of a training: MobileNetV2's are slow.
STEPS = {"MLP": 1000, "Inception": 1000, "ResNet-20": 1000, "MobileNetV2": 100}
QUICK_STEPS = 10


class Clock(keras.callbacks.Callback):
    """When each step ended, in seconds of training. Ends the training after `steps`."""

    def __init__(self, steps):
        super().__init__()
        self.seconds, self._steps = [], steps

    def on_train_begin(self, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self._start)
        if len(self.seconds) == self._steps:
            self.model.stop_training = True


def train(name, layer, mode, steps):
    """Trains in this process, which should be fresh."""
    model, batch = compiled(name, layer, mode), NETWORKS[name].batch
    inputs, labels = examples(model, FULL_BATCHES * batch + batch // 2)
    clock = Clock(steps)
    epochs = -(-steps // (FULL_BATCHES + 1))
    model.fit(inputs, labels, batch, epochs, verbose=0, callbacks=[clock])
    new = []
    for missing in range(1, NEW_SIZES + 1):
        start = time.perf_counter()
        model.train_on_batch(inputs[: batch - missing], labels[: batch - missing])
        new.append(time.perf_counter() - start)
    usual = np.diff([0, *clock.seconds])[-(FULL_BATCHES + 1) :]
    return {
        "seconds": {step: clock.seconds[step - 1] for step in READ if step <= steps},
        "usual_step": statistics.median(usual),
        # The first call of `train_on_batch` prepares it.
        "new_size": statistics.median(new[1:]),
    }


def measure(name, mode, repeats, steps=None):
    steps = steps or STEPS[name]
    runs = in_rounds(
        {
            layer: lambda layer=layer: fresh.call("benchmarks.startup:train", name, layer, mode, steps)
            for layer in LAYERS
        },
        repeats,
    )
    read = [str(step) for step in READ if step <= steps]
    seconds = {layer: {step: [run["seconds"][step] for run in runs[layer]] for step in read} for layer in LAYERS}
    new = [run["new_size"] for run in runs["kerasbn"]]
    return {
        "batch": NETWORKS[name].batch,
        "seconds": {
            layer: {step: round(statistics.median(values), 3) for step, values in seconds[layer].items()}
            for layer in LAYERS
        },
        "kerasbn / keras": {step: median_ratio(seconds["kerasbn"][step], seconds["keras"][step]) for step in read},
        "new size, in steps of Keras": median_ratio(new, [run["usual_step"] for run in runs["keras"]]),
    }


def rows(content):
    """The table, from what was written."""
    read = [str(step) for step in READ]
    heading = ["model, batch", "mode", *(f"after {step}: Keras, s" for step in read)]
    heading += [f"kerasbn / Keras after {step}" for step in read] + ["a new batch size, in steps of Keras"]

    def cells(values, form):
        return [form.format(values[step]) if step in values else "" for step in read]

    return [heading] + [
        [
            f"{result['model']}, {result['batch']}",
            result["mode"],
            *cells(result["seconds"]["keras"], "{:.2f}"),
            *cells(result["kerasbn / keras"], "{:.2f}"),
            f"{result['new size, in steps of Keras']:.1f}",
        ]
        for result in content["results"]
    ]


def main(arguments=None):
    each_network.main(
        "startup",
        __doc__,
        measure,
        rows,
        arguments,
        repeats=lambda network: 1 if network == "MobileNetV2" else 3,
        repeats_help="1 of MobileNetV2, 3 of the others",
        quick_models=("MLP",),
        quick_repeats=1,
    )


if __name__ == "__main__":
    main()
