"""Trains one network, from where it stands."""

import logging
from collections.abc import Callable

import keras
import tensorflow as tf

from examples import measured
from examples.accelerate.data import Images
from examples.covariate_shift.measurement import ShiftRecorder
from examples.covariate_shift.networks import build
from examples.covariate_shift.results import Results, ShiftRun


def train(images: Images, results: Results, run: ShiftRun, on_measurement: Callable[[ShiftRun], None]) -> None:
    """Trains `run` to its end, or until it diverges, and saves `results` after each measurement."""
    settings = results.settings
    tf.get_logger().setLevel(logging.ERROR)  # it tells of functions that are traced anew, as those of a new model are
    keras.utils.clear_session()  # the networks before are not kept
    keras.utils.set_random_seed(run.seed)
    network, rate = run.parts
    model = build(network, images.x_train.shape[1], rate, settings, run.seed)
    examples = len(images.x_train)
    watching = [] if run.is_search else [ShiftRecorder(run, model, images.x_train[: settings.probe], settings.bins)]
    measured.train(
        results,
        run,
        model,
        tf.data.Dataset.range(examples).shuffle(examples, seed=run.seed),
        images,
        every=settings.every,
        callbacks=watching,
        on_measurement=on_measurement,
    )
