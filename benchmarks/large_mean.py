"""How far the outputs of batch normalization are off where the mean is large: that of kerasbn and that of its peers.

No time is measured. Values of standard deviation 1 in float32, [20, 10, 10, 4], around each mean are normalized in
training mode, by each library in a compiled function or graph, in a process of its own; what is right is computed in
float64 from the same float32 values. A library that is not installed is left out.
"""

import sys
from importlib.util import find_spec

import numpy as np

from benchmarks import fresh, options, report
from benchmarks.ending import ADVICE, ended
from benchmarks.progress import Progress

MEANS = (0.0, 1e2, 1e4, 1e6)
EPSILON = 1e-3
SHAPE = (20, 10, 10, 4)


def _kerasbn():
    import tensorflow as tf

    import kerasbn

    layer = kerasbn.BatchNorm(epsilon=EPSILON)
    return tf.function(lambda x: layer(x, training=True))


def _keras():
    import keras
    import tensorflow as tf

    layer = keras.layers.BatchNormalization(epsilon=EPSILON)
    return tf.function(lambda x: layer(x, training=True))


def _tf_keras():
    import tensorflow as tf
    import tf_keras

    layer = tf_keras.layers.BatchNormalization(epsilon=EPSILON)
    return tf.function(lambda x: layer(x, training=True))


def _torch():
    import torch

    layer = torch.nn.BatchNorm2d(SHAPE[-1], eps=EPSILON)
    return lambda x: layer(torch.from_numpy(x).movedim(-1, 1)).movedim(1, -1).detach()


def _flax(fast):
    import jax
    from flax import linen

    layer = linen.BatchNorm(use_running_average=False, epsilon=EPSILON, use_fast_variance=fast)
    variables = layer.init(jax.random.key(0), np.zeros(SHAPE, "float32"))
    return jax.jit(lambda x: layer.apply(variables, x, mutable=["batch_stats"])[0])


#: What must be installed, and how the function that normalizes is made.
LIBRARIES = {
    "kerasbn": (["tensorflow", "keras"], _kerasbn),
    "Keras": (["tensorflow", "keras"], _keras),
    "tf_keras": (["tensorflow", "tf_keras"], _tf_keras),
    "PyTorch": (["torch"], _torch),
    "flax": (["jax", "flax"], lambda: _flax(True)),
    "flax, use_fast_variance=False": (["jax", "flax"], lambda: _flax(False)),
}


def errors(library: str) -> list[float]:
    """The largest error of an output for each of `MEANS`. Outputs are around 1 in size."""
    normalize = LIBRARIES[library][1]()
    found = []
    for mean in MEANS:
        x = (np.random.default_rng(0).normal(size=SHAPE) + mean).astype("float32")
        wide = x.astype("float64")
        wanted = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + EPSILON)
        found.append(float(np.abs(np.asarray(normalize(x)) - wanted).max()))
    return found


def rows(content: dict) -> list[list[str]]:
    """A line for the names of the columns, and one for each library."""
    head = ["library", *(f"mean {mean:g}" for mean in content["means"])]
    return [head, *([each["library"], *(f"{e:.1e}" for e in each["errors"])] for each in content["results"])]


def main(arguments=None):
    parser = options.parser(
        "large_mean",
        __doc__,
        quick="the same, as it takes no more than seconds",
        repeats="1, as nothing is timed",
        example="--libraries kerasbn Keras",
    )
    options.add_choice(parser, "libraries", LIBRARIES)
    chosen = parser.parse_args(arguments)
    results, names = [], chosen.libraries or LIBRARIES
    with Progress("large_mean", total=len(names)) as progress:
        for name in names:
            missing = [package for package in LIBRARIES[name][0] if find_spec(package) is None]
            if missing:
                progress.say(f"{name} is left out: {', '.join(missing)} not installed")
            else:
                results.append({"library": name, "errors": fresh.call("benchmarks.large_mean:errors", name)})
            progress.add(1, name)
    content = {"benchmark": "large_mean", "means": MEANS, "results": results}
    report.publish(chosen.out, content, rows(content))


if __name__ == "__main__":
    sys.exit(ended(main, ADVICE))
