"""The three parts in which networks are looked at and not trained to an end: each measures one entry."""

import math
import time

import keras
import numpy as np

from examples.accelerate.data import Images
from examples.measured import CLASSES
from examples.understanding.results import DIVERGENCE, Depth, Divergence, Losses, Moments, Search, StepSize
from examples.understanding.step import Step
from examples.understanding.training import compiled, look_at, mini_batches, train_a_little
from kerasbn.monitors.activations import channel_statistics
from kerasbn.monitors.probe import Probe


def search(images: Images, results: Depth, name: str, seed: int) -> Search:
    """The largest stable rate of one network with one seed."""
    from kerasbn.tuner import largest_stable_learning_rate

    settings, began = results.settings, time.perf_counter()
    normalized, depth = results.networks[name]
    # As many images as a training sees: the library draws its batches from them, the same ones for every rate.
    order = np.random.default_rng(seed).permutation(len(images.x_train))[: settings.steps * settings.batch_size]
    trials: list[tuple[float, bool]] = []
    (found,) = largest_stable_learning_rate(
        lambda: compiled(settings, normalized, images.x_train.shape[1:], settings.start, depth, seed),
        (images.x_train[order], images.y_train[order]),
        arms=["plain"],  # as it is: the network brings its own normalization
        seeds=1,
        steps=settings.steps,
        start=settings.start,
        lowest=settings.lowest,
        highest=settings.highest,
        tolerance=settings.tolerance,
        explosion=DIVERGENCE,
        normal_loss=math.log(CLASSES),
        batch_size=settings.batch_size,
        on_trial=lambda setting, arm, number, rate, stable: trials.append((_rounded(rate), stable)),
    )
    (rate,) = found.rates["plain"]
    found_rate = 0.0 if math.isnan(rate) else _rounded(rate)
    return Search(name, seed, found_rate, trials, round(time.perf_counter() - began, 1))


def losses(images: Images, results: StepSize, name: str, seed: int) -> Losses:
    """The losses after one step of each size, at initialization and after some training."""
    settings, entry = results.settings, Losses(name, seed)
    model = look_at(settings, name, images.x_train.shape[1:], seed)
    step = Step(model)
    for stage in ("initial", "trained"):
        if stage == "trained":
            train_a_little(model, images, settings, seed)
        with step:
            entry.loss[stage], entry.relative[stage] = [], []
            for x, y in mini_batches(images, settings.batch_size, settings.batches, seed):
                entry.loss[stage].append(_rounded(step.along(x, y)))
                entry.relative[stage].append([_rounded(step.to(size)) for size in settings.grid])
    return entry


def moments(images: Images, results: Divergence, name: str, seed: int) -> Moments:
    """The moments of each convolution's output while one step is made, after some training.

    The step is the first that diverges when it is doubled; for `"all"` that of the network without normalization, which
    has been measured before.
    """
    settings = results.settings
    normalized = name.split("_")[0]
    model = look_at(settings, normalized, images.x_train.shape[1:], seed)
    train_a_little(model, images, settings, seed)
    ((x, y),) = mini_batches(images, settings.batch_size, 1, seed)
    layers = convolutions(model)
    entry = Moments(name, seed)
    with Step(model) as step:
        step.along(x, y)
        doubled = (settings.smallest_step * 2.0**i for i in range(settings.doublings))
        entry.explodes_at = next((size for size in doubled if not step.to(size) <= DIVERGENCE), None)
        same = {run.seed: run.step_size for run in results.complete("none")}
        entry.step_size = same[seed] if name == "all" else entry.explodes_at
        probe = Probe(model, x, layers, "output", training=True)
        for part in np.linspace(0, entry.step_size or 0.0, settings.parts + 1):
            entry.relative.append(_rounded(step.to(part)))
            found = channel_statistics(probe)
            means = [found[layer]["mean"] for layer in layers]
            variances = [found[layer]["deviation"] ** 2 for layer in layers]
            entry.mean.append([_rounded(math.sqrt(np.mean(each**2))) for each in means])
            entry.variance.append([_rounded(each.mean()) for each in variances])
            for number in results.layers if seed == 0 else ():
                for kept, values in ((entry.channel_means, means), (entry.channel_variances, variances)):
                    kept.setdefault(str(number), []).append([_rounded(v, 3) for v in values[number - 1]])
    return entry


def convolutions(model: keras.Model) -> list[str]:
    """The convolutions on the longest path, the first of which is layer 1: those of shortcuts are not counted."""
    kernels = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    return [name for name in kernels if not name.endswith("_shortcut")]


def _rounded(value: float, digits: int = 4) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
