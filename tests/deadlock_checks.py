"""Run by test_deadlock.py with a number of replicas and ways to run: 100 training steps of ten layers each way.

Every replica waits in each collective for the others. If two had different orders, all would wait for ever.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from kerasbn import BatchNorm

LAYERS, STEPS = 10, 100
WAYS = {"compiled": True, "uncompiled": False}


def build(**settings):
    """Two branches of four layers, of which nothing says which comes first, and two layers behind them."""
    inputs = keras.Input((6,))
    ends = []
    for _ in range(2):
        x = inputs
        for _ in range((LAYERS - 2) // 2):
            x = BatchNorm(synchronized=True, **settings)(keras.layers.Dense(6)(x))
        ends.append(x)
    x = keras.layers.Add()(ends)
    for _ in range(2):
        x = BatchNorm(synchronized=True, **settings)(keras.layers.Dense(6)(x))
    return keras.Model(inputs, x)


def main(replicas: int, *ways: str) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    # TensorFlow's own, with its collectives: kerasbn's strategy has none on CPUs, which could not wait for each other.
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    x = np.random.default_rng(0).normal(size=(STEPS * 2 * replicas, 6)).astype("float32")
    for way in ways:
        with strategy.scope():
            model = build(jit_compile=WAYS[way])
            assert sum(isinstance(layer, BatchNorm) for layer in model.layers) == LAYERS
            model.compile("sgd", "mse")
        history = model.fit(x, x, batch_size=2 * replicas, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
        print(f"{STEPS} steps {way}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
