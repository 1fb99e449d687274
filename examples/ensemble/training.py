"""Trains one network of the ensemble and keeps what it says of the test images."""

import io
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks.report import write_whole
from examples import measured
from examples.accelerate.data import Images
from examples.ensemble.combination import combine, wrong
from examples.ensemble.members import MEMBERS, REFERENCE
from examples.ensemble.results import Results, Trained
from examples.inception.networks import build
from examples.measured import TEST_BATCH


def train(images: Images, results: Results, run: Trained, on_measurement: Callable[[Trained], None]) -> None:
    """Trains `run` to its end, or until it diverges, and saves `results` after each measurement."""
    keras.utils.clear_session()  # the networks before are not kept
    settings, names = results.settings, (REFERENCE, *MEMBERS)
    model, callbacks, order = build(
        results.networks[run.network],
        images.x_train.shape[1:],
        len(images.x_train),
        settings.learning_rate,
        settings.decay_steps,
        settings.momentum,
        seed=run.seed * len(names) + names.index(run.network),  # each has weights and an order of its own
    )
    measured.train(
        results,
        run,
        model,
        order,
        images,
        every=settings.every,
        callbacks=[*callbacks, _Probabilities(images, results, run)],
        on_measurement=on_measurement,
    )


def evaluate(images: Images, results: Results, seed: int) -> None:
    """Writes down what the ensemble of `seed` is worth, unless it is known. It takes two networks."""
    runs = results.members(seed)
    if seed not in results.ensembles and len(runs) > 1:
        probabilities = {run.network: np.load(results.probabilities(run)) for run in runs}
        results.ensembles[seed] = combine(probabilities, images.y_test, results.settings.top_k)
        results.save()


class _Probabilities(keras.callbacks.Callback):
    """After the last step writes the test probabilities, before the run is written down as complete."""

    def __init__(self, images: Images, results: Results, run: Trained) -> None:
        super().__init__()
        self._images, self._results, self._of = images, results, run

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch < self.params["epochs"] - 1:
            return
        logits = self.model.predict(self._images.x_test, batch_size=TEST_BATCH, verbose=0)
        probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
        if self._of.network in MEMBERS:
            content = io.BytesIO()
            np.save(content, probabilities)
            write_whole(self._results.probabilities(self._of), content.getvalue())
        error = wrong(probabilities, self._images.y_test, self._results.settings.top_k).mean()
        self._of.top_k_error = round(float(error), 5)
