"""The paper's numbers beside ours, and whether each claim holds here."""

from typing import Any

from examples.results import text
from examples.understanding.results import Depth, Divergence, Rates, StepSize, network

#: Final test accuracy of ResNet-110 on CIFAR-10, read off the figure; without normalization higher rates diverge.
ACCURACY = {"all_0.1": "93 %", "all_0.003": "90.5 %", "all_0.0001": "81.5 %", "none_0.0001": "82 %"}
DIVERGES = ("none_0.1", "none_0.003")
NAMES = {"all": "BN", "none": "no BN", "last": "BN on the last layer"}
#: Accuracy in percent up to which a network of ten classes only guesses.
GUESSING = 0.15
STAGES = {"initial": "at initialization", "trained": "after some training"}
#: The best step with normalization. Without, the paper's is below 0.001, at which the loss explodes.
BEST_STEP = (0.03, 0.1)
HEAD = ["claim", "paper", "here", "holds"]
Row = list[str]


def accuracy(row: dict[str, Any]) -> str:
    """The final accuracy of a row of `Rates.summary`, with what became of the other seeds."""
    diverged = len(row["diverged_at"])
    if diverged == row["seeds"]:
        return f"diverged at step {min(row['diverged_at']):,}" + (
            f" to {max(row['diverged_at']):,}" if len(set(row["diverged_at"])) > 1 else ""
        )
    return text(row["final_accuracy"], "{:.1%}") + (f" ({diverged} of {row['seeds']} diverged)" if diverged else "")


def interval(found: dict[str, Any] | None) -> str:
    """A geometric mean with its interval, as in "6.1 (4.8 to 7.7)"; without one where there is one seed."""
    if not found:
        return "-"
    if found["mean"] is None:  # some are 0 or infinite
        low, high = (f"{found[name]:.3g}" if found[name] is not None else "above" for name in ("lowest", "highest"))
        return f"{low} to {high}"
    mean = f"{found['mean']:.3g}"
    return mean if found["low"] is None else f"{mean} ({found['low']:.3g} to {found['high']:.3g})"


def of_rates(results: Rates) -> list[Row]:
    """Rates that are stood, what they are worth."""
    rows = results.summary()

    def fails(name: str) -> bool:
        """Whether no seed learned more than to guess."""
        found = rows[name]["final_accuracy"]
        return found is None or found["max"] <= GUESSING

    def mean(name: str) -> float:
        return rows[name]["final_accuracy"]["mean"]

    found = []
    for name in DIVERGES:
        if name in rows:
            claim = f"without normalization, {rows[name]['rate']:g} diverges"
            found.append([claim, "diverges", accuracy(rows[name]), _holds(fails(name))])
    three = [network("all", rate) for rate in (0.1, 0.003, 0.0001)]
    if all(name in rows and not fails(name) for name in three):
        falls = mean(three[0]) > mean(three[1]) > mean(three[2])
        shown = " > ".join(f"{mean(name):.1%}" for name in three)
        claim = "with it, the higher rate ends higher: 0.1, 0.003, 0.0001"
        found.append([claim, "93 > 90.5 > 81.5 %", shown if falls else shown.replace(" >", ","), _holds(falls)])
    low = [network(normalized, 0.0001) for normalized in ("all", "none")]
    if all(name in rows and rows[name]["final_accuracy"] for name in low):
        with_it, without = map(mean, low)
        alike, shown = abs(with_it - without) <= 0.05, f"{with_it:.1%} and {without:.1%}"
        found.append(["at 0.0001 both end alike (within 5 points)", "81.5 and 82 %", shown, _holds(alike)])

    def best_of(normalized: str) -> float | None:
        learned = [mean(name) for name, row in rows.items() if row["normalized"] == normalized and not fails(name)]
        return max(learned, default=None)

    best = {normalized: best_of(normalized) for normalized in NAMES}
    if best["all"] and best["none"]:
        shown = f"{best['all']:.1%} and {best['none']:.1%}"
        claim = "each at its best rate, normalization ends higher"
        found.append([claim, "93 and 82 %", shown, _holds(best["all"] > best["none"])])
    if best["last"] and best["none"]:
        shown = f"{best['last']:.1%} and {best['none']:.1%}"
        claim = "one normalization, on the last layer, ends higher than none"
        found.append([claim, "higher", shown, _holds(best["last"] > best["none"])])
    return found


