"""Training one network, measured as it goes, exact to resume."""

import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from examples.checkpoint import Checkpoint
from examples.mnist_sigmoid.data import Data
from examples.mnist_sigmoid.network import LAST_SIGMOID_INPUT, build
from examples.mnist_sigmoid.results import Results, Run

PERCENTILES = (15, 50, 85)


def train(data: Data, results: Results, run: Run, on_measurement: Callable[[Run], None]) -> None:
    """Trains `run` to its end, from where it stands, and saves `results` after each measurement."""
    settings = results.settings
    chunk = settings.steps // settings.measurements
    keras.utils.set_random_seed(run.seed)
    model = build(run.network, data.x_train.shape[1], settings.initial_stddev, run.seed)
    model.compile(
        optimizer=keras.optimizers.SGD(settings.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile={"auto": "auto", "true": True, "false": False}[settings.jit_compile],
        steps_per_execution=max(n for n in range(1, min(chunk, 50) + 1) if chunk % n == 0),
    )
    recorder = Recorder(results, run, data, on_measurement)
    recorder.set_model(model)
    if run.steps and not recorder.checkpoint.restore(model):
        run.forget()
    if not run.steps:
        recorder.measure(step=0, seconds=0.0)
    done = len(run.steps) - 1
    model.fit(
        batches(data, settings.batch_size, settings.steps, run.seed, first=done * chunk),
        initial_epoch=done,
        epochs=settings.measurements,
        steps_per_epoch=chunk,
        callbacks=[recorder],
        shuffle=False,
        verbose=0,
    )


def batches(data: Data, batch_size: int, steps: int, seed: int, first: int = 0) -> tf.data.Dataset:
    """Batches number `first` to `steps`: one shuffle after another, cut in pieces.

    They are the same for a seed, wherever training starts.
    """
    random = np.random.default_rng(seed)
    n = len(data.x_train)
    shuffles = -(-steps * batch_size // n)
    order = np.concatenate([random.permutation(n) for _ in range(shuffles)]).astype("int32")
    order = order[: steps * batch_size].reshape(steps, batch_size)[first:]
    x, y = tf.constant(data.x_train), tf.constant(data.y_train)
    dataset = tf.data.Dataset.from_tensor_slices(order)
    return dataset.map(lambda rows: (tf.cast(tf.gather(x, rows), "float32"), tf.gather(y, rows)))


class Recorder(keras.callbacks.Callback):
    """Measures at the end of each epoch (which here is the stretch between two measurements) and writes it down."""

    def __init__(self, results: Results, run: Run, data: Data, on_measurement: Callable[[Run], None]):
        super().__init__()
        self.results, self.test_run, self.on_measurement = results, run, on_measurement
        self.checkpoint = Checkpoint(results, run)
        self.x, self.y = tf.constant(data.x_test, "float32"), data.y_test

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        probe = keras.Model(model.inputs, [model.get_layer(LAST_SIGMOID_INPUT).output, model.outputs[0]])
        self.evaluate = tf.function(lambda x: probe(x, training=False))
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        now = time.perf_counter()
        chunk = self.results.settings.steps // self.results.settings.measurements
        self.measure((epoch + 1) * chunk, now - self.started)
        self.started = time.perf_counter()

    def measure(self, step: int, seconds: float) -> None:
        """Test accuracy, and percentiles over the test images of the inputs of one sigmoid, in inference mode."""
        sigmoid_inputs, logits = (t.numpy() for t in self.evaluate(self.x))
        run = self.test_run
        run.steps.append(step)
        run.accuracy.append(round(float(np.mean(logits.argmax(-1) == self.y)), 5))
        unit = sigmoid_inputs[:, self.results.settings.sigmoid]
        run.percentiles.append([round(float(p), 3) for p in np.percentile(unit, PERCENTILES)])
        run.seconds = round(run.seconds + seconds, 3)
        self.checkpoint.save(self.model)
        self.on_measurement(run)
