"""Times training from its first step on, in fresh processes, where graphs are traced and kernels compiled.

What is compared is the time from the start of `fit` to the end of a step: it holds all that a user waits for. In a
graph, the last batch of each epoch is half as large, and at the end each process meets batch sizes that it has not
seen, one step each. Under XLA (`compile(jit_compile=True)`) the first two steps are what there is to wait for.
"""

import sys

from benchmarks import each_network
from benchmarks.ending import ADVICE, ended


def main(arguments=None):
    results = each_network.main(
        "startup",
        __doc__,
        arguments,
        repeats=lambda network: 3 if network in ("MLP", "Inception") else 1,
        repeats_help="3 of MLP and Inception, 1 of the others",
        quick_models=("MLP",),
        quick_repeats=1,
    )
    late = [f"{result['model']}, {result['mode']}" for result in results if result.get("traced late")]
    print(f"kerasbn's steps that were traced again after the first epoch: {'; '.join(late) or 'none'}.")


if __name__ == "__main__":  # above the imports of what is measured, which take seconds
    sys.exit(ended(main, ADVICE))

import itertools
import statistics
import time

import keras

from benchmarks import fresh
from benchmarks.networks import NETWORKS, compiled, examples
from benchmarks.timing import in_rounds, median_ratio

LAYERS = ("keras", "kerasbn")
#: The steps after which time is read, as far as training goes.
READ = (1, 2, 10, 100, 1000)
#: Full batches in an epoch, before half of one.
FULL_BATCHES = 19
#: How many sizes follow each other at the end; two are left out, as they prepare `train_on_batch`.
NEW_SIZES = 9
#: Steps in a graph. Those of the others take a twentieth to a third of a second each.
STEPS = {"MLP": 1000, "Inception": 100, "ResNet-20": 100, "MobileNetV2": 100}


class Clock(keras.callbacks.Callback):
    """When each step ended, in seconds of training, and how often it had been traced. Ends training after `steps`."""

    def __init__(self, model, steps):
        super().__init__()
        self.seconds, self.traces, self._steps, self._traced = [], [], steps, 0
        train_step = model.train_step

        def traced_step(data):  # Python runs it when it is traced, and then only
            self._traced += 1
            return train_step(data)

        model.train_step = traced_step

    def on_train_begin(self, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self._start)
        self.traces.append(self._traced)
        if len(self.seconds) == self._steps:
            self.model.stop_training = True


def train(name, layer, mode, steps):
    """Trains in this process, which should be fresh."""
    model, batch = compiled(name, layer, mode), NETWORKS[name].batch
    inputs, labels = examples(model, FULL_BATCHES * batch + batch // 2)
    clock = Clock(model, steps)
    model.fit(inputs, labels, batch, -(-steps // (FULL_BATCHES + 1)), verbose=0, callbacks=[clock])
    found = {"seconds": {str(step): clock.seconds[step - 1] for step in READ if step <= steps}}
    if mode == "graph":
        ends = clock.seconds[-FULL_BATCHES:]
        found["usual_step"] = statistics.median(after - before for before, after in itertools.pairwise(ends))
        new = [one_step(model, inputs, labels, batch - missing) for missing in range(NEW_SIZES)]
        found["new_size"] = statistics.median(new[2:])
        found["traced_late"] = clock.traces[-1] - clock.traces[min(FULL_BATCHES, steps - 1)]
    return found


def one_step(model, inputs, labels, batch):
    """Seconds."""
    start = time.perf_counter()
    model.train_on_batch(inputs[:batch], labels[:batch])
    return time.perf_counter() - start


def measure(name, mode, repeats):
    steps = STEPS[name] if mode == "graph" else 2

    def process(layer):
        return lambda: fresh.call("benchmarks.startup:train", name, layer, mode, steps)

    runs = in_rounds({layer: process(layer) for layer in LAYERS}, repeats)
    seconds = {
        layer: {str(step): [run["seconds"][str(step)] for run in runs[layer]] for step in READ if step <= steps}
        for layer in LAYERS
    }
    result = {
        "batch": NETWORKS[name].batch,
        "seconds": {
            layer: {step: round(statistics.median(values), 3) for step, values in seconds[layer].items()}
            for layer in LAYERS
        },
        "kerasbn / keras": {
            step: median_ratio(values, seconds["keras"][step]) for step, values in seconds["kerasbn"].items()
        },
    }
    if mode == "graph":
        usual = [run["usual_step"] for run in runs["keras"]]
        result["new size"] = {layer: median_ratio([run["new_size"] for run in runs[layer]], usual) for layer in LAYERS}
        result["traced late"] = max(run["traced_late"] for run in runs["kerasbn"])
    return result


def rows(content):
    """The table, from what was written."""
    heading = ["model, batch", "mode", *(f"Keras, {step} steps" for step in READ)]
    heading += [f"kerasbn / Keras, {step}" for step in READ] + ["a new batch size, in steps: Keras", "kerasbn"]

    def cells(values, form):
        return [form.format(values[str(step)]) if str(step) in values else "" for step in READ]

    return [heading] + [
        [
            f"{result['model']}, {result['batch']}",
            result["mode"],
            *cells(result["seconds"]["keras"], "{:.2f} s"),
            *cells(result["kerasbn / keras"], "{:.2f}"),
            *(f"{result['new size'][layer]:.1f}" if "new size" in result else "" for layer in LAYERS),
        ]
        for result in content["results"]
    ]
