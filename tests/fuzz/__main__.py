"""The long profile for as long as there is time, in one process after another: `python -m tests.fuzz --minutes 60`.

TensorFlow keeps every program that XLA compiled, and a process of some thousand of them has 8 GB. So each file of tests
runs in a process of its own, with a seed of its own, and all of them again with others. What ran is said at any
end, also that of an interrupt; what failed is kept in `.hypothesis/fuzz` and tried first the next time.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.profiles import COUNTS_FILE

ROOT = Path(__file__).parents[2]
FILES = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))


def run(file: str, seed: int, times: float) -> tuple[dict[str, int], str | None]:
    """Runs the tests of a file; gives the number of examples of each test, and what was printed if one failed."""
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder, "counts.json")
        variables = {"KERASBN_FUZZ": "long", "KERASBN_FUZZ_TIMES": str(times), COUNTS_FILE: str(counts)}
        options = ["--numprocesses=0", "-p", "no:cacheprovider", "-q", f"--hypothesis-seed={seed}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, f"tests/fuzz/{file}.py"],
            cwd=ROOT,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        found = json.loads(counts.read_text(encoding="utf-8")) if counts.exists() else {}
    failure = f"{file}, seed {seed}, ended with {done.returncode}:\n{done.stdout}" if done.returncode else None
    return found, failure


def table(counts: Counter[str], failures: list[str], seconds: float) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "keras", "hypothesis"))
    lines = ["| property | examples |", "|---|---|"]
    lines += [f"| `tests/fuzz/{name.replace('::', '.py::')}` | {count:,} |" for name, count in sorted(counts.items())]
    lines += [f"| all | {counts.total():,} |", ""]
    lines += [
        f"{seconds / 60:.0f} minutes, {len(failures)} runs failed; {versions}, Python {platform.python_version()}"
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end with the run that this time ends in")
    parser.add_argument("--rounds", type=int, help="end after so many runs of each file")
    parser.add_argument("--times", type=float, default=10, help="examples in a run, for each that CI has (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each has the next (default: 0)")
    parser.add_argument("--log", type=Path, help="a file that a line of JSON is appended to after each run")
    parser.add_argument("files", nargs="*", metavar="file", help=f"{', '.join(FILES)} (default: all)")
    options = parser.parse_args(arguments)
    if unknown := set(options.files) - set(FILES):
        parser.error(f"there is no {', '.join(sorted(unknown))} among {', '.join(FILES)}")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as an interrupt from the keyboard
    counts: Counter[str] = Counter()
    failures: list[str] = []
    start = time.monotonic()
    rounds = itertools.count() if options.rounds is None else range(options.rounds)
    try:
        for number, file in ((number, file) for number in rounds for file in options.files or FILES):
            if time.monotonic() - start >= 60 * options.minutes:
                break
            found, failure = run(file, options.seed + number, options.times)
            counts.update(found)
            if failure:
                failures.append(failure)
                print(failure, flush=True)
            seconds = round(time.monotonic() - start)
            line = {"seconds": seconds, "file": file, "seed": options.seed + number, "failed": bool(failure)} | found
            if options.log:
                with options.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
            print(line, flush=True)
    except KeyboardInterrupt:
        print("interrupted; the run of then is not counted")
    print(table(counts, failures, time.monotonic() - start))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