def of_depth(results: Depth) -> list[Row]:
    """How much higher a rate normalization stands, and what depth does to it."""
    rows = results.summary()
    found = []
    for depth, row in rows.items():
        ratio = row["ratio"]
        if ratio and ratio["mean"]:
            claim = f"ResNet-{depth}: normalization stands a higher rate, by a factor of"
            certain = ratio["low"] is None or ratio["low"] > 1
            found.append([claim, "above 1", interval(ratio), _holds(ratio["mean"] > 1 and certain)])
    depths = list(rows)
    slowest = [rows[depth]["none"] for depth in depths]
    if len(rows) > 1 and all(each and each["mean"] for each in slowest):
        first, last = slowest[0]["mean"], slowest[-1]["mean"]
        shown = f"{first:.3g} at {depths[0]} layers, {last:.3g} at {depths[-1]}"
        found.append(["without it, the largest stable rate falls with depth", "falls", shown, _holds(last < first)])
    ratios = [rows[depth]["ratio"] for depth in depths]
    if len(rows) > 1 and all(each and each["low"] for each in ratios):
        first, last = ratios[0], ratios[-1]
        apart = last["low"] > first["high"] or last["high"] < first["low"]
        shown = f"{interval(first)} at {depths[0]} layers, {interval(last)} at {depths[-1]}"
        holds = _holds(last["mean"] > first["mean"]) if apart else "unclear"
        found.append(["the factor grows with depth", "-", shown, holds])
    return found


def of_step_size(results: StepSize) -> list[Row]:
    """Which step is best, and from where on the loss explodes."""
    rows = results.summary()
    found = []
    for stage, when in STAGES.items():
        normalized, plain = (rows.get(f"{name}_{stage}") for name in results.networks)
        if not normalized or not plain:
            continue
        best, ratio = normalized["best_step"], results.ratio(stage)
        if best["low"]:
            within = best["low"] <= BEST_STEP[1] and best["high"] >= BEST_STEP[0]
            found.append(
                [f"{when}, with normalization, the best step is", "0.03 to 0.1", interval(best), _holds(within)]
            )
        if ratio and ratio["mean"]:
            claim = f"{when}, the best step is larger with normalization, by a factor of"
            found.append(
                [
                    claim,
                    "30 or more: 0.03 / 0.001",
                    interval(ratio),
                    _holds(ratio["mean"] > 1 and (ratio["low"] or 2) > 1),
                ]
            )
        grows, explodes = plain["worse_from"], plain["diverges_from"]
        if grows and explodes:
            claim = f"{when}, without, the loss explodes"
            shown = f"grows from {grows:.2g} on, 1,000 times from {explodes:.2g}"
            found.append([claim, "above about 0.001", shown, _holds(grows <= 0.003)])
        at, highest = normalized["diverges_from"], results.settings.highest
        claim = f"{when}, with it, no step up to {highest:g} makes the loss 1,000 times as high"
        found.append([claim, "none", "none" if at is None else f"from {at:.2g} on", _holds(at is None)])
    return found


def of_divergence(results: Divergence) -> list[Row]:
    """How much the variance grows, from the first layer to the last."""
    rows = results.summary()
    found = []
    if "none" in rows:
        growth = rows["none"]["growth"]
        first, last = growth[0]["mean"], growth[-1]["mean"]
        if first and last:
            claim = "the variance grows with depth in a diverging step: first convolution, last"
            found.append([claim, "up to 5e16 at layer 80", f"{first:.2g}, {last:.2g} times", _holds(last > 10 * first)])
    if "all" in rows:
        largest = max(each["mean"] or 0.0 for each in rows["all"]["growth"])
        claim = "with normalization, the same step: the variance of any layer grows at most"
        found.append([claim, "-", f"{largest:.2g} times", _holds(largest < 10)])
    if "all" in rows and "none" in rows:
        at = [rows[name]["explodes_at"] for name in ("all", "none")]
        if all(each["mean"] for each in at):
            claim = "the loss is 1,000 times as high from a step of, with normalization and without"
            shown = " and ".join(f"{each['mean']:.3g}" for each in at)
            found.append([claim, "- and about 0.001", shown, _holds(at[0]["mean"] > at[1]["mean"])])
    return found


def _holds(holds: bool) -> str:
    return "yes" if holds else "no"
