"""`python -m examples.multi_replica`: one network on one device and on several, compared."""

import argparse
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples import command
from examples.multi_replica.options import add_training_options, training_options
from examples.options import positive


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.multi_replica",
        description=(
            "Trains a small convolutional network with synchronized batch normalization on one device, and again on "
            "all GPUs of this machine, or on parts of its CPU where there are none. Prints both, and how far their "
            "weights are from each other: the replicas see the same batches in parts."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--replicas", type=positive(int), default=2, help="parts of the CPU; without effect on a machine with GPUs"
    )
    add_training_options(parser)
    options = parser.parse_args(arguments)
    return command.run(lambda: _run(options), goes_on=False)


def _run(options: argparse.Namespace) -> None:
    import keras
    import tensorflow as tf

    from benchmarks.progress import Progress
    from examples.mnist_sigmoid.data import load
    from examples.multi_replica.compare import Training, table
    from examples.multi_replica.training import Settings, train
    from kerasbn.distribute import MirroredStrategy

    devices = [f"GPU:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))]
    if not devices:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * options.replicas)
        devices = [f"CPU:{i}" for i in range(options.replicas)]
    settings = Settings(**training_options(options))
    data = load(settings.dataset, settings.data_dir)

    trainings = []
    with Progress("training", total=2 * options.epochs) as progress:
        for name, strategy in (
            (f"one ({devices[0]})", tf.distribute.get_strategy()),
            (f"{len(devices)} ({', '.join(devices)})", MirroredStrategy(devices)),
        ):

            def show(epoch, logs, name=name):
                progress.add(1, f"{name}, epoch {epoch + 1} of {options.epochs}, loss={logs['loss']:.4f}")

            start = time.perf_counter()
            model, history = train(strategy, settings, data, [keras.callbacks.LambdaCallback(on_epoch_end=show)])
            trainings.append(Training(name, time.perf_counter() - start, history, model.get_weights()))
    print(f"\n{table(trainings)}")


if __name__ == "__main__":
    sys.exit(main())
