"""`python -m examples.multi_worker.worker`: what each worker runs, on this machine or another.

`TF_CONFIG` says who the workers are and which of them this is; without it the training is that of one process.
"""

import argparse
import io
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples import command
from examples.multi_replica.options import add_training_options, training_options


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.multi_worker.worker",
        description=(
            "Trains as the worker that TF_CONFIG says. Start one on each machine, with the same options; "
            "`python -m examples.multi_worker` starts them all on this one."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_training_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="a folder that all workers see, for backup and result")
    options = parser.parse_args(arguments)
    return command.run(lambda: _run(options), goes_on=False)


def _run(options: argparse.Namespace) -> int:
    import numpy as np
    import tensorflow as tf

    from benchmarks.report import write_whole
    from examples.mnist_sigmoid.data import load
    from examples.multi_replica.training import Settings, train
    from examples.multi_worker.epochs import ShowEpochs
    from kerasbn.distribute import BackupAndRestore, MultiWorkerMirroredStrategy

    several = "TF_CONFIG" in os.environ
    # The constructor waits for the other workers.
    strategy = MultiWorkerMirroredStrategy() if several else tf.distribute.get_strategy()
    settings = Settings(**training_options(options))
    data = load(settings.dataset, settings.data_dir)
    first = not several or strategy.cluster_resolver.task_id == 0
    backup = BackupAndRestore(options.out / "backup", double_checkpoint=True)
    start = time.perf_counter()
    try:
        model, history = train(strategy, settings, data, [backup, *([ShowEpochs(settings.epochs)] if first else [])])
    except tf.errors.OpError as error:
        if "Collective ops is aborted" not in str(error):
            raise
        print(f"{error}\n\nAnother worker has died. Start all again: they go on from the last epoch.", file=sys.stderr)
        return 3
    if first:
        weights = io.BytesIO()
        np.savez(weights, *model.get_weights())
        write_whole(options.out / "weights.npz", weights.getvalue())
        result = {"seconds": time.perf_counter() - start, "history": history}
        write_whole(options.out / "result.json", json.dumps(result).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
