"""Numbers that pages claim are those of the committed results, so that a page and its JSON do not drift apart."""

import functools
import itertools
import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from examples.covariate_shift.analysis import Row, analyse
from examples.covariate_shift.comparisons import BASELINE, SAME
from examples.covariate_shift.results import Results as Shift
from examples.inception.comparison import compare
from examples.initialisation.results import Results as Initialisation
from examples.results import spread
from examples.understanding.results import StepSize
from kerasbn.intervals import Interval, geometric_mean
from tests.test_documents import ROOT, text
from tuning import results as study_results

Numbers = Sequence[float]


class Source(NamedTuple):
    """A file of results, and how it is read."""

    file: str
    read: Callable[[Path], Any] = lambda path: json.loads(path.read_text())


class Claim(NamedTuple):
    """What a page says, with formats in the place of its numbers; these are what `numbers` makes of the source."""

    page: str
    passage: str
    source: Source
    numbers: Callable[[Any], Numbers]


def percent(found: dict[str, float]) -> Numbers:
    """Mean and standard deviation."""
    return 100 * found["mean"], 100 * found["stdev"]


def interval(found: Interval | dict[str, float]) -> Numbers:
    """Mean, and the interval of 95 %."""
    found = found._asdict() if isinstance(found, Interval) else found
    return found["mean"], found["low"], found["high"]


def two_digits(number: float) -> float:
    return float(f"{number:.2g}")


# examples.accelerate, examples.mnist_sigmoid

ACCELERATE = Source("examples/accelerate/results/cifar10/results.json")
INCEPTION = Source("examples/inception/results/cifar10/results.json")
MNIST = Source("examples/mnist_sigmoid/results/mnist/results.json")
MNIST_RATE_1 = Source("examples/mnist_sigmoid/results/mnist_rate_1/results.json")


def fewer_and_accuracy(content: dict, network: str) -> Numbers:
    row = content["summary"]["networks"][network]
    accuracy = [100 * row["max_accuracy"][name] for name in ("mean", "stdev")]
    return [*(row["times_fewer_steps"][name] for name in ("mean", "low", "high")), *accuracy]


def points_higher(content: dict) -> float:
    finals = {name: row["final_accuracy"]["mean"] for name, row in content["summary"].items()}
    return 100 * (finals["accelerated"] - finals["baseline"])


