"""Times a training step of a small MLP with `LearningRateAcceleration`, for each kind of learning rate, and without it.

A step is from the end of one batch to the end of the next, in `fit`: with all that the callback does before, in and
after it. The number of a run is the median of its steps, and the ratio is of runs that were made next to each other.
"""

import sys

from benchmarks import options
from benchmarks.ending import ADVICE, ended

RATES = ("number", "ExponentialDecay", "CosineDecay")
REPEATS, QUICK_REPEATS = 30, 3


def main(arguments=None):
    parser = options.parser(
        "acceleration",
        __doc__,
        quick=f"{QUICK_REPEATS} rounds; half a minute",
        repeats=str(REPEATS),
        example="--rates number CosineDecay",
    )
    options.add_choice(parser, "rates", RATES)
    options.run("acceleration", parser.parse_args(arguments))


if __name__ == "__main__":  # above the imports of what is measured, which take seconds
    sys.exit(ended(main, ADVICE))

import time

import keras
import numpy as np
from keras.optimizers import schedules

from benchmarks import report
from benchmarks.progress import Progress
from benchmarks.timing import in_rounds, median_ratio, medians
from kerasbn.callbacks import LearningRateAcceleration

RATE = 1e-4
MAKE_RATE = {
    "number": lambda: RATE,
    "ExponentialDecay": lambda: schedules.ExponentialDecay(RATE, 1000, 0.5),
    "CosineDecay": lambda: schedules.CosineDecay(0.0, 10**6, warmup_target=RATE, warmup_steps=1000),
}
WAYS = {
    "without": lambda: [],
    "accelerated": lambda: [LearningRateAcceleration(5.0)],
    "warm-up": lambda: [LearningRateAcceleration(5.0, warmup_steps=10**6)],
    "backoff": lambda: [LearningRateAcceleration(5.0, on_divergence="backoff")],
}
STEPS, BATCH, FEATURES = 300, 32, 32


class Clock(keras.callbacks.Callback):
    """Notes when each step ends."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())


def step(rate, callbacks):
    """A function that trains for some steps and returns the milliseconds of one."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(64, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((FEATURES,)), *hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse")
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(STEPS * BATCH, width)).astype("float32") for width in (FEATURES, 1))

    def run():
        clock = Clock()
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[*callbacks, clock])
        return 1e3 * float(np.median(np.diff(clock.ends)))

    return run


def measure(rate, repeats):
    """A step in each of the ways."""
    runs = {name: step(MAKE_RATE[rate](), callbacks()) for name, callbacks in WAYS.items()}
    times = in_rounds(runs, repeats, warm_up=1)
    ratios = {name: median_ratio(times[name], times["without"]) for name in WAYS}
    return {"rate": rate, "repeats": repeats, "milliseconds": medians(times), "of without": ratios}


def rows(content):
    """The table, from what was written."""
    heading = ["learning rate", *(f"{name}, ms" for name in WAYS), *(f"{name} / without" for name in list(WAYS)[1:])]
    return [heading] + [
        [
            result["rate"],
            *(f"{result['milliseconds'][name]:.3f}" for name in WAYS),
            *(f"{result['of without'][name]:.2f}" for name in list(WAYS)[1:]),
        ]
        for result in content["results"]
    ]


def run(chosen):
    """Measures what was chosen, and publishes it."""
    repeats, results = chosen.repeats or (QUICK_REPEATS if chosen.quick else REPEATS), []
    rates = chosen.rates or RATES
    with Progress("acceleration", total=len(rates)) as progress:
        for rate in rates:
            results.append(measure(rate, repeats))
            progress.add(1, "  ".join(rows({"results": results})[-1]), keep=True)
    content = {"benchmark": "acceleration", "results": results}
    report.publish(chosen.out, content, rows(content))
