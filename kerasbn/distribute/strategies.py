"""TensorFlow's strategies, as `keras.Model.fit` needs them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import keras
import tensorflow as tf

from kerasbn.distribute.training_step import training_step
from kerasbn.sync import check_not_in_xla


class _ForKeras:
    """Makes `tf.distribute.Strategy.reduce` accept what Keras hands in, and a training step that of one device.

    Keras 3 calls `reduce` twice, and each time asks for what the method does not have:

    - before the first step with a whole batch, ``(x, y)``, of which it only reads shapes and dtypes. To add the
      shards of the replicas up fails where they differ in size, and between workers always. Here it gets a shard of
      this worker.
    - after each step with every log, a scalar, and ``axis=0``. Between workers that fails, since a scalar has no axis.
      Here it gets the mean over the replicas.
    """

    def reduce(self, reduce_op: Any, value: Any, axis: int | None = None) -> Any:
        """Reduces `value` over the replicas; see `tf.distribute.Strategy.reduce`.

        Args:
            reduce_op: `"SUM"`, `"MEAN"` or a `tf.distribute.ReduceOp`.
            value: One value a replica. Of a structure of them, the values of the first replica of this worker are
                returned as they are.
            axis: Also to be reduced, or `None`. Without effect on scalars, which have none.
        """
        if tf.nest.is_nested(value):
            return tf.nest.map_structure(self._first, value)
        if axis is not None and len(self._first(value).shape) == 0:
            axis = None
        return super().reduce(reduce_op, value, axis)  # type: ignore[misc]

    def run(self, fn: Callable[..., Any], args: Any = (), kwargs: Any = None, options: Any = None) -> Any:
        """Runs `fn` on each replica; see `tf.distribute.Strategy.run`.

        If `fn` is the `train_step` of a Keras model, as in `fit`, its optimizer clips the sum of the gradients of all
        replicas (`clipnorm`, `clipvalue`, `global_clipnorm`). Keras's clips the share of each replica.

        Raises:
            ValueError: Inside of one XLA program, as `compile(jit_compile=True)` makes it, with several replicas on
                CPUs: XLA has no collectives there. For the `train_step` of a model on several replicas: if the model
                was built or compiled outside of `scope()`; if its optimizer has `gradient_accumulation_steps` or
                `ema_overwrite_frequency`.
        """
        check_not_in_xla(self)
        model = getattr(fn, "__self__", None)
        trains = isinstance(model, keras.Model) and fn == model.train_step
        several = self.num_replicas_in_sync > 1  # type: ignore[attr-defined]
        with training_step(model, self) if trains and several else nullcontext():
            return super().run(fn, args, kwargs, options)  # type: ignore[misc]

    def _first(self, value: Any) -> Any:
        return self.experimental_local_results(value)[0]  # type: ignore[attr-defined]


class MirroredStrategy(_ForKeras, tf.distribute.MirroredStrategy):
    """`tf.distribute.MirroredStrategy`, several devices of one machine, for shards of any size and for CPUs.

    - With TensorFlow's own, `keras.Model.fit` fails if the replicas cannot share the first batch evenly.
    - In `fit`, the optimizer clips the gradient of the global batch (`clipnorm`, `clipvalue`, `global_clipnorm`). With
      TensorFlow's own it clips the share of each replica.
    - TensorFlow's collectives of CPUs fail inside loops, as ``compile(steps_per_execution=2)`` makes them, and with a
      second strategy in the same process. Here the default for CPUs is `tf.distribute.ReductionToOneDevice`.

    Args:
        devices: Names of devices, or `None` for all GPUs, or the CPU where there is none. A CPU is several after
            `tf.config.set_logical_device_configuration`.
        cross_device_ops: A `tf.distribute.CrossDeviceOps`, or `None` for TensorFlow's choice on accelerators.

    Raises:
        AssertionError: If `devices` names one twice.
        ValueError: If what `devices` has is no name of a device; in training, with ``compile(jit_compile=True)`` and
            several CPUs, whose collectives XLA cannot compile; in training on several replicas, if the model was built
            or compiled outside of `scope()`, or its optimizer has `gradient_accumulation_steps` or
            `ema_overwrite_frequency`, which Keras cannot run there.

    Example:
        >>> import keras, kerasbn
        >>> strategy = kerasbn.distribute.MirroredStrategy(["CPU:0"])  # on all GPUs: MirroredStrategy()
        >>> with strategy.scope():
        ...     layers = [kerasbn.BatchNorm(synchronized=True), keras.layers.Dense(1)]
        ...     model = keras.Sequential([keras.Input((3,)), *layers])
        ...     model.compile("sgd", kerasbn.distribute.JoinedLoss(keras.losses.MeanSquaredError()))
        >>> history = model.fit(keras.ops.ones((7, 3)), keras.ops.ones((7, 1)), batch_size=4, verbose=0)
    """

    def __init__(self, devices: Sequence[str] | None = None, cross_device_ops: Any = None) -> None:
        """Remembers the devices; see the class."""
        if cross_device_ops is None and all("CPU" in device.upper() for device in devices or _gpus()):
            cross_device_ops = tf.distribute.ReductionToOneDevice()
        super().__init__(devices, cross_device_ops)


def _gpus() -> list[str]:
    return [device.name for device in tf.config.list_logical_devices("GPU")]


class MultiWorkerMirroredStrategy(_ForKeras, tf.distribute.MultiWorkerMirroredStrategy):
    """`tf.distribute.MultiWorkerMirroredStrategy`, several machines, under which `keras.Model.fit` works.

    With TensorFlow's own, Keras 3 fails before the first step, whatever the layers. Everything else is as there, the
    environment variable ``TF_CONFIG`` too: every worker runs the same program with the same data, of which each takes
    its share of every batch.

        # TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
        #             "task": {"type": "worker", "index": 0}}'      index 1 on the second machine
        strategy = kerasbn.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            model = ...
            model.compile(...)
        model.fit(dataset, callbacks=[kerasbn.distribute.BackupAndRestore("/shared/backup")])

    `python -m examples.multi_worker` is this, run on one machine.

    - The constructor waits until all workers are there.
    - When a worker dies, the others end with `tf.errors.UnavailableError`, ``Collective ops is aborted by: ...``,
      within about ten seconds: in TensorFlow a worker counts as dead as soon as its connection breaks, or when its
      heartbeats stay out. Start all again; with `kerasbn.distribute.BackupAndRestore` they go on from the last epoch.
    - A worker may be anyone who reaches the port: TensorFlow does not authenticate. Keep it to a private network.

    Args:
        cluster_resolver: A `tf.distribute.cluster_resolver.ClusterResolver`; by default one that reads ``TF_CONFIG``.
        communication_options: A `tf.distribute.experimental.CommunicationOptions`, or `None` for TensorFlow's choice.

    Raises:
        ValueError: If `cluster_resolver` is none; if ``TF_CONFIG`` is not JSON, or its task is not in its cluster; in
            training, with ``compile(jit_compile=True)`` and several CPUs, whose collectives XLA cannot compile; in
            training, as with `MirroredStrategy`, if the model was built or compiled outside of `scope()`, or its
            optimizer has an option that Keras cannot run on several replicas.
    """
