"""Measures the memory that training steps of networks take in fresh processes, at batches where activations dominate.

It is the most that the process had resident at any time, less what it had before the first step, in MB of a million
bytes. So it holds gradients, activations and what compiling took. What grows from half the batch to all of it is
activations alone.
"""

import sys

from benchmarks import each_network
from benchmarks.ending import ADVICE, ended


def main(arguments=None):
    each_network.main(
        "memory",
        __doc__,
        arguments,
        repeats=lambda network: 1,
        repeats_help="1: it varies by a few MB",
        quick_models=("MLP", "ResNet-20"),
        quick_repeats=1,
    )


if __name__ == "__main__":  # above the imports of what is measured, which take seconds
    sys.exit(ended(main, ADVICE))

import re
import resource
import statistics
from pathlib import Path

from benchmarks import fresh
from benchmarks.networks import LAYERS, NETWORKS, compiled, examples
from benchmarks.timing import in_rounds

STEPS = 3
STATUS = Path("/proc/self/status")


def resident():
    """Resident bytes of this process, now and at most. Without Linux's /proc the first is the most until now."""
    if STATUS.exists():
        # Better than `ru_maxrss`, which on Linux begins with what the parent had at the start of this process.
        status = STATUS.read_text()
        return tuple(1024 * int(re.search(rf"^{name}:\s*(\d+) kB$", status, re.M)[1]) for name in ("VmRSS", "VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024
    return (unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,) * 2


def train(name, layer, mode, batch):
    """Trains in this process, which should be fresh, and returns the MB that it took."""
    model = compiled(name, layer, mode)
    inputs, labels = examples(model, batch)
    before, _ = resident()
    model.fit(inputs, labels, batch, epochs=STEPS, verbose=0)
    _, most = resident()
    return (most - before) / 1e6


def measure(name, mode, repeats):
    batch = NETWORKS[name].large_batch

    def process(layer, batch):
        return lambda: fresh.call("benchmarks.memory:train", name, layer, mode, batch)

    runs = in_rounds({(layer, size): process(layer, size) for layer in LAYERS for size in (batch, batch // 2)}, repeats)
    megabytes = {layer: round(statistics.median(runs[layer, batch])) for layer in LAYERS}
    return {
        "batch": batch,
        "megabytes": megabytes,
        "growth": {layer: megabytes[layer] - round(statistics.median(runs[layer, batch // 2])) for layer in LAYERS},
    }


def rows(content):
    """The table, from what was written."""
    heading = ["model, batch", "mode", *(f"{layer}, MB" for layer in LAYERS)]
    heading += [f"{layer}, growth" for layer in LAYERS]
    return [heading] + [
        [
            f"{result['model']}, {result['batch']}",
            result["mode"],
            *(str(result["megabytes"][layer]) for layer in LAYERS),
            *(str(result["growth"][layer]) for layer in LAYERS),
        ]
        for result in content["results"]
    ]
