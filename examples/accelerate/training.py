"""Trains the baseline and the accelerated network, and writes down what was measured as it goes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

import kerasbn
from examples import measured
from examples.accelerate.data import BUFFER, Images
from examples.accelerate.network import build
from examples.measured import Measured as Run
from examples.results import Results as AnyResults
from examples.results import spread

NETWORKS = {"baseline": "Inception", "accelerated": "kerasbn.accelerate(Inception)"}


@dataclass(frozen=True)
class Settings:
    """Every choice that a result depends on."""

    dataset: str
    steps: int
    batch_size: int
    learning_rate: float  # of the baseline: the best of a search, see the README
    factor: float
    measurements: int


def model_and_callbacks(network: str, settings: Settings, images: Images, seed: int):
    """The network to train, the callbacks for it, the order of its training examples, and what was changed."""
    model = build(images.x_train.shape[1:], 10, settings.learning_rate, settings.steps, seed)
    order = tf.data.Dataset.range(len(images.x_train))
    if network == "baseline":
        return model, [], order.shuffle(BUFFER, seed=seed), None
    fast = kerasbn.accelerate(model, order, settings.factor, seed=seed)
    return fast.model, fast.callbacks, fast.data, fast.report


def train(images: Images, results: "Results", run: Run, on_measurement: Callable[[Run], None]) -> None:
    """Trains `run` to its end, from where it stands."""
    settings = results.settings
    model, callbacks, order, _ = model_and_callbacks(run.network, settings, images, run.seed)
    every = settings.steps // settings.measurements
    measured.train(results, run, model, order, images, every=every, callbacks=callbacks, on_measurement=on_measurement)


class Results(AnyResults):
    """The runs of both networks."""

    experiment = "Ioffe & Szegedy 2015, Sec. 4.2.1"
    settings_class, run_class = Settings, Run

    def summary(self) -> dict[str, Any]:
        """For each network over seeds: accuracies, and how much sooner it is where the baseline of its seed is best."""
        best = {run.seed: max(run.accuracy) for run in self.complete("baseline")}
        first = {run.seed: run.steps_to(best[run.seed]) for run in self.complete("baseline")}
        table = {}
        for network in NETWORKS:
            runs = self.complete(network)
            if not runs:
                continue
            compared = [run for run in runs if run.seed in best]
            steps = [run.steps_to(best[run.seed]) for run in compared]
            ratios = [first[run.seed] / step for run, step in zip(compared, steps, strict=True) if step]
            times = [
                base.seconds[base.steps.index(first[base.seed])] / run.seconds[run.steps.index(step)]
                for run, step in zip(compared, steps, strict=True)
                for base in self.complete("baseline")
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
