"""Times a training step of whole networks without normalization, with Keras's layer and with kerasbn.

What a user pays is the overhead: the step with normalization minus the step without. The last columns are kerasbn's
overhead as a part of Keras's, without and with the activations inside the layer. A step is that of `fit`: forward,
backward, SGD, moving statistics; kernels are compiled by then.
"""

import sys

from benchmarks import each_network
from benchmarks.ending import ADVICE, ended


def main(arguments=None):
    each_network.main(
        "models",
        __doc__,
        arguments,
        repeats=lambda network: 200 if network == "MLP" else 15,
        repeats_help="200 of the MLP, 15 of the others",
        quick_models=("MLP", "Inception", "ResNet-20"),
        quick_repeats=3,
    )


if __name__ == "__main__":  # above the imports of what is measured, which take seconds
    sys.exit(ended(main, ADVICE))

import statistics

import tensorflow as tf

from benchmarks.networks import LAYERS, NETWORKS, compile_soon, compiled, examples
from benchmarks.timing import WARM_UP, in_rounds, medians, timed
from kerasbn.kernels import tiered


def training_step(name, layer, mode):
    """A call that does one step, with the batch size unknown to its graph, as `fit` has it."""
    model, batch = compiled(name, layer, mode), NETWORKS[name].batch
    model.make_train_function()
    data = tf.data.Dataset.from_tensor_slices(examples(model, batch))
    iterator = iter(data.batch(batch).cache().repeat())
    return lambda: [float(value) for value in tf.nest.flatten(model.train_function(iterator))]


def measure(name, mode, repeats):
    compile_soon()
    steps = {layer: timed(training_step(name, layer, mode)) for layer in LAYERS}
    in_rounds(steps, 2)
    tiered.wait_until_compiled()
    times = in_rounds(steps, repeats, WARM_UP)

    def share(ours):
        rounds = zip(times["no BN"], times["keras"], times[ours], strict=True)
        return round(statistics.median((step - without) / (keras - without) for without, keras, step in rounds), 2)

    return {
        "batch": NETWORKS[name].batch,
        "milliseconds": medians(times),
        "overhead": {layer: share(layer) for layer in LAYERS if layer.startswith("kerasbn")},
    }


def rows(content):
    """The table, from what was written."""
    heading = ["model, batch", "mode", *(f"{layer}, ms" for layer in LAYERS)]
    heading += ["overhead, kerasbn / Keras", "with activation="]
    return [heading] + [
        [
            f"{result['model']}, {result['batch']}",
            result["mode"],
            *(f"{result['milliseconds'][layer]:.2f}" for layer in LAYERS),
            *(f"{share:.2f}" for share in result["overhead"].values()),
        ]
        for result in content["results"]
    ]
