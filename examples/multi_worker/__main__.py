"""`python -m examples.multi_worker`: one network on several processes, compared with one process."""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from examples import command
from examples.multi_replica.options import add_training_options, training_options
from examples.multi_worker.cluster import Cluster, how_it_ended
from examples.options import positive


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.multi_worker",
        description=(
            "Trains a small convolutional network with synchronized batch normalization on several processes of this "
            "machine, under MultiWorkerMirroredStrategy, and in one process on the joined batches. Prints both and how "
            "far their weights are from each other. Kill a worker while it trains: the others end, all start again, "
            "and training goes on from the last epoch."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--workers", type=positive(int), default=2, help="how many processes")
    add_training_options(parser)
    parser.add_argument("--restarts", type=int, default=1, help="how often to start again after a worker has died")
    parser.add_argument("--timeout", type=positive(float), default=3600, help="seconds after which all are ended")
    parser.add_argument(
        "--out", type=Path, help="where results go (default: runs/multi_worker/DATASET)", default=argparse.SUPPRESS
    )
    options = parser.parse_args(arguments)
    out = getattr(options, "out", Path("runs/multi_worker") / options.dataset).resolve()
    return command.run(lambda: _run(options, out), out, goes_on=False)


def _run(options: argparse.Namespace, out: Path) -> int:
    import numpy as np

    from benchmarks.progress import Progress
    from examples.mnist_sigmoid.data import load
    from examples.multi_replica.compare import Training, table

    load(options.dataset, getattr(options, "data_dir", None))  # is there, before any process is started
    forwarded = []
    for name, value in training_options(options).items():
        if value is not None:
            forwarded += [f"--{name.replace('_', '-')}", str(value)]
    trainings = []
    with Progress("training", total=2 * options.epochs) as progress:
        for name, workers in ((f"{options.workers} workers", options.workers), ("one process", 0)):
            folder = out / name.replace(" ", "-")
            if not _train(progress, name, workers, forwarded, folder, options.restarts, options.timeout):
                return 1
            result = json.loads((folder / "result.json").read_text())
            with np.load(folder / "weights.npz") as file:
                weights = [file[key] for key in file.files]
            trainings.append(Training(name, result["seconds"], result["history"], weights))
    print(f"\n{table(trainings)}")
    return 0


def _train(
    progress: Any, name: str, workers: int, arguments: list[str], folder: Path, restarts: int, timeout: float
) -> bool:
    """Trains, as often as it takes, up to `restarts` times more; whether it succeeded."""
    # What an earlier run has left, maybe of other settings.
    shutil.rmtree(folder / "backup", ignore_errors=True)
    for old in (folder / "weights.npz", folder / "result.json", *folder.glob("worker-*.log")):
        old.unlink(missing_ok=True)
    follow = Follow(folder / "worker-0.log", progress, name)
    for attempt in range(restarts + 1):
        with Cluster(workers, [*arguments, "--out", str(folder)], folder) as cluster:
            cluster.start_all()
            progress.say(f"{name}: {', '.join(f'process {p.pid}' for p in cluster.processes.values())}")
            failed = cluster.wait(timeout, on_tick=follow)
        if not failed:
            return True
        for index, code in failed.items():
            print(f"worker {index} {how_it_ended(code)}; its output is in {cluster.log(index)}", file=sys.stderr)
        if attempt < restarts:
            progress.say("starting all workers again, from the last epoch that was saved")
    return False


class Follow:
    """Tells of the epochs that a worker's log is of."""

    def __init__(self, path: Path, progress: Any, name: str) -> None:
        self._path, self._progress, self._name, self._epoch = path, progress, name, 0

    def __call__(self) -> None:
        text = self._path.read_text(errors="replace")
        for epoch, rest in re.findall(r": epoch (\d+)( of .*)\n", text):
            if int(epoch) > self._epoch:
                self._progress.add(int(epoch) - self._epoch, f"{self._name}, epoch {epoch}{rest}")
                self._epoch = int(epoch)


if __name__ == "__main__":
    sys.exit(main())
