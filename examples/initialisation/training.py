"""Trains one network again and again, from a scale and with a rate of choice."""

from collections.abc import Callable
from dataclasses import fields

import keras
import tensorflow as tf

from examples import measured
from examples.accelerate.data import Images
from examples.initialisation.network import build
from examples.initialisation.results import Cell, Results
from examples.measured import CLASSES, Measured
from kerasbn.snapshot import Snapshot, training_state
from kerasbn.transforms import scale_initialization

#: A large scale begins with a large loss, which is no divergence: only a loss that is not finite is one here.
EXPLOSION = 1e30


class Trainer:
    """One network, whose training step is traced once for the whole grid."""

    def __init__(self, network: str, images: Images, results: Results) -> None:
        settings = results.settings
        keras.utils.clear_session()  # the network before is not kept
        # Tensors, which are not copied for each training.
        self._images = Images(*(tf.constant(getattr(images, field.name)) for field in fields(images)))
        self._scaled = None if settings.scaled == "all" else _is_convolution
        self._shape, self._network, self._results = images.x_train.shape[1:], network, results
        self._model = self._built(seed=0)
        self._model.compile(
            keras.optimizers.SGD(1.0, momentum=settings.momentum),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            steps_per_execution=max(n for n in range(1, 51) if settings.steps % n == 0),
        )
        self._untrained = Snapshot(training_state(self._model), self._model.distribute_strategy)
        self._weights = self._of = None

    def train(self, cell: Cell, run: Measured, on_measurement: Callable[[Measured], None]) -> None:
        """Trains `run`, which is that of `cell` and was not begun, to its end."""
        self._untrained.restore()
        self._model.set_weights(self._start(run.seed, cell.scale))
        self._model.optimizer.learning_rate = cell.rate
        order = tf.data.Dataset.range(len(self._images.x_train)).shuffle(len(self._images.x_train), seed=run.seed)
        measured.train(
            self._results,
            run,
            self._model,
            order,
            self._images,
            every=self._results.settings.steps,
            explosion=EXPLOSION,
            on_measurement=on_measurement,
        )

    def _start(self, seed: int, scale: float) -> list:
        """Initial weights; those of a scale stay for all its rates."""
        if self._of != (seed, scale):
            self._weights = scale_initialization(self._built(seed), scale, self._scaled).get_weights()
            self._of = (seed, scale)
        return self._weights

    def _built(self, seed: int) -> keras.Model:
        return build(self._network, self._shape, CLASSES, seed, self._results.settings.moving_momentum)


def _is_convolution(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Conv2D)
