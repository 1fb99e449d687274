"""Trains the baseline and the accelerated network, and writes down what was measured as it goes."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import kerasbn
from examples.accelerate.data import Images
from examples.accelerate.network import build

FILE = "results.json"
NETWORKS = {"baseline": "Inception", "accelerated": "kerasbn.accelerate(Inception)"}


class SettingsDiffer(Exception):
    """The folder holds results of another experiment; the message says so."""


@dataclass(frozen=True)
class Settings:
    """Every choice that a result depends on."""

    dataset: str
    steps: int
    batch_size: int
    learning_rate: float  # of the baseline: the best of a search, see the README
    factor: float
    measurements: int


@dataclass
class Run:
    """One training: test accuracy and loss after so many steps."""

    network: str
    seed: int
    steps: list[int] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of training, without measuring

    def steps_to(self, accuracy: float) -> int | None:
        """The first measured step with at least this accuracy, if there is one."""
        return next((step for step, value in zip(self.steps, self.accuracy, strict=True) if value >= accuracy), None)


def model_and_callbacks(network: str, settings: Settings, images: Images, seed: int):
    """The network to train, the callbacks for it, its training examples, and what was changed."""
    model = build(images.x_train.shape[1:], 10, settings.learning_rate, settings.steps, seed)
    examples = tf.data.Dataset.from_tensor_slices((images.x_train, images.y_train))
    if network == "baseline":
        return model, [], examples.shuffle(2048, seed=seed), None
    fast = kerasbn.accelerate(model, examples, settings.factor, seed=seed)
    return fast.model, fast.callbacks, fast.data, fast.report


def train(network: str, settings: Settings, images: Images, seed: int, on_measurement: Callable[[Run], None]) -> Run:
    """One training from start to end."""
    model, callbacks, examples, _ = model_and_callbacks(network, settings, images, seed)
    run, chunk = Run(network, seed), settings.steps // settings.measurements

    class Measure(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            before = run.seconds[-1] if run.seconds else 0.0
            run.seconds.append(round(before + time.perf_counter() - self.start, 2))
            loss, accuracy = model.evaluate(images.x_test, images.y_test, batch_size=500, verbose=0)
            run.steps.append((epoch + 1) * chunk)
            run.accuracy.append(round(float(accuracy), 5))
            run.loss.append(round(float(loss), 5))
            on_measurement(run)

    model.fit(
        examples.repeat().batch(settings.batch_size).prefetch(4),
        epochs=settings.measurements,
        steps_per_epoch=chunk,
        callbacks=[*callbacks, Measure()],
        shuffle=False,  # the data are
        verbose=0,
    )
    return run


class Results:
    """Finished runs, in a file that is whole at any time."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.path, self.settings, self.runs = folder / FILE, settings, []
        if self.path.exists():
            stored = json.loads(self.path.read_text())
            if stored["settings"] != asdict(settings):
                raise SettingsDiffer(
                    f"{self.path} has results of other settings, {stored['settings']}. Nothing was changed. Name "
                    "another folder with `--out`, or ask for the same settings to go on."
                )
            self.runs = [Run(**run) for run in stored["runs"]]

    def of(self, network: str) -> list[Run]:
        return sorted((run for run in self.runs if run.network == network), key=lambda run: run.seed)

    def has(self, network: str, seed: int) -> bool:
        return any(run.seed == seed for run in self.of(network))

    def add(self, run: Run) -> None:
        self.runs.append(run)
        packages = ("tensorflow", "keras", "kerasbn", "numpy")
        content = {
            "experiment": "Ioffe & Szegedy 2015, Sec. 4.2.1",
            "settings": asdict(self.settings),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "summary": summary(self),
            "runs": [asdict(run) for run in self.runs],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, separators=(",", ":")) + "\n")
        os.replace(temporary, self.path)


def summary(results: Results) -> dict[str, dict]:
    """For each network over seeds: accuracies, and how much sooner it is where the baseline of its seed is best."""
    best = {run.seed: max(run.accuracy) for run in results.of("baseline")}
    first = {run.seed: run.steps_to(best[run.seed]) for run in results.of("baseline")}
    table = {}
    for network in NETWORKS:
        runs = results.of(network)
        if not runs:
            continue
        compared = [run for run in runs if run.seed in best]
        steps = [run.steps_to(best[run.seed]) for run in compared]
        ratios = [first[run.seed] / step for run, step in zip(compared, steps, strict=True) if step]
        times = [
            base.seconds[base.steps.index(first[base.seed])] / run.seconds[run.steps.index(step)]
            for run, step in zip(compared, steps, strict=True)
            for base in results.of("baseline")
            if step and base.seed == run.seed
        ]
        table[network] = {
            "seeds": len(runs),
            "best_accuracy": spread([max(run.accuracy) for run in runs]),
            "final_accuracy": spread([run.accuracy[-1] for run in runs]),
            "steps_to_baseline_best": spread([step for step in steps if step]),
            "reached": [sum(step is not None for step in steps), len(steps)],
            "times_fewer_steps": spread(ratios),
            "times_less_time": spread(times),
        }
    return table


def spread(values: list[float]) -> dict[str, float | None] | None:
    """Mean and sample standard deviation."""
    if not values:
        return None
    deviation = round(statistics.stdev(values), 5) if len(values) > 1 else None
    return {"mean": round(float(np.mean(values)), 5), "stdev": deviation, "min": min(values), "max": max(values)}
