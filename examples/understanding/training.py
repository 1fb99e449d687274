"""The networks to train, and the training at one rate."""

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from examples import measured
from examples.accelerate.data import Images
from examples.measured import CLASSES, Measured
from examples.understanding.augmentation import mirror_and_shift
from examples.understanding.network import resnet
from examples.understanding.results import DIVERGENCE, DROPS, DivergenceSettings, Rates, StepSizeSettings, Training


def compiled(
    settings: Training,
    normalized: str,
    shape: tuple[int, int, int],
    rate: float | keras.optimizers.schedules.LearningRateSchedule,
    depth: int,
    seed: int,
) -> keras.Model:
    """A ResNet with SGD at `rate`."""
    keras.utils.clear_session()  # the networks before are not kept
    model = resnet(
        depth,
        normalized,
        shape,
        CLASSES,
        seed=seed,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    model.compile(
        keras.optimizers.SGD(rate, momentum=settings.momentum),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(images: Images, results: Rates, run: Measured, on_measurement: Callable[[Measured], None]) -> None:
    """Trains `run` to its end, or until it diverges, and saves `results` after each measurement."""
    settings = results.settings
    normalized, rate = results.networks[run.network]
    images = drawn(images, settings.steps * settings.batch_size, run.seed)
    drops = [round(part * settings.steps) for part in DROPS]
    falling = keras.optimizers.schedules.PiecewiseConstantDecay(drops, [rate, rate / 10, rate / 100])
    examples = len(images.x_train)
    measured.train(
        results,
        run,
        compiled(settings, normalized, images.x_train.shape[1:], falling, settings.depth, run.seed),
        tf.data.Dataset.range(examples).shuffle(examples, seed=run.seed),
        images,
        every=settings.every,
        explosion=DIVERGENCE,
        augment=None if settings.dataset == "digits" else mirror_and_shift,
        on_measurement=on_measurement,
    )


def look_at(settings: StepSizeSettings | DivergenceSettings, normalized: str, shape: tuple, seed: int) -> keras.Model:
    """A network for a look at it, at initialization."""
    return compiled(settings, normalized, shape, settings.trained_rate, settings.depth, seed)


def train_a_little(
    model: keras.Model, images: Images, settings: StepSizeSettings | DivergenceSettings, seed: int
) -> None:
    """Some steps at a low and constant rate; images are not augmented."""
    images = drawn(images, settings.trained_steps * settings.batch_size, seed)
    order = tf.data.Dataset.range(len(images.x_train)).shuffle(len(images.x_train), seed=seed)
    batches = measured.batches(images, order, settings.batch_size)
    model.fit(batches, steps_per_epoch=settings.trained_steps, shuffle=False, verbose=0)


def drawn(images: Images, number: int, seed: int) -> Images:
    """So many training images, drawn at random: what a short training sees, and keeps in memory. Or all, if fewer."""
    if number >= len(images.x_train):
        return images
    rows = np.random.default_rng(seed).permutation(len(images.x_train))[:number]
    return replace(images, x_train=images.x_train[rows], y_train=images.y_train[rows])


def mini_batches(images: Images, size: int, number: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """So many mini-batches, drawn at random."""
    rows = np.random.default_rng(seed).permutation(len(images.x_train))[: size * number].reshape(number, size)
    return [(images.x_train[each], images.y_train[each]) for each in rows]
