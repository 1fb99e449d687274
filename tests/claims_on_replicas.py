"""Run by test_claims_about_keras.py in a process of its own: TensorFlow's strategies fail in ways that may stay.

With an argument it is one of several workers, otherwise one process with two logical devices.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf


def fit(strategy, **settings):
    """Prints whether `fit` fails, and how many steps were counted until then."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.compile("sgd", "mse", **settings)
    try:
        model.fit(np.ones((16, 4), "float32"), np.ones((16, 2), "float32"), batch_size=4, verbose=0)
    except Exception as error:
        print(f"fails after {int(model.optimizer.iterations.numpy())} steps: {type(error).__name__}", flush=True)
    else:
        print("works", flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        fit(tf.distribute.MultiWorkerMirroredStrategy())
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        fit(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), steps_per_execution=2)
