"""Four logical CPUs for every test, to test distribution without accelerators; and hypothesis without a clock."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import tensorflow as tf
from hypothesis import settings

from tests.fuzz import profiles

# A first call traces and compiles: how long an example takes says nothing.
settings.register_profile("default", deadline=None, derandomize=bool(os.environ.get("CI")))
profiles.register()
settings.load_profile(os.environ.get("KERASBN_FUZZ", "default"))

CPUS = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(CPUS[0], [tf.config.LogicalDeviceConfiguration()] * 4)


@pytest.fixture(scope="session")
def strategy():
    """Two replicas. One strategy for all tests: collectives of a second one in a process run into the first one's."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="module")
def quick_collection():
    """Keras Tuner collects garbage twice in a trial: not all of TensorFlow each time, which takes half of a test."""
    gc.freeze()
    yield
    gc.unfreeze()
