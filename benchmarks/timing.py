"""Timing several ways to do one thing, interleaved, so that what else the machine does befalls all alike."""

import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

WARM_UP = 3


def interleaved(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each call of each function, in rounds of random order; the first `WARM_UP` rounds are left out.

    A function must return when its work is done. The order is random so that none always runs in the other's wake,
    with its data in the cache or its threads still spinning.
    """
    order, shuffle = list(functions), random.Random(0).shuffle
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(WARM_UP + repeats):
        shuffle(order)
        for name in order:
            start = time.perf_counter()
            functions[name]()
            if repeat >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """The median of the ratios of calls that ran next to each other."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def machine() -> dict[str, str | int | None]:
    """What a reader must know to compare with another machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = models[0] if models else model
    found: dict[str, str | int | None] = {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version()}
    for package in ("tensorflow", "keras", "torch", "numpy", "kerasbn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def write(path: Path, content: dict) -> None:
    """Writes JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
    os.replace(temporary, path)


def table(rows: list[list[str]]) -> str:
    """Rows as aligned text, the first one a heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
