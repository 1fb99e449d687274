"""What the commands that measure one network after another have in common."""

import importlib
import itertools
from collections.abc import Callable, Sequence

from benchmarks import options, report
from benchmarks.options import MODES, NETWORKS
from benchmarks.progress import Progress

QUICK_MODES = ("graph",)


def main(
    name: str,
    documentation: str,
    arguments: Sequence[str] | None,
    *,
    repeats: Callable[[str], int],
    repeats_help: str,
    quick_models: Sequence[str],
    quick_repeats: int,
) -> list[dict]:
    """Calls `measure(network, mode, repeats)` for those that the options choose, and publishes the results.

    That function and `rows` are those of `benchmarks.NAME`, which is imported once the options are read.
    """
    parser = options.parser(
        name,
        documentation,
        quick=f"{', '.join(quick_models)}; mode {', '.join(QUICK_MODES)}; {quick_repeats} rounds; about a minute",
        repeats=repeats_help,
        example="--models ResNet-20 --modes graph xla --repeats 3",
    )
    options.add_choice(parser, "models", NETWORKS)
    options.add_choice(parser, "modes", MODES)
    chosen = parser.parse_args(arguments)
    benchmark, results = importlib.import_module(f"benchmarks.{name}"), []
    networks = chosen.models or (quick_models if chosen.quick else NETWORKS)
    modes = chosen.modes or (QUICK_MODES if chosen.quick else MODES)
    with Progress(name, total=len(networks) * len(modes)) as progress:
        for network, mode in itertools.product(networks, modes):
            rounds = chosen.repeats or (quick_repeats if chosen.quick else repeats(network))
            results.append(
                {"model": network, "mode": mode, "repeats": rounds, **benchmark.measure(network, mode, rounds)}
            )
            progress.add(1, "  ".join(benchmark.rows({"results": results})[-1]), keep=True)
    content = {"benchmark": name, "results": results}
    report.publish(chosen.out, content, benchmark.rows(content))
    return results
