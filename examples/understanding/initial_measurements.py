"""Everything that is measured at initialisation, one network at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from examples.accelerate.data import Images
from examples.understanding.initial_activations import moments
from examples.understanding.initial_gradients import at_outputs, gradients, one_sidedness
from examples.understanding.initial_jacobians import ACTIVATIONS, WEIGHTS, random_products, stack_jacobians
from examples.understanding.initial_results import MATRICES, Settings, resnet_name, stack_name
from examples.understanding.network import NORMALIZED, resnet


@dataclass(frozen=True)
class Planned:
    """A measurement that is to be made: of what, with which seed, and how."""

    network: str
    seed: int
    measure: Callable[[], dict[str, Any]]


#: Of so many training images, the first, a seed draws its batch.
POOL = 2048


def pool(images: Images) -> Images:
    """Without the images that nothing is drawn from, which would be in memory all the time."""
    return Images(
        images.x_train[:POOL].copy(), images.y_train[:POOL].copy(), images.x_test[:0].copy(), images.y_test[:0].copy()
    )


def plan(settings: Settings, images: Images, initializers: Sequence[str], seeds: int) -> list[Planned]:
    """All measurements, those of the ResNets first; nothing is measured yet."""
    found = []
    for seed in range(seeds):
        for initializer in initializers:
            with_image = seed == 0 and initializer == initializers[0]
            for normalized in NORMALIZED:

                def of_resnet(seed=seed, normalized=normalized, initializer=initializer, with_image=with_image):
                    return measure_resnet(settings, images, normalized, initializer, seed, with_image)

                found.append(Planned(resnet_name(normalized, initializer), seed, of_resnet))
    for seed in range(seeds):

        def of_matrices(seed=seed):
            return _by_text(random_products(settings.matrix_size, settings.counts, seed))

        found.append(Planned(MATRICES, seed, of_matrices))
        for activation in ACTIVATIONS:
            for weights in WEIGHTS:

                def of_stack(seed=seed, activation=activation, weights=weights):
                    spectra = stack_jacobians(
                        activation, weights, settings.width, settings.stack_batch, settings.counts, seed
                    )
                    return {kind: _by_text(found) for kind, found in spectra.items()}

                found.append(Planned(stack_name(activation, weights), seed, of_stack))
    return found


def measure_resnet(
    settings: Settings, images: Images, normalized: str, initializer: str, seed: int, with_image: bool
) -> dict[str, Any]:
    """Moments by depth, gradients, and what is at the outputs, for images that are drawn by the seed.

    Where the last layer alone is normalized, moments are those of the network without normalization: they are left out.
    """
    rows = np.random.default_rng(seed).permutation(len(images.x_train))
    shown, batch = rows[: settings.images], rows[: settings.batch_size]
    with _eagerly():
        model = resnet(settings.depth, normalized, images.x_train.shape[1:], seed=seed, initializer=initializer)
        found: dict[str, Any] = {}
        if normalized != "last":
            found["moments"] = moments(model, images.x_train[batch], settings.depth)
        found["gradients"] = gradients(model, images.x_train[batch], images.y_train[batch], settings.depth)
        outputs, gradient = at_outputs(model, images.x_train[shown], images.y_train[shown])
    found["output"] = one_sidedness(outputs, gradient)
    if with_image:
        found["output"]["gradient"] = np.round(
            gradient.astype("float64") * len(gradient), 3
        ).tolist()  # of each image's own loss
    keras.utils.clear_session()
    return found


@contextmanager
def _eagerly() -> Iterator[None]:
    """Without graphs: each network is looked at once, and to trace one of a hundred layers takes longer than that."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _by_text(found: dict[int, Any]) -> dict[str, Any]:
    """With keys as JSON has them, so that what was read and what was measured now are the same."""
    return {str(count): values for count, values in found.items()}