def sigmoid(content: dict) -> Numbers:
    """Of the first training: the distance of the percentiles after 500 steps, and how far the median moves late."""
    distances, moves = [], []
    for network in ("batch_norm", "plain"):
        run = next(run for run in content["runs"] if (run["network"], run["seed"]) == (network, 0))
        low, _, high = run["percentiles"][run["steps"].index(500)]
        distances.append(high - low)
        medians = [each[1] for each in run["percentiles"][len(run["steps"]) // 2 :]]
        moves.append(statistics.fmean(abs(b - a) for a, b in itertools.pairwise(medians)))
    return [*distances, *moves]


# tuning.study

STUDY = Source("tuning/results/cifar10/results.json", study_results.read)


def stable(study: study_results.Study) -> Numbers:
    """The largest stable rates, with normalization and without, and their ratio."""
    with_it, without = (study.stable[arm] for arm in ("normalized", "plain"))
    ratio = geometric_mean([high / low for high, low in zip(with_it, without, strict=True)])
    return geometric_mean(with_it).mean, geometric_mean(without).mean, *interval(ratio)


def best(study: study_results.Study) -> Numbers:
    """Rate, accuracy and its deviation of the best trial, with normalization and without."""
    trials = [study.best(arm) for arm in ("normalized", "plain")]
    return [number for each in trials for number in (study.rate(each), 100 * each.accuracy, 100 * each.spread)]


# examples.initialisation, examples.ensemble

INITIALISATION = Source("examples/initialisation/results/digits/results.json", Initialisation.read)
ENSEMBLE = Source("examples/ensemble/results/digits/results.json")


def at_scale(results: Initialisation, scale: float) -> float:
    """The accuracy with normalization from weights of this scale, at the best rate for each seed."""
    by_scale = results.accuracy("batch_norm").max(2).mean(0)
    return 100 * by_scale[results.settings.scales.index(scale)]


def ensembles(content: dict) -> Numbers:
    """Errors of the ensembles, of their members on average, and of the network that is not modified."""
    found = [each["top_1"] for each in content["summary"]["ensembles"].values()]
    whole = [each["ensemble"] for each in found]
    members = [statistics.fmean(each["members"].values()) for each in found]
    reference = content["summary"]["networks"]["reference"]["top_1_error"]
    return [number for each in (spread(whole), spread(members), reference) for number in percent(each)]


# examples.covariate_shift, all at the same rate

DIGITS_SHIFT, MNIST_SHIFT = (
    Source(f"examples/covariate_shift/results/{name}/results.json", functools.cache(Shift.read))
    for name in ("digits", "mnist")
)


def rows(results: Shift) -> list[Row]:
    return [row for row in analyse(results.compared(SAME)) if (row.place, row.period) == ("nonlinearity", "step")]


def shifts(results: Shift) -> Numbers:
    """Of the mean and by Wasserstein-1, over those without normalization."""
    ratios = {row.metric: row.ratios["batch_norm"] for row in rows(results)}
    return *interval(ratios["mean"]), *interval(ratios["wasserstein"])


def fewer(results: Shift, network: str) -> Numbers:
    return interval(compare(results.compared(SAME), BASELINE)[network]["times_fewer_steps"])


def mean_accuracy(results: Shift, network: str) -> float:
    """Over the training."""
    return 100 * statistics.fmean(run.mean_accuracy for run in results.compared(SAME)[network])


# examples.understanding

RATES, DEPTH, DIVERGENCE, MATRICES = (
    Source(f"examples/understanding/results/digits/{name}.json")
    for name in ("rates", "depth", "divergence", "initialisation")
)
STEP_SIZE = Source("examples/understanding/results/digits/step_size.json", StepSize.read)
RESNET_110 = Source("examples/understanding/results/cifar10/initialisation.json")


def finals(content: dict, *names: str) -> Numbers:
    return [number for name in names for number in percent(content["summary"][name]["final_accuracy"])]


def resnet(content: dict, network: str) -> dict[str, Any]:
    return content["summary"]["resnet"][f"resnet/{network}/he_normal"]


def growth(content: dict, network: str) -> dict[str, float]:
    return {name: 10**value for name, value in resnet(content, network)["growth_of_block"].items()}


def largest(content: dict, network: str) -> float:
    """The largest entry of the gradient in the middle."""
    return 10 ** resnet(content, network)["middle_max_power_of_ten"]["mean"]


def largest_of_others(content: dict) -> Numbers:
    """The same without normalization, with any other initializer and seed: lowest and highest."""
    found = [
        row["middle_max_power_of_ten"]
        for name, row in content["summary"]["resnet"].items()
        if name.startswith("resnet/none/") and not name.endswith("/he_normal")
    ]
    return 10 ** min(each["min"] for each in found), 10 ** max(each["max"] for each in found)


def terms(content: dict, network: str) -> list[dict[str, float]]:
    return [layer["absolute_by_summed"] for layer in resnet(content, network)["terms"]]


# benchmarks

KERNELS, MODELS, STARTUP, MEMORY, FOLD, LARGE_MEAN = (
    Source(f"docs/performance/{name}.json") for name in ("kernels", "models", "startup", "memory", "fold", "large_mean")
)


def result(content: dict, **of: str) -> dict[str, Any]:
    """The one result that is of this."""
    (found,) = (each for each in content["results"] if of.items() <= each.items())
    return found


def errors(content: dict, mean: float, *libraries: str) -> Numbers:
    return [result(content, library=each)["errors"][content["means"].index(mean)] for each in libraries]


def overhead(content: dict, mode: str) -> float:
    """What Keras's layers add to a step of ResNet-20."""
    times = result(content, model="ResNet-20", mode=mode)["milliseconds"]
    return times["keras"] - times["no BN"]


def until_steps(content: dict, *steps: str) -> Numbers:
    """For each step the lowest and the highest ratio of the times until its end, kerasbn to Keras, in a graph."""
    curves = [each["kerasbn / keras"] for each in content["results"] if each["mode"] == "graph"]
    return [end(curve[step] for curve in curves) for step in steps for end in (min, max)]


def of_fused(content: dict, mode: str) -> Numbers:
    """The time of a layer over that of TensorFlow's fused operation, from 4 MB on: lowest and highest."""
    ratios = [each["ratios"][f"fused {mode} / kerasbn {mode}"] for each in content["results"] if each["megabytes"] > 4]
    return 1 / max(ratios), 1 / min(ratios)


def of_floor(content: dict, mode: str) -> Numbers:
    large = [each for each in content["results"] if each["megabytes"] > 50]
    return [1 / each["ratios"][f"floor / kerasbn {mode}"] for each in large]


README, REPRODUCTION, PERFORMANCE, LAYER = "README.md", "docs/reproduction.md", "docs/performance.md", "docs/layer.md"

CLAIMS = [
    Claim(
        README,
        "needs {:.1f} times fewer steps to the other's best accuracy, and ends {:.0f} points higher",
        ACCELERATE,
        lambda c: [c["summary"]["accelerated"]["times_fewer_steps"]["mean"], points_higher(c)],
    ),
    Claim(
        REPRODUCTION,
        "{:.1f} times fewer steps, {:.1f} % ± {:.1f} against {:.1f} % ± {:.1f} (three seeds)",
        ACCELERATE,
        lambda c: [c["summary"]["accelerated"]["times_fewer_steps"]["mean"], *finals(c, "accelerated", "baseline")],
    ),
    Claim(
        REPRODUCTION,
        "baseline of 6,000 steps: {:.1f} ({:.1f} to {:.1f}) times, {:.1f} % ± {:.1f} against",
        INCEPTION,
        lambda c: fewer_and_accuracy(c, "bn_baseline"),
    ),
    Claim(
        REPRODUCTION,
        "{:.1f} ({:.1f} to {:.1f}) times, {:.1f} % ± {:.1f} (three seeds); digits",
        INCEPTION,
        lambda c: fewer_and_accuracy(c, "bn_x5"),
    ),
    Claim(
        REPRODUCTION,
        "{:.1f} ({:.1f} to {:.1f}) times, {:.1f} % ± {:.1f} against BN-x5's",
        INCEPTION,
        lambda c: fewer_and_accuracy(c, "bn_x30"),
    ),
    Claim(
        REPRODUCTION,
        "{:.2f} % ± {:.2f} with, {:.2f} % ± {:.2f} without",
        MNIST,
        lambda c: finals(c, "batch_norm", "plain"),
    ),
    Claim(
        REPRODUCTION,
        "{:.1f} ± {:.1f} times fewer steps to the other's best (five seeds)",
        MNIST,
        lambda c: [c["summary"]["batch_norm"]["times_fewer_steps"][name] for name in ("mean", "stdev")],
    ),
    Claim(
        REPRODUCTION,
        "({:.1f} against {:.1f} between percentiles 15 and 85 after 500 steps); later the median moves *more*, by "
        "{:.2f} a measurement against {:.2f}",
        MNIST,
        sigmoid,
    ),
    Claim(
        REPRODUCTION,
        "at ten times the rate the ratio goes from {:.1f} to {:.1f} over seeds",
        MNIST_RATE_1,
        lambda c: [c["summary"]["batch_norm"]["times_fewer_steps"][name] for name in ("min", "max")],
    ),
    Claim(README, "stable up to {:.2f} with normalization and {:.3f} without", STUDY, lambda study: stable(study)[:2]),
    Claim(
        README,
        "the best are {:.3f} ({:.1f} %) and {:.3f} ({:.1f} %)",
        STUDY,
        lambda study: [best(study)[place] for place in (0, 1, 3, 4)],
    ),
    Claim(REPRODUCTION, "stable up to {:.2f} with, {:.3f} without: {:.1f} times ({:.1f} to {:.1f})", STUDY, stable),
    Claim(REPRODUCTION, "best at {:.3f} ({:.1f} % ± {:.1f}) and {:.3f} ({:.1f} % ± {:.1f})", STUDY, best),
    Claim(
        "docs/recipe.md",
        "{:.1f} times as high with normalization (95 % interval {:.1f} to {:.1f})",
        STUDY,
        lambda study: stable(study)[2:],
    ),
    Claim(
        REPRODUCTION,
        "{:.0f} % ± {:.0f} of a grid of scales and rates within 5 points of the best, {:.0f} % ± {:.0f} without",
        INITIALISATION,
        lambda found: [n for name in ("batch_norm", "plain") for n in percent(found.summary()[name]["good"])],
    ),
    Claim(
        REPRODUCTION,
        "{:.1f} % at He's scale, {:.0f} % at 10 times, {:.0f} % at 30 times",
        INITIALISATION,
        lambda found: [at_scale(found, scale) for scale in (1.0, 10.0, 30.0)],
    ),
    Claim(
        REPRODUCTION,
        "{:.2f} % ± {:.2f} top-1 error, its members {:.2f} % ± {:.2f}, BN-x30 {:.2f} % ± {:.2f}",
        ENSEMBLE,
        ensembles,
    ),
    Claim(
        REPRODUCTION,
        "mean to {:.3f} ({:.3f} to {:.3f}), Wasserstein-1 to {:.2f} ({:.2f} to {:.2f}) of that without",
        DIGITS_SHIFT,
        shifts,
    ),
    Claim(REPRODUCTION, "MNIST: {:.3f} ({:.3f} to {:.3f}) and {:.2f} ({:.2f} to {:.2f})", MNIST_SHIFT, shifts),
    Claim(
        REPRODUCTION,
        "{:.1f} ({:.1f} to {:.1f}) times fewer steps, BN alone {:.1f} ({:.1f} to {:.1f})",
        DIGITS_SHIFT,
        lambda found: [*fewer(found, "noisy"), *fewer(found, "batch_norm")],
    ),
    Claim(
        REPRODUCTION,
        "with BN {:.2f} ({:.2f} to {:.2f}) times, though {:.1f} % on average over the training against {:.1f} %",
        MNIST_SHIFT,
        lambda found: [
            *fewer(found, "batch_norm"),
            *(mean_accuracy(found, name) for name in ("batch_norm", BASELINE)),
        ],
    ),
    Claim(
        REPRODUCTION,
        "{:.1f} % ± {:.1f}, {:.1f} % ± {:.1f}, {:.1f} % ± {:.1f}; {:.1f} % ± {:.1f} (three seeds, 240 steps)",
        RATES,
        lambda c: finals(c, "all_0.1", "all_0.003", "all_0.0001", "none_0.0001"),
    ),
    Claim(REPRODUCTION, "0.003 does not: {:.1f} % ± {:.1f}", RATES, lambda c: finals(c, "none_0.003")),
    Claim(
        REPRODUCTION,
        "at 0.1: {:.1f} % ± {:.1f}, where without it all diverge; with BN everywhere {:.1f} % ± {:.1f}",
        RATES,
        lambda c: finals(c, "last_0.1", "all_0.1"),
    ),
    Claim(
        REPRODUCTION,
        "without: {:.3f}, {:.3f}, {:.3f} at 8, 14, 20 layers; with: {:.2f}, {:.2f}, {:.2f}",
        DEPTH,
        lambda c: [c["summary"][layers][name]["mean"] for name in ("none", "all") for layers in ("8", "14", "20")],
    ),
    Claim(
        REPRODUCTION,
        "best at {:.2f} ({:.2f} to {:.2f}) with, {:.0f} times ({:.0f} to {:.0f}) as large as without; without, grows "
        "from {:.3f} on",
        STEP_SIZE,
        lambda found: [
            *interval(found.summary()["all_initial"]["best_step"]),
            *interval(found.ratio("initial")),
            found.summary()["none_initial"]["worse_from"],
        ],
    ),
    Claim(
        REPRODUCTION,
        "variances by {:.2f} at layer 1, {:.0f} at 6, {:,.0f} at 10, {:,.0f} at 13",
        DIVERGENCE,
        lambda c: [
            c["summary"]["none"]["growth"][0]["mean"],
            *(two_digits(c["summary"]["none"]["growth"][layer - 1]["mean"]) for layer in (6, 10, 13)),
        ],
    ),
    Claim(
        REPRODUCTION,
        "`he_normal`: by {:.2g} ({:.2g} to {:.2g}) without, by {:.1f} with",
        RESNET_110,
        lambda c: [*(growth(c, "none")[name] for name in ("mean", "min", "max")), growth(c, "all")["mean"]],
    ),
    Claim(
        REPRODUCTION,
        "{:.2f} with, {:.2g} without (`he_normal`; other initializers {:.2f} to {:.0f})",
        RESNET_110,
        lambda c: [largest(c, "all"), largest(c, "none"), *map(two_digits, largest_of_others(c))],
    ),
    Claim(
        REPRODUCTION,
        "kurtosis {:.1f} and {:.0f}",
        RESNET_110,
        lambda c: [resnet(c, network)["middle_kurtosis"]["mean"] for network in ("all", "none")],
    ),
    Claim(
        REPRODUCTION,
        "{:.1f}, {:.1f}, {:.1f} without, {:.0f} ± {:.0f}, {:.0f} ± {:.0f}, {:.0f} ± {:.0f} with, at layers 18, 54, 90",
        RESNET_110,
        lambda c: [
            *(each["mean"] for each in terms(c, "none")),
            *(each[name] for each in terms(c, "all") for name in ("mean", "stdev")),
        ],
    ),
    Claim(
        REPRODUCTION,
        "medians {:.2f}, {:.2f}, {:.2f} (10 factors: {:.3f})",
        MATRICES,
        lambda c: [c["summary"]["matrices"][count]["median"]["mean"] for count in ("1", "3", "5", "10")],
    ),
    Claim(
        README,
        "standard deviations | {:.0e} | {:.3f} | {:.3f} | {:.3f} | {:.0f}; {:.3f} if asked |",
        LARGE_MEAN,
        lambda c: errors(c, 1e4, "kerasbn", "Keras", "tf_keras", "PyTorch", "flax", "flax, use_fast_variance=False"),
    ),
    Claim(
        LAYER,
        "{:.3f} at 10,000 and {:.1f} at 1,000,000",
        LARGE_MEAN,
        lambda c: [*errors(c, 1e4, "Keras"), *errors(c, 1e6, "Keras")],
    ),
    Claim(
        LAYER,
        "{:.0e} and {:.0e} for the same inputs",
        LARGE_MEAN,
        lambda c: [*errors(c, 1e4, "kerasbn"), *errors(c, 1e6, "kerasbn")],
    ),
    Claim(
        README,
        "MobileNetV2 in {:.2f} of the time",
        FOLD,
        lambda c: [
            statistics.fmean(result(c, model="MobileNetV2", mode="graph", batch=n)["folded / keras"] for n in (1, 8))
        ],
    ),
    Claim(README, "Keras's layers add {:.0f} ms to a training step", MODELS, lambda c: [overhead(c, "graph")]),
    Claim(
        LAYER,
        "{:.0f} ms in a graph, {:.0f} ms under XLA",
        MODELS,
        lambda c: [overhead(c, mode) for mode in ("graph", "xla")],
    ),
    Claim(
        README,
        "takes {:.2f} to {:.2f} times as long to the end of the first step, {:.2f} to {:.2f} to the end of step 100",
        STARTUP,
        lambda c: until_steps(c, "1", "100"),
    ),
    Claim(
        PERFORMANCE,
        "| {:.2f} to {:.2f} after 1 step, {:.2f} to {:.2f} after 10, {:.2f} to {:.2f} after 100 |",
        STARTUP,
        lambda c: until_steps(c, "1", "10", "100"),
    ),
    Claim(
        PERFORMANCE,
        "1,000 steps of the MLP {:.2f}",
        STARTUP,
        lambda c: [result(c, model="MLP")["kerasbn / keras"]["1000"]],
    ),
    Claim(
        PERFORMANCE,
        "a batch size not seen before: {:.1f} to {:.1f} of Keras's steps",
        STARTUP,
        lambda c: [end(each["new size"]["kerasbn"] for each in c["results"]) for end in (min, max)],
    ),
    Claim(
        README,
        "Peak memory was {:.1f} times as high",
        MEMORY,
        lambda c: [max(each["megabytes"]["kerasbn"] / each["megabytes"]["keras"] for each in c["results"])],
    ),
    Claim(
        PERFORMANCE,
        "| {:.2f} to {:.2f} of its time | {:.2f} to {:.2f} | missed in a graph |",
        KERNELS,
        lambda c: [*of_fused(c, "graph"), *of_fused(c, "xla")],
    ),
    Claim(
        PERFORMANCE,
        "51 MB | {:.2f}, {:.2f} | {:.2f}, {:.2f} |",
        KERNELS,
        lambda c: [*of_floor(c, "graph"), *of_floor(c, "xla")],
    ),
]


def written(passage: str, numbers: Numbers) -> str:
    """The passage with these numbers, powers of ten as pages have them: 4e-7 and 1.1e9."""
    return re.sub(r"e(-?)\+?0*(\d)", r"e\1\2", passage.format(*numbers))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.page}: {claim.passage}")
def test_the_page_has_the_numbers_of_the_results(claim):
    page = " ".join(text(claim.page).split())
    numbers = claim.numbers(claim.source.read(ROOT / claim.source.file))
    assert written(claim.passage, numbers) in page
    for place, number in enumerate(numbers):
        others = [*numbers[:place], 2 * number + 1, *numbers[place + 1 :]]
        assert written(claim.passage, others) not in page  # this number is one of the passage
