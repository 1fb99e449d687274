"""Tests in fresh processes, one group of files after another: `python -m tests --slow`.

TensorFlow keeps every program that XLA compiled, so the memory of a process only grows. Each group gets processes of
its own; the end is a table of tests, time and memory by group. Unknown arguments are given to pytest.
"""

import argparse
import contextlib
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.report import markdown

ROOT = Path(__file__).parents[1]
#: No group takes a third of that.
LIMIT = 3600
#: What pytest returns where it ran no test: all of a group may be deselected.
NO_TESTS = 5


@dataclass
class Outcome:
    """How a group of tests ended.

    Attributes:
        name: Of the group.
        code: What pytest returned.
        seconds: From the start of its processes to their end.
        gib: The largest sum of resident memory of these processes, in GiB; 0 where there is no `/proc`.
        tests: The seconds of each test, with set-up, by name.
    """

    name: str
    code: int
    seconds: float
    gib: float
    tests: dict[str, float] = field(default_factory=dict)


def groups() -> dict[str, list[str]]:
    """Files and folders of tests by the name of their group."""
    found = {"kerasbn": ["kerasbn"]}
    for folder in sorted(path for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))):
        found[f"tests/{folder.name}"] = [str(folder.relative_to(ROOT))]
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        part = next(part for part in ("a-d", "e-k", "l-r", "s-z") if path.name[len("test_")] <= part[-1])
        found.setdefault(f"tests/test_[{part}]*", []).append(str(path.relative_to(ROOT)))
    return found


def run(name: str, paths: Iterable[str], arguments: list[str]) -> Outcome:
    """Runs pytest on some paths."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", *paths, *arguments, f"--junitxml={report}", "-ojunit_family=xunit1"]
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            with watched(process.pid) as most:
                code = process.wait(LIMIT)
        finally:
            process.kill()
        tests = dict(times(report)) if report.exists() else {}
    return Outcome(name, 0 if code == NO_TESTS else code, time.monotonic() - start, max(most) / 2**30, tests)


def times(report: Path) -> Iterator[tuple[str, float]]:
    """The tests of a report of pytest's that were not skipped, with their seconds."""
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is None:
            yield f"{case.get('file')}::{case.get('name')}", float(case.get("time", 0))


@contextlib.contextmanager
def watched(pid: int) -> Iterator[list[int]]:
    """Samples of the resident bytes of a process and all that it started."""
    samples, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            samples.append(resident(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def resident(pid: int) -> int:
    """Resident bytes of a process and all that it started, by Linux's `/proc`."""
    children: dict[int, list[int]] = {}
    pages = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended
            # The name may hold spaces and ends with the last parenthesis.
            values = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(values[1]), []).append(int(path.parent.name))
            pages[int(path.parent.name)] = int(values[21])
    family, todo = 0, [pid]
    while todo:
        process = todo.pop()
        family += pages.get(process, 0)
        todo += children.get(process, [])
    return family * resource.getpagesize()


def summary(outcomes: list[Outcome], slowest: int) -> str:
    """Tests, time and memory by group, and the slowest tests."""
    rows = [["group", "tests", "seconds", "GiB at most"]]
    rows += [[f"`{each.name}`", f"{len(each.tests):,}", f"{each.seconds:.0f}", f"{each.gib:.1f}"] for each in outcomes]
    total = sum(len(each.tests) for each in outcomes), sum(each.seconds for each in outcomes)
    rows.append(["all", f"{total[0]:,}", f"{total[1]:.0f}", f"{max(each.gib for each in outcomes):.1f}"])
    parts = [markdown(rows)]
    if slowest:
        each = {name: seconds for outcome in outcomes for name, seconds in outcome.tests.items()}
        longest = sorted(each.items(), key=lambda pair: -pair[1])[:slowest]
        parts.append(markdown([["test", "seconds"], *([f"`{name}`", f"{seconds:.1f}"] for name, seconds in longest)]))
    if failed := [each.name for each in outcomes if each.code]:
        parts.append(f"Failed: {', '.join(failed)}")
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns 1 if any test failed."""
    names = list(groups())
    parser = argparse.ArgumentParser("python -m tests", description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--group", action="append", choices=names, help="only this group; may be given several times")
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="a table of the N slowest tests, too")
    parser.add_argument("--slow", action="store_true", help="all tests, also those that `pytest` leaves out")
    options, given = parser.parse_known_args(arguments)
    given += ["--slow"] if options.slow else []

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as an interrupt from the keyboard
    outcomes = []
    for name in options.group or names:
        print(f"\n=== {name}", flush=True)
        outcomes.append(run(name, groups()[name], given))
    print(f"\n{summary(outcomes, options.slowest)}")
    return int(any(each.code for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
