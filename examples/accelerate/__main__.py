"""`python -m examples.accelerate`: a small Inception of 2014, and the same after `kerasbn.accelerate`."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples.folder import alone
from examples.mnist_sigmoid.__main__ import positive

#: For each data set: steps, measurements, and the baseline's best learning rate (README).
DEFAULTS = {"digits": (1500, 30, 0.03), "cifar10": (3000, 15, 0.03)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.accelerate",
        description=(
            "Ioffe & Szegedy 2015, Sec. 4.2.1: trains a small Inception with LRN, dropout, L2 and photometric "
            "distortions, and what kerasbn.accelerate makes of it. Prints what was changed and a table, writes "
            "results.json and figure.png. Can be interrupted at any time; the same command goes on where it stopped."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--dataset", choices=DEFAULTS, default="digits", help="digits comes with scikit-learn")
    parser.add_argument(
        "--data-dir", type=Path, help="folder of TensorFlow Datasets (default: theirs)", default=argparse.SUPPRESS
    )
    parser.add_argument("--download", action="store_true", help="download and prepare the data set if it is missing")
    parser.add_argument("--steps", type=positive(int), help="of each training", default=argparse.SUPPRESS)
    parser.add_argument("--measurements", type=positive(int), help="of each training", default=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=positive(int), default=32, help="images a step")
    parser.add_argument(
        "--learning-rate", type=positive(float), help="of the baseline, at the start", default=argparse.SUPPRESS
    )
    parser.add_argument(
        "--factor", type=positive(float), default=5.0, help="what the accelerated rate is multiplied by"
    )
    parser.add_argument("--seeds", type=positive(int), default=2, help="how many times each network is trained")
    parser.add_argument("--networks", nargs="+", choices=("baseline", "accelerated"), default=argparse.SUPPRESS)
    parser.add_argument(
        "--out", type=Path, help="where results go (default: runs/accelerate/DATASET)", default=argparse.SUPPRESS
    )
    options = parser.parse_args(arguments)
    steps, measurements, rate = DEFAULTS[options.dataset]
    steps = getattr(options, "steps", steps)
    measurements = min(getattr(options, "measurements", measurements), steps)
    settings = {
        "dataset": options.dataset,
        "steps": steps // measurements * measurements,
        "batch_size": options.batch_size,
        "learning_rate": getattr(options, "learning_rate", rate),
        "factor": options.factor,
        "measurements": measurements,
    }
    out = getattr(options, "out", Path("runs/accelerate") / options.dataset)
    return alone(out, lambda: _run(options, settings, out))


def _run(options: argparse.Namespace, chosen: dict[str, Any], out: Path) -> int:
    try:
        from examples.accelerate import report
        from examples.accelerate.data import DatasetMissing, load
        from examples.accelerate.training import (
            NETWORKS,
            Results,
            Settings,
            model_and_callbacks,
            train,
        )
        from examples.progress import with_bar
        from examples.results import SettingsDiffer
    except ModuleNotFoundError as error:
        print(f'This example needs {error.name}, which is not installed: pip install -e ".[examples]"', file=sys.stderr)
        return 2

    settings = Settings(**chosen)
    try:
        results = Results.open(out, settings)
        images = load(options.dataset, getattr(options, "data_dir", None), options.download)
    except (SettingsDiffer, DatasetMissing) as error:
        print(error, file=sys.stderr)
        return 2

    print(f"{model_and_callbacks('accelerated', settings, images, 0)[3]}\n", flush=True)
    networks = getattr(options, "networks", list(NETWORKS))
    try:
        for seed in range(options.seeds):
            for network in networks:
                title = f"{network}, seed {seed + 1} of {options.seeds}"
                with_bar(results, results.run(network, seed), title, partial(train, images))
    except KeyboardInterrupt:
        print("Interrupted. What was measured is kept; the same command goes on from there.", file=sys.stderr)
        return 130
    drawn = report.figure(results)
    print(f"\n{report.table(results)}\n\nFigure: {drawn}\nResults: {results.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
