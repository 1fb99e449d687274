"""Times the first two training steps of networks in fresh processes, where graphs are traced and kernels compiled.

Each process trains for three epochs of two batches and a smaller one, which may compile once more. What comes after
the first epoch should find all compiled: the second epoch no slower than the third, and nothing traced again.
"""

import statistics
import time

import keras

from benchmarks import each_network, fresh
from benchmarks.networks import LAYERS, NETWORKS, compiled, examples
from benchmarks.timing import in_rounds, median_ratio

EPOCHS = 3


class Clock(keras.callbacks.Callback):
    """When each batch and each epoch ended, in seconds of training, and how often the step had been traced by then."""

    def __init__(self, model):
        super().__init__()
        self.batches, self.epochs, self.traces = [], [], []
        self._traced = 0
        train_step = model.train_step

        def traced_step(data):  # Python runs it when it is traced, and then only
            self._traced += 1
            return train_step(data)

        model.train_step = traced_step

    def on_train_begin(self, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(time.perf_counter() - self._start)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(time.perf_counter() - self._start)
        self.traces.append(self._traced)


def train(name, layer, mode):
    """Trains in this process, which should be fresh."""
    model, batch = compiled(name, layer, mode), NETWORKS[name].batch
    inputs, labels = examples(model, 2 * batch + batch // 2)
    clock = Clock(model)
    model.fit(inputs, labels, batch, EPOCHS, verbose=0, callbacks=[clock])
    starts = [0, *clock.epochs]
    return {
        "first_two_steps": clock.batches[1],
        "epochs": [end - start for start, end in zip(starts, clock.epochs, strict=False)],
        "traces": clock.traces,
    }


def measure(name, mode, repeats):
    def process(layer):
        return lambda: fresh.call("benchmarks.compile_time:train", name, layer, mode)

    runs = in_rounds({layer: process(layer) for layer in LAYERS}, repeats)
    seconds = {layer: [run["first_two_steps"] for run in runs[layer]] for layer in LAYERS}
    epochs = {layer: zip(*(run["epochs"] for run in runs[layer]), strict=True) for layer in LAYERS}
    return {
        "batch": NETWORKS[name].batch,
        "seconds": {layer: round(statistics.median(values), 3) for layer, values in seconds.items()},
        "kerasbn / keras": median_ratio(seconds["kerasbn"], seconds["keras"]),
        "epochs": {layer: [round(statistics.median(epoch), 4) for epoch in epochs[layer]] for layer in LAYERS},
        "traces": {layer: max(run["traces"] for run in runs[layer]) for layer in LAYERS},
    }


def rows(content):
    """The table, from what was written."""
    heading = ["model, batch", "mode", *(f"{layer}, s" for layer in LAYERS), "kerasbn / Keras"]
    heading += [f"kerasbn's epochs {'; '.join(map(str, range(1, EPOCHS + 1)))}, s", "traces"]
    return [heading] + [
        [
            f"{result['model']}, {result['batch']}",
            result["mode"],
            *(f"{result['seconds'][layer]:.2f}" for layer in LAYERS),
            f"{result['kerasbn / keras']:.2f}",
            "; ".join(f"{seconds:.2f}" for seconds in result["epochs"]["kerasbn"]),
            "; ".join(map(str, result["traces"]["kerasbn"])),
        ]
        for result in content["results"]
    ]


def traced_late(results):
    """Which of the networks were traced again after their first epoch."""
    return [
        f"{result['model']}, {result['mode']}, {layer}"
        for result in results
        for layer, traces in result["traces"].items()
        if traces[-1] > traces[0]
    ]


def main(arguments=None):
    results = each_network.main(
        "compile_time",
        __doc__,
        measure,
        rows,
        arguments,
        repeats=lambda network: 1 if network == "MobileNetV2" else 3,
        repeats_help="1 of MobileNetV2, 3 of the others",
        quick_models=("MLP", "ResNet-20"),
        quick_repeats=1,
    )
    print(f"Traced again after the first epoch: {'; '.join(traced_late(results)) or 'nothing'}.")


if __name__ == "__main__":
    main()
