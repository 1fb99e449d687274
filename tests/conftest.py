"""For all tests: four logical CPUs, to test distribution without accelerators; no clock in hypothesis; no garbage."""

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Collects garbage after each file, and sets what is left of TensorFlow aside.

    So a collection, of which Keras Tuner makes two a trial, does not go through all graphs of the files before, which
    takes up to 40 seconds in the end; and what a finalizer raises is said of the file that left it.
    """
    result = yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()
    return result
