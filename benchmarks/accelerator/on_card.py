"""Runs exported steps on a card, or on a CPU: numbers against float64, then times. Writes one JSON line each.

Needs JAX and NumPy; PyTorch, whose batch normalization is cuDNN's, if it is there; no TensorFlow.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

from benchmarks.accelerator.records import need_jax, write_lines
from benchmarks.ending import ADVICE, ended


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator.on_card",
        description=__doc__,
        epilog="Example: python -m benchmarks.accelerator.on_card runs/steps runs/timed.jsonl",
    )
    parser.add_argument("steps", type=Path, help="folder that python -m benchmarks.accelerator --steps wrote")
    parser.add_argument("out", type=Path, help="file for the results, to be written")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each time (default: %(default)s)")
    parser.add_argument(
        "--budget", type=float, default=600.0, help="seconds after which it ends (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    need_jax(parser)

    from benchmarks.accelerator.steps_on_card import records

    end = time.monotonic() + options.budget
    in_time = itertools.takewhile(lambda _: time.monotonic() < end, records(options.steps, options.seconds))
    write_lines(options.out, in_time)


if __name__ == "__main__":
    sys.exit(ended(main, ADVICE))
