"""Doing one thing in several ways, interleaved, so that what else the machine does befalls all alike."""

import random
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

WARM_UP = 3


def in_rounds(functions: dict[str, Callable[[], Result]], repeats: int, warm_up: int = 0) -> dict[str, list[Result]]:
    """What each function returns, called in rounds of random order; the first `warm_up` rounds are left out.

    The order is random so that none always runs in the other's wake, with its data in the cache or its threads still
    spinning.
    """
    order, shuffle = list(functions), random.Random(0).shuffle
    results: dict[str, list[Result]] = {name: [] for name in functions}
    for repeat in range(warm_up + repeats):
        shuffle(order)
        for name in order:
            result = functions[name]()
            if repeat >= warm_up:
                results[name].append(result)
    return results


def timed(function: Callable[[], object]) -> Callable[[], float]:
    """The function, returning how many milliseconds it took. It must end when its work is done."""

    def call() -> float:
        start = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - start)

    return call


def medians(results: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(values), 3) for name, values in results.items()}


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """The median of the ratios of calls that ran next to each other."""
    return round(statistics.median(a / b for a, b in zip(numerator, denominator, strict=True)), 2)
