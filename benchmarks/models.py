"""Times a training step of whole networks without normalization, with Keras's layer and with kerasbn.

What a user pays is the overhead: the step with normalization minus the step without. The last column is kerasbn's
overhead as a part of Keras's. A step is that of `fit`: forward, backward, SGD, moving statistics.
"""

import statistics

import tensorflow as tf

from benchmarks import each_network
from benchmarks.networks import LAYERS, NETWORKS, compiled, examples
from benchmarks.timing import WARM_UP, in_rounds, medians, timed


def training_step(name, layer, mode):
    """A call that does one step, with the batch size unknown to its graph, as `fit` has it."""
    model, batch = compiled(name, layer, mode), NETWORKS[name].batch
    model.make_train_function()
    data = tf.data.Dataset.from_tensor_slices(examples(model, batch))
    iterator = iter(data.batch(batch).cache().repeat())
    return lambda: [float(value) for value in tf.nest.flatten(model.train_function(iterator))]


def measure(name, mode, repeats):
    steps = {layer: timed(training_step(name, layer, mode)) for layer in LAYERS}
    times = in_rounds(steps, repeats, WARM_UP)
    rounds = zip(*(times[layer] for layer in LAYERS), strict=True)
    share = statistics.median((ours - without) / (theirs - without) for without, theirs, ours in rounds)
    return {
        "batch": NETWORKS[name].batch,
        "milliseconds": medians(times),
        "overhead": round(share, 2),
    }


def rows(content):
    """The table, from what was written."""
    heading = ["model, batch", "mode", *(f"{layer}, ms" for layer in LAYERS), "overhead, kerasbn / Keras"]
    return [heading] + [
        [
            f"{result['model']}, {result['batch']}",
            result["mode"],
            *(f"{result['milliseconds'][layer]:.2f}" for layer in LAYERS),
            f"{result['overhead']:.2f}",
        ]
        for result in content["results"]
    ]


def main(arguments=None):
    each_network.main(
        "models",
        __doc__,
        measure,
        rows,
        arguments,
        repeats=lambda network: 200 if network == "MLP" else 20,
        repeats_help="200 of the MLP, 20 of the others",
        quick_models=("MLP", "Inception", "ResNet-20"),
        quick_repeats=3,
    )


if __name__ == "__main__":
    main()
