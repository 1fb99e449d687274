"""Writes what XLA makes of a training step on a GPU, and what a card takes for it. See `benchmarks.accelerator`."""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks import options, report
from benchmarks.accelerator.cases import SAVED_DTYPE, SAVED_SHAPE, SHAPES, all_cases
from benchmarks.accelerator.program import fingerprint
from benchmarks.accelerator.table import rows
from benchmarks.ending import ADVICE, ended

PROGRAMS = Path("benchmarks/accelerator/programs")

EXAMPLES = """Examples:
  python -m benchmarks.accelerator --out docs/performance/accelerator.json
for a card that is in another machine, which needs JAX and this repository, and no TensorFlow:
  python -m benchmarks.accelerator --steps runs/steps
  python -m benchmarks.accelerator.on_card runs/steps timed.jsonl      (there)
  python -m benchmarks.accelerator --timed timed.jsonl --out docs/performance/accelerator.json
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="for a look: one shape, no network, no repetition")
    parser.add_argument("--steps", type=Path, metavar="FOLDER", help="only write the steps to this folder")
    parser.add_argument("--timed", type=Path, metavar="FILE", help="what on_card wrote on another machine")
    parser.add_argument("--save", action="store_true", help=f"also write the programs of {PROGRAMS}, which tests read")
    parser.add_argument("--jax", default=sys.executable, metavar="PYTHON", help="a Python with JAX (default: this one)")
    options.add_out(parser, "accelerator")
    chosen = parser.parse_args(arguments)
    if chosen.timed and not chosen.timed.is_file():
        parser.error(f"argument --timed: must be a file that on_card wrote. Received: {chosen.timed}")

    from benchmarks.accelerator import export, networks  # TensorFlow, after the options are known to be right

    with tempfile.TemporaryDirectory() as temporary:
        steps = chosen.steps or Path(temporary) / "steps"
        export.write_steps(all_cases((SAVED_SHAPE,) if chosen.quick else SHAPES), steps)
        if not chosen.quick:
            kinds, dtypes = networks.NORMALIZATIONS, ("bfloat16", "float32")
            networks.write_steps([networks.Network(kind, dtype) for dtype in dtypes for kind in kinds], steps)
        if chosen.steps:
            print(f"Written: {steps}")
            return
        repetitions, programs = "1" if chosen.quick else "3", Path(temporary) / "programs"
        more = ["--repetitions", repetitions, "--programs", str(programs)]
        compiled = _records(chosen.jax, "ahead_of_time", steps, Path(temporary) / "compiled.jsonl", more)
        if chosen.save:
            keep_programs(steps, programs)
        timed = _lines(chosen.timed) if chosen.timed else []
    content = {"benchmark": "accelerator", "compiled": compiled, "timed": [_without_names(r) for r in timed]}
    report.publish(chosen.out, content, rows(content))


def keep_programs(steps: Path, programs: Path) -> None:
    """Writes the programs that tests read, and what they were compiled from."""
    index = {"tensorflow": version("tensorflow"), "keras": version("keras"), "steps": {}}
    for case in all_cases((SAVED_SHAPE,)):
        if case.dtype == SAVED_DTYPE:
            index["steps"][case.name] = fingerprint((steps / f"{case.name}.mlir").read_text())
            report.write_whole(PROGRAMS / f"{case.name}.hlo", (programs / f"{case.name}.mlir.hlo").read_bytes())
    report.write_whole(PROGRAMS / "index.json", (json.dumps(index, indent=1) + "\n").encode())


def _records(python: str, module: str, steps: Path, out: Path, more: list[str]) -> list[dict]:
    """What a module that needs JAX writes. In a process of its own: JAX and TensorFlow each hold an XLA."""
    command = [python, "-m", f"benchmarks.accelerator.{module}", str(steps), str(out), *more]
    subprocess.run(command, check=True, timeout=3600)
    return _lines(out)


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _without_names(record: dict) -> dict:
    """Times of single kernels are for looking at, once."""
    return {key: value for key, value in record.items() if key != "kernels"}


if __name__ == "__main__":
    sys.exit(ended(main, ADVICE))
