"""`python -m tuning.study`: how much higher a learning rate does batch normalization allow, and what is best there?"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.lifeline import end_with_parent
from examples.errors import Refused
from examples.folder import held
from examples.options import positive
from tuning.settings import DATASETS, CannotRun, check, chosen

VARIED = ("activation", "batch_size", "decay", "dropout", "initialization", "momentum", "warmup", "weight_decay")
EXAMPLES = """examples:
  python -m tuning.study                                    digits, some minutes
  python -m tuning.study --dataset cifar10 --download --trials 40 --seeds 3
  python -m tuning.study --dataset cifar10 --trials 40 --seeds 3 --resume
  python -m tuning.study --workers 3 --out runs/tuning/three
  python -m tuning.report runs/tuning/digits                tables and pictures again

Several machines share --out, a folder that all see, and are started with the same options:
  python -m tuning.study --out /shared/run --chief 10.0.0.1:8000 --worker-id chief     on 10.0.0.1
  python -m tuning.study --out /shared/run --chief 10.0.0.1:8000 --worker-id worker0   on each, by a name of its own
  python -m tuning.study --out /shared/run --resume        on one, at the end: largest stable rates and the report
Whoever reaches the port of the chief can take part: Keras Tuner has no authentication. Keep it to a private network.
"""


def main(arguments: list[str] | None = None) -> int:
    end_with_parent()
    options = parser().parse_args(arguments)
    out = options.out or Path("runs/tuning") / options.dataset
    try:  # what can be said without TensorFlow, whose import takes seconds
        asked = chosen(options)
        _check_member(options)
        if options.worker_id in (None, "chief"):  # a worker may be there before the study is
            with held(out):
                check(out, asked, options.resume)
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    try:
        from tuning import run
    except ModuleNotFoundError as error:
        print(f'The study needs {error.name}, which is not installed: pip install -e ".[tuning]"', file=sys.stderr)
        return 2
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2
    return run.main(options, out, asked)


def _check_member(options: argparse.Namespace) -> None:
    host, _, port = (options.chief or "").rpartition(":")
    if (options.chief or options.worker_id) and not (host and port.isdigit() and options.worker_id):
        raise CannotRun(
            f"--chief HOST:PORT and --worker-id go together. Received: --chief {options.chief} --worker-id "
            f"{options.worker_id}. `python -m tuning.study --help` has an example."
        )


def parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(
        prog="python -m tuning.study",
        description=(
            "Searches learning rates about that of a network without batch normalization and of the same network with "
            "it.\nA training that diverges is a result. Prints a table and writes results.json, pictures and a page."
        ),
        epilog=EXAMPLES,
        formatter_class=formatter,
    )
    add = made.add_argument
    add("--dataset", choices=list(DATASETS), default="digits", help="(default: digits, which come with scikit-learn)")
    add("--data-dir", type=Path, help="folder of TensorFlow Datasets (default: theirs)")
    add("--download", action="store_true", help="download and prepare the data set if it is missing")
    add("--trials", type=positive(int), default=16, help="choices of the hyperparameters (default: %(default)s)")
    add("--seeds", type=positive(int), default=2, help="trainings of each trial (default: %(default)s)")
    add("--steps", type=positive(int), help="of each training (default: 300 for digits, 1000, 1500 for CIFAR-10)")
    add(
        "--oracle",
        choices=("even", "random", "bayesian"),
        default="even",
        help="how trials are chosen; even: the same rates for both networks, evenly spread (default: %(default)s)",
    )
    add(
        "--objective",
        choices=("final", "area", "steps"),
        default="final",
        help="what the oracle and the ranking go by: accuracy at the end, mean accuracy over the steps, "
        "or steps to --target (default: %(default)s)",
    )
    add("--target", type=positive(float), default=0.9, help="accuracy for --objective steps (default: %(default)s)")
    add("--learning-rate", type=positive(float), default=0.01, help="yours, at the start (default: %(default)s)")
    add(
        "--factors",
        type=positive(float),
        nargs=2,
        default=(0.1, 100.0),
        metavar=("LOW", "HIGH"),
        help="what it is multiplied by (default: 0.1 100)",
    )
    add("--vary", nargs="+", choices=VARIED, default=[], help="search these as well")
    add(
        "--stable-steps",
        type=int,
        default=200,
        help="of each training that looks for the largest stable rate, 0 for none (default: %(default)s)",
    )
    add("--out", type=Path, help="folder of the study (default: runs/tuning/DATASET)")
    add("--resume", action="store_true", help="go on with the study in --out; no finished trial is run again")
    add("--workers", type=positive(int), default=1, help="processes that share the trials (default: %(default)s)")
    add("--restarts", type=int, default=3, help="how often a worker that was killed is started again (default: 3)")
    add("--timeout", type=positive(float), help="seconds after which the processes of --workers are ended")
    add("--chief", metavar="HOST:PORT", help="where the chief of several machines listens")
    add("--worker-id", help="'chief', or the name of a worker of --chief")
    return made


if __name__ == "__main__":
    sys.exit(main())
