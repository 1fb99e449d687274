"""The networks of Sec. 4.2.2, each made from the same baseline."""

from dataclasses import dataclass

import keras
import tensorflow as tf

import kerasbn
from examples.accelerate.data import BUFFER
from examples.accelerate.network import build as build_baseline


@dataclass(frozen=True)
class Network:
    """What is done to the baseline.

    Attributes:
        label: Its name in tables and figures.
        factor: What the baseline's learning rate is multiplied by.
        normalized: Whether it has batch normalization.
        accelerated: Whether it has the other changes of Sec. 4.2.1, too.
        activation: Of its hidden layers.
        long: Whether it is trained for as many steps as the baseline.
        dropout: What dropout is lowered to where it is accelerated.
        initialization: What the initial weights of the convolutions are multiplied by.
        per_activation: Whether the last hidden layer has statistics for each activation, and not for each map.
    """

    label: str
    factor: float = 1.0
    normalized: bool = False
    accelerated: bool = False
    activation: str = "relu"
    long: bool = False
    dropout: float = 0.0
    initialization: float = 1.0
    per_activation: bool = False


#: The convolutions of the last hidden layer: the ends of the branches of its block.
LAST = ("c_1x1", "c_3x3", "c_5x5_2", "c_pool_1x1")
BASELINE = "inception"
NETWORKS = {
    BASELINE: Network("Inception", long=True),
    "bn_baseline": Network("BN-Baseline", normalized=True, long=True),
    "bn_x5": Network("BN-x5", 5.0, normalized=True, accelerated=True),
    "bn_x30": Network("BN-x30", 30.0, normalized=True, accelerated=True),
    "bn_x5_sigmoid": Network("BN-x5-Sigmoid", 5.0, normalized=True, accelerated=True, activation="sigmoid"),
    "inception_sigmoid": Network("Inception, sigmoid", activation="sigmoid"),
    "inception_x5": Network("Inception, 5 times its rate", 5.0),
}


def build(
    network: Network,
    shape: tuple[int, int, int],
    examples: int,
    learning_rate: float,
    decay_steps: int,
    momentum: float,
    seed: int,
) -> tuple[keras.Model, list[keras.callbacks.Callback], tf.data.Dataset]:
    """The compiled network, the callbacks for its training, and the order of the training examples.

    Args:
        network: What is done to the baseline.
        shape: Of an image.
        examples: Number of training examples.
        learning_rate: Of the baseline, at the start.
        decay_steps: Number of steps in which the baseline's rate falls to a tenth.
        momentum: Of the moving statistics.
        seed: Of initial weights, dropout, distortions and order.
    """
    own = 1.0 if network.accelerated else network.factor  # `accelerate` raises the rate itself
    model = build_baseline(shape, 10, own * learning_rate, decay_steps, seed)
    order = tf.data.Dataset.range(examples)
    if network.activation != "relu":
        model = kerasbn.transforms.replace_activations(model, network.activation)
    if network.initialization != 1.0:
        model = kerasbn.transforms.scale_initialization(model, network.initialization, _is_convolution)
    if network.per_activation:  # what is normalized here is left alone below
        model = kerasbn.batch_normalize(model, _is_last, axis=(1, 2, 3), momentum=momentum)
    if network.accelerated:
        fast = kerasbn.accelerate(model, order, network.factor, dropout=network.dropout, seed=seed, momentum=momentum)
        return fast.model, fast.callbacks, fast.data
    if network.normalized:
        model = kerasbn.batch_normalize(model, momentum=momentum)
    return model, [], order.shuffle(BUFFER, seed=seed)


def _is_convolution(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Conv2D)


def _is_last(layer: keras.layers.Layer) -> bool:
    return layer.name in LAST
