"""Times layers that replicas synchronize, against Keras's and against layers that each replica has for itself.

A step is forward and backward through four layers, one on another, under MirroredStrategy on parts of the CPU; times
are of one layer. "TF" is TensorFlow's strategy with its collectives, "kerasbn" kerasbn.distribute's, which adds on one
device. Collectives and bytes are those that one replica sends in a step for one layer, read off the graph.
"""

import functools
import itertools
import os
import sys

from benchmarks import fresh, options, report
from benchmarks.ending import ADVICE, ended
from benchmarks.progress import Progress
from benchmarks.timing import WARM_UP, in_rounds, median_ratio, medians, timed

LAYERS = 4
#: Of the batch of one replica.
SHAPES = ("32x28x28x64", "32x8x8x64", "64x100")
REPLICAS = (2, 4)
WAYS = (
    "keras, TF",
    "keras synchronized, TF",
    "kerasbn, TF",
    "kerasbn synchronized, TF",
    "keras synchronized, kerasbn",
    "kerasbn synchronized, kerasbn",
)


def training_step(way, strategy, shape):
    """A `tf.function` of a whole step on all replicas."""
    import keras
    import tensorflow as tf

    import kerasbn

    layer_class = kerasbn.BatchNorm if way.startswith("kerasbn") else keras.layers.BatchNormalization
    with strategy.scope():
        layers = [layer_class(synchronized="synchronized" in way) for _ in range(LAYERS)]
        for layer in layers:
            layer.build(shape)
        inputs = strategy.experimental_distribute_values_from_function(lambda context: tf.random.normal(shape))

    @tf.function(autograph=False)
    def step(x):
        def replica(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = x
                for layer in layers:
                    y = tf.nn.relu(layer(y, training=True))
            return tape.gradient(y, x)

        return strategy.run(replica, args=(x,))

    return functools.partial(step, inputs), step.get_concrete_function(inputs)


def traffic(function, replicas):
    """How many collectives one replica takes part in, and the bytes that it hands in, a layer."""
    reductions = [op for op in function.graph.get_operations() if op.type.startswith("CollectiveReduce")]
    size = sum(op.inputs[0].shape.num_elements() * op.inputs[0].dtype.size for op in reductions)
    return {"collectives": len(reductions) / replicas / LAYERS, "bytes": size / replicas / LAYERS}


def in_process(replicas, shape, repeats):
    """Measures in this process, which must be fresh: TensorFlow learns of its parts of the CPU once."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    import kerasbn

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    devices = [f"CPU:{i}" for i in range(replicas)]
    strategies = {
        "TF": tf.distribute.MirroredStrategy(devices),
        "kerasbn": kerasbn.distribute.MirroredStrategy(devices),
    }
    steps, found = {}, {}
    for way in WAYS:
        step, function = training_step(way, strategies[way.split(", ")[1]], shape)
        steps[way] = timed(lambda step=step: tf.nest.map_structure(lambda t: t.numpy(), step().values))
        if way.endswith("TF"):
            found[way] = traffic(function, replicas)
    times = in_rounds(steps, repeats, WARM_UP)
    return {
        "milliseconds": {way: round(ms / LAYERS, 3) for way, ms in medians(times).items()},
        "traffic": found,
        "keras / kerasbn": median_ratio(times["keras synchronized, TF"], times["kerasbn synchronized, TF"]),
        "keras / kerasbn on one device": median_ratio(
            times["keras synchronized, TF"], times["kerasbn synchronized, kerasbn"]
        ),
    }


def rows(content):
    """The table, from what was written."""
    heading = ["replicas", "shape of one", *(f"{way}, ms" for way in WAYS), "Keras / kerasbn, TF"]
    heading += ["with kerasbn's strategy", "collectives, Keras; kerasbn", "bytes, Keras; kerasbn"]
    table = [heading]
    for result in content["results"]:
        sent = [result["traffic"][f"{name} synchronized, TF"] for name in ("keras", "kerasbn")]
        table.append(
            [
                str(result["replicas"]),
                result["shape"],
                *(f"{result['milliseconds'][way]:.2f}" for way in WAYS),
                f"{result['keras / kerasbn']:.2f}",
                f"{result['keras / kerasbn on one device']:.2f}",
                "; ".join(f"{each['collectives']:g}" for each in sent),
                "; ".join(f"{each['bytes']:,.0f}" for each in sent),
            ]
        )
    return table


def main(arguments=None):
    parser = options.parser(
        "sync", __doc__, quick="two replicas, few rounds", repeats="40", example="--replicas 2 --shapes 64x100"
    )
    parser.add_argument("--replicas", type=options.at_least_one, nargs="+", metavar="N", help="(default: 2 4)")
    parser.add_argument("--shapes", nargs="+", metavar="SHAPE", help=f"(default: {' '.join(SHAPES)})")
    chosen = parser.parse_args(arguments)
    repeats = chosen.repeats or (5 if chosen.quick else 40)
    results = []
    cases = list(
        itertools.product(chosen.replicas or (REPLICAS[:1] if chosen.quick else REPLICAS), chosen.shapes or SHAPES)
    )
    with Progress("sync", total=len(cases)) as progress:
        for replicas, shape in cases:
            found = fresh.call("benchmarks.sync:in_process", replicas, [int(n) for n in shape.split("x")], repeats)
            results.append({"replicas": replicas, "shape": shape, **found})
            progress.add(1, f"{replicas} replicas, {shape}")
    report.publish(
        chosen.out, {"benchmark": "sync", "repeats": repeats, "results": results}, rows({"results": results})
    )


if __name__ == "__main__":
    sys.exit(ended(main, ADVICE))
