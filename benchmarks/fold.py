"""Times inference with networks of `keras.applications`, as Keras has them and folded by `kerasbn.fold`.

Each is called by a graph, as a server calls it, with weights and statistics as after some training: the weights are
variables, so that TensorFlow cannot fold by itself. "affine" is how many of the normalizations stay, as one
multiplication and addition each, because a ReLU is behind them and a sum, a concatenation or a pooling before them.
"""

import sys

from benchmarks import options
from benchmarks.ending import ADVICE, ended
from benchmarks.options import MODES

#: Networks, the pixels that they were made for, and the range of values: EfficientNet scales images itself.
NETWORKS = {
    "MobileNetV2": (224, 2),
    "EfficientNetB0": (224, 255),
    "ResNet50V2": (224, 2),
    "DenseNet121": (224, 2),
    "InceptionV3": (299, 2),
}
BATCHES = (1, 8)
REPEATS = {"graph": 30, "xla": 5}
QUICK_MODELS = ("MobileNetV2", "ResNet50V2")
QUICK_MODES = ("graph",)
QUICK_REPEATS = 5


def main(arguments=None):
    parser = options.parser(
        "fold",
        __doc__,
        quick=f"{', '.join(QUICK_MODELS)}; mode {', '.join(QUICK_MODES)}; {QUICK_REPEATS} rounds; half a minute",
        repeats=", ".join(f"{count} in mode {mode}" for mode, count in REPEATS.items()),
        example="--models ResNet50V2 --batches 1 --modes graph",
    )
    options.add_choice(parser, "models", NETWORKS)
    options.add_choice(parser, "modes", MODES)
    parser.add_argument(
        "--batches",
        nargs="+",
        type=options.at_least_one,
        default=BATCHES,
        metavar="N",
        help=f"images at a time (default: {', '.join(map(str, BATCHES))})",
    )
    options.run("fold", parser.parse_args(arguments))


if __name__ == "__main__":  # above the imports of what is measured, which take seconds
    sys.exit(ended(main, ADVICE))

import keras
import numpy as np
import tensorflow as tf

from benchmarks import report
from benchmarks.progress import Progress
from benchmarks.timing import WARM_UP, in_rounds, median_ratio, medians, timed
from kerasbn import Affine, fold


def after_training(name, images):
    """A network with random weights, and statistics near those of its values for `images`."""
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)
    model = network(weights=None, input_shape=images.shape[1:], classes=10, classifier_activation=None)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    random = np.random.default_rng(0)

    def draw(variable, function, *arguments):
        variable.assign(function(*arguments, variable.shape))

    for layer in layers:
        if layer.scale:
            draw(layer.gamma, random.uniform, 0.5, 1.5)
        draw(layer.beta, random.normal, 0, 0.5)
        layer.momentum = 0.0
    model(images, training=True)
    for layer in layers:
        layer.momentum = 0.99
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        layer.moving_mean.assign(mean + random.normal(0, 0.1, mean.shape) * np.sqrt(variance))
        layer.moving_variance.assign(variance * random.uniform(0.8, 1.25, mean.shape))
    return model


def images_for(name, batch, size=None):
    size = size or NETWORKS[name][0]
    return np.random.default_rng(0).uniform(0, NETWORKS[name][1], (batch, size, size, 3)).astype("float32")


def inference(model, images, mode):
    """A call that ends when the results are there."""
    call = tf.function(lambda x: model(x, training=False), jit_compile=mode == "xla")
    images = tf.constant(images)
    return lambda: call(images).numpy()


def measure(models, images, mode, repeats):
    """Both models on the same images."""
    times = in_rounds({name: timed(inference(model, images, mode)) for name, model in models.items()}, repeats, WARM_UP)
    return {"milliseconds": medians(times), "folded / keras": median_ratio(times["folded"], times["keras"])}


def rows(content):
    """The table, from what was written."""
    heading = ["model, batch", "mode", "Keras, ms", "folded, ms", "folded / Keras", "normalizations", "affine"]
    return [heading] + [
        [
            f"{result['model']}, {result['batch']}",
            result["mode"],
            *(f"{result['milliseconds'][name]:.1f}" for name in ("keras", "folded")),
            f"{result['folded / keras']:.2f}",
            str(result["normalizations"]),
            str(result["affine"]),
        ]
        for result in content["results"]
    ]


def run(chosen):
    """Measures what was chosen, and publishes it."""
    results = []
    names = chosen.models or (QUICK_MODELS if chosen.quick else NETWORKS)
    modes = chosen.modes or (QUICK_MODES if chosen.quick else MODES)
    with Progress("fold", total=len(names) * len(chosen.batches) * len(modes)) as progress:
        for name in names:
            measure_network(name, chosen, modes, results, progress)
    content = {"benchmark": "fold", "results": results}
    report.publish(chosen.out, content, rows(content))


def measure_network(name, chosen, modes, results, progress):
    """Adds what was measured of one network to the results."""
    model = after_training(name, images_for(name, 4))
    models = {"keras": model, "folded": fold(model)}
    count = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    affine = sum(isinstance(layer, Affine) for layer in models["folded"].layers)
    for batch in chosen.batches:
        for mode in modes:
            repeats = chosen.repeats or (QUICK_REPEATS if chosen.quick else REPEATS[mode])
            measured = measure(models, images_for(name, batch), mode, repeats)
            settings = {"model": name, "batch": batch, "mode": mode, "repeats": repeats}
            results.append({**settings, "normalizations": count, "affine": affine, **measured})
            progress.add(1, "  ".join(rows({"results": results})[-1]), keep=True)
