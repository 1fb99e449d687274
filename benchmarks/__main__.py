"""Runs every benchmark, one after the other, and writes results, tables and pictures into one folder."""

import argparse
import os
import signal
import sys
from pathlib import Path

from benchmarks import lifeline, progress, tables
from benchmarks.ending import ADVICE, ended

QUICK_FOLDER = Path("runs/benchmarks")
LARGE = ["--repeats", "20", "--shapes", "32x56x56x64", "64x28x28x256", "128x14x14x512", "128x32x32x16", "64x32x32x16"]
LARGEST = LARGE[:5]
#: Each file of results, with the command that writes it.
RUNS = {
    "kernels": ["kernels"],
    "models": ["models"],
    "memory": ["memory", "--models", "ResNet-20"],
    "startup": ["startup"],
    "many_models": ["many_models"],
    "sync": ["sync"],
    "fold": ["fold"],
    "acceleration": ["acceleration"],
    "large_mean": ["large_mean"],
    "kernels_bfloat16": ["kernels", "--dtype", "bfloat16", *LARGE],
    "kernels_float16": ["kernels", "--dtype", "float16", *LARGE],
    "kernels_channels_first": ["kernels", "--layout", "first", *LARGE],
    "kernels_channels_middle": ["kernels", "--layout", "middle", *LARGE],
    "kernels_1_thread": ["kernels", "--threads", "1", *LARGEST],
    "kernels_4_threads": ["kernels", "--threads", "4", *LARGEST],
    "kernels_8_threads": ["kernels", "--threads", "8", *LARGEST],
}


def run(name: str, *arguments: str) -> bool:
    """Runs `python -m benchmarks.<name>` and says whether it succeeded. It ends with this process."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    process = lifeline.start(command, env=os.environ | {progress.VARIABLE: "0"})
    try:
        return process.wait() == 0
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)  # that it may end its own processes
        process.wait()
        raise


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog="Example: python -m benchmarks --only kernels models"
    )
    parser.add_argument("--quick", action="store_true", help="the quick form of each, some minutes instead of an hour")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help=f"where all goes (default: {tables.FOLDER}; with --quick {QUICK_FOLDER}, so that none of it is published)",
    )
    parser.add_argument(
        "--only", nargs="+", choices=RUNS, default=RUNS, metavar="NAME", help=f"of {', '.join(RUNS)} (default: all)"
    )
    chosen = parser.parse_args(arguments)
    folder = chosen.out or (QUICK_FOLDER if chosen.quick else tables.FOLDER)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started ends in either case
    quick = ["--quick"] if chosen.quick else []
    commands = [[*RUNS[name], *quick, "--out", str(folder / f"{name}.json")] for name in chosen.only]
    commands += [["plot", str(folder)], ["tables", str(folder)]]
    failed = []
    with progress.Progress("benchmarks", total=len(commands)) as shown:
        for command in commands:
            shown.add(0, f"python -m benchmarks.{' '.join(command)}", keep=True)
            if not run(*command):
                failed.append(" ".join(command))
            shown.add(1)
    if failed:
        print("\nFailed:\n" + "\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(ended(main, ADVICE))
