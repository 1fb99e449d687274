"""For all tests: four logical CPUs, to test distribution without accelerators; no clock in hypothesis; no garbage."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import tensorflow as tf
from hypothesis import settings

from kerasbn.kernels import tiered
from tests.fuzz import profiles
from tests.leftovers import forget_gradients
from tests.tiers import UNCOMPILED_STEPS

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
    """Gives back what a file leaves, after its last test, and sets the rest aside.

    So memory does not grow with the number of files. A collection, of which Keras Tuner makes two a trial, does not
    go through what files before have left, and what a finalizer raises is said of the file that left it.
    """
    result = yield
    if nextitem is None or nextitem.path != item.path:
        forget_gradients()
        gc.unfreeze()  # what was set aside before may be garbage by now
        gc.collect()
        gc.freeze()
    return result


@pytest.fixture(autouse=True)
def uncompiled(request, monkeypatch):
    """Layers that leave it to kerasbn compile nothing, as what XLA compiled is never given back.

    The marker `default_compilation` keeps what users have; `jit_compile=True` and whole XLA programs stay what they
    are.
    """
    if not request.node.get_closest_marker("default_compilation"):
        monkeypatch.setattr(tiered, "MIN_BYTES", 2**62)


@pytest.fixture
def small_and_soon(uncompiled, monkeypatch):
    """Batches of any size are compiled as soon as they come, and compiled kernels take over after some uses."""
    monkeypatch.setattr(tiered, "MIN_BYTES", 1)
    monkeypatch.setattr(tiered, "MIN_USES", UNCOMPILED_STEPS)
    monkeypatch.setattr(tiered, "BREAK_EVEN", 1)
    monkeypatch.setattr(tiered, "MAX_PROGRAMS", 100_000)
    monkeypatch.setattr(tiered, "IDLE", tiered.BUSY)


@pytest.fixture
def taken(monkeypatch):
    """For each use of a layer that counts its uses, whether it was a compiled one."""
    seen, takes_over = [], tiered.takes_over

    def looked_at(*args):
        flag = takes_over(*args)
        with tf.control_dependencies([tf.numpy_function(lambda flag: seen.append(bool(flag)), [flag], [])]):
            return tf.identity(flag)

    monkeypatch.setattr(tiered, "takes_over", looked_at)
    return seen
