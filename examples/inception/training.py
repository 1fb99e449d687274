"""Trains one network, from where it stands."""

from collections.abc import Callable

import keras

from examples import measured
from examples.accelerate.data import Images
from examples.inception.networks import build
from examples.inception.results import Results
from examples.measured import Measured


def train(images: Images, results: Results, run: Measured, on_measurement: Callable[[Measured], None]) -> None:
    """Trains `run` to its end, or until it diverges, and saves `results` after each measurement."""
    keras.utils.clear_session()  # the networks before are not kept
    shape, examples = images.x_train.shape[1:], len(images.x_train)
    model, callbacks, order = build(
        results.network(run.network),
        shape,
        examples,
        results.rate(run.network),
        results.decay_steps(run.network),
        results.settings.momentum,
        run.seed,
    )
    measured.train(
        results,
        run,
        model,
        order,
        images,
        every=results.settings.every,
        callbacks=callbacks,
        on_measurement=on_measurement,
    )
