"""Works out on paper what synchronizing one layer costs at 8, 64 and 1024 replicas, way by way.

A message of n bytes takes latency + n / bandwidth. An all-reduce over R replicas is the faster of a ring, 2 (R - 1)
messages of n / R, and of recursive doubling, log2(R) messages of n; an all-gather of n from each takes the latency
of log2(R) messages, by doubling, and the time of (R - 1) n bytes (Thakur, Rabenseifner & Gropp 2005). Nothing here is
measured: latency and bandwidth are what you say.
"""

import argparse
import math
import sys
from collections.abc import Callable
from typing import NamedTuple

from benchmarks import options, report
from benchmarks.ending import ADVICE, ended

REPLICAS = (8, 64, 1024)
FLOAT = 4  # bytes


class Network(NamedTuple):
    """Between two replicas: seconds for a message of nothing, bytes a second."""

    latency: float
    bandwidth: float


NETWORKS = {
    "one machine": Network(5e-6, 100e9),  # accelerators with links of their own
    "fast network": Network(10e-6, 20e9),
    "Ethernet": Network(50e-6, 2.5e9),
}


def all_reduce(network: Network, replicas: int, size: float) -> float:
    ring = 2 * (replicas - 1) * (network.latency + size / replicas / network.bandwidth)
    doubling = math.ceil(math.log2(replicas)) * (network.latency + size / network.bandwidth)
    return min(ring, doubling)


def all_gather(network: Network, replicas: int, size: float) -> float:
    return math.ceil(math.log2(replicas)) * network.latency + (replicas - 1) * size / network.bandwidth


def one_each(*values: int) -> Callable[[Network, int, int], float]:
    """An all-reduce for each of `values`, so many numbers a channel."""
    return lambda network, replicas, channels: sum(
        all_reduce(network, replicas, FLOAT * channels * value) for value in values
    )


def backward(network: Network, replicas: int, channels: int) -> float:
    """The sums of dy and of dy * x_hat in one."""
    return one_each(2)(network, replicas, channels)


#: Each way, forward and backward. A part of the moments is count, center, offset and M2: four numbers a channel.
WAYS: dict[str, Callable[[Network, int, int], float]] = {
    "Keras: 3 + 2 all-reduces": one_each(1, 1, 1, 1, 1),
    "kerasbn: a slot each, reduced": lambda n, r, c: all_reduce(n, r, FLOAT * c * 4 * r) + backward(n, r, c),
    "the same, gathered": lambda n, r, c: all_gather(n, r, FLOAT * c * 4) + backward(n, r, c),
    "mean, then M2: two reduced": lambda n, r, c: one_each(2, 1)(n, r, c) + backward(n, r, c),
    "sums of x, x^2: one reduced": lambda n, r, c: one_each(3)(n, r, c) + backward(n, r, c),
}


def costs(channels: int, networks: dict[str, Network]) -> list[dict]:
    """Microseconds of one layer and step."""
    return [
        {
            "network": name,
            "replicas": replicas,
            "microseconds": {way: round(1e6 * cost(network, replicas, channels), 1) for way, cost in WAYS.items()},
        }
        for name, network in networks.items()
        for replicas in REPLICAS
    ]


def rows(content):
    """The table, from what was written."""
    heading = ["network", "replicas", *(f"{way}, us" for way in WAYS)]
    return [heading] + [
        [result["network"], str(result["replicas"]), *(f"{result['microseconds'][way]:,.0f}" for way in WAYS)]
        for result in content["results"]
    ]


def positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text!r}")
    return value


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sync_cost",
        description=__doc__.split("\n\n")[0],
        epilog="Example: python -m benchmarks.sync_cost --latency 20 --bandwidth 12",
    )
    parser.add_argument("--channels", type=options.at_least_one, default=256, metavar="N", help="(default: 256)")
    parser.add_argument("--latency", type=positive, metavar="US", help="of your network, in microseconds")
    parser.add_argument("--bandwidth", type=positive, metavar="GB/S", help="of your network, in 10^9 bytes a second")
    chosen = parser.parse_args(arguments)
    if (chosen.latency is None) != (chosen.bandwidth is None):
        parser.error("--latency and --bandwidth come together")
    networks = NETWORKS
    if chosen.latency:
        networks = {"yours": Network(chosen.latency * 1e-6, chosen.bandwidth * 1e9)}
    print(report.table(rows({"results": costs(chosen.channels, networks)})))


if __name__ == "__main__":
    sys.exit(ended(main, ADVICE))
