"""Compiles exported steps for a card that need not be there, and writes what the programs do, one JSON line each."""

import argparse
import sys
from pathlib import Path

from benchmarks.accelerator.records import need_jax, write_lines
from benchmarks.ending import ADVICE, ended


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator.ahead_of_time",
        description=__doc__,
        epilog="Example: python -m benchmarks.accelerator.ahead_of_time runs/steps runs/compiled.jsonl",
    )
    parser.add_argument("steps", type=Path, help="folder that python -m benchmarks.accelerator --steps wrote")
    parser.add_argument("out", type=Path, help="file for the results, to be written")
    parser.add_argument("--only", default="", help="steps whose file names contain this")
    parser.add_argument("--repetitions", type=int, default=3, help="how often each is compiled (default: %(default)s)")
    parser.add_argument("--programs", type=Path, help="folder for the optimized programs")
    options = parser.parse_args(arguments)
    need_jax(parser, "jax_plugins")

    from benchmarks.accelerator.compiler import compile_all

    write_lines(options.out, compile_all(options.steps, options.repetitions, options.only, options.programs))


if __name__ == "__main__":
    sys.exit(ended(main, ADVICE))
