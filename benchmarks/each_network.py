"""What the commands that measure one network after another have in common."""

from collections.abc import Callable, Sequence

from benchmarks import options, report
from benchmarks.networks import MODES, NETWORKS

QUICK_MODES = ("graph",)


def main(
    name: str,
    documentation: str,
    measure: Callable[[str, str, int], dict],
    rows: Callable[[dict], list[list[str]]],
    arguments: Sequence[str] | None,
    *,
    repeats: Callable[[str], int],
    repeats_help: str,
    quick_models: Sequence[str],
    quick_repeats: int,
) -> list[dict]:
    """Calls `measure(network, mode, repeats)` for those that the options choose, and publishes the results."""
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
    results = []
    for network in chosen.models or (quick_models if chosen.quick else NETWORKS):
        for mode in chosen.modes or (QUICK_MODES if chosen.quick else MODES):
            rounds = chosen.repeats or (quick_repeats if chosen.quick else repeats(network))
            results.append({"model": network, "mode": mode, "repeats": rounds, **measure(network, mode, rounds)})
            report.progress("  ".join(rows({"results": results})[-1]))
    content = {"benchmark": name, "results": results}
    report.publish(chosen.out, content, rows(content))
    return results
