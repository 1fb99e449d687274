"""What is measured where: the distributions on both sides of each nonlinearity, as training sees them."""

import math
from collections import defaultdict
from typing import Any

import keras
import numpy as np

from examples.covariate_shift.results import ShiftRun
from kerasbn.monitors import CovariateShift


class ShiftRecorder(keras.callbacks.Callback):
    """Adds to a run, at the end of each epoch, how far the distributions in the network have moved.

    Each number is the median over the units of all hidden layers. The network is called as in training: its
    normalizations take the moments of the fixed examples, and noise is drawn as the next step would draw it.

    Args:
        run: The run, which may have been begun.
        model: Its network, at its start; a state that is resumed from is restored into it afterwards.
        x: The fixed examples.
        bins: Of the histograms.
    """

    def __init__(self, run: ShiftRun, model: keras.Model, x: np.ndarray, bins: int) -> None:
        super().__init__()
        self._run = run
        linear = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dense)][:-1]
        nonlinear = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Activation)]
        chosen = {"nonlinearity": (nonlinear, "input"), "layer": (nonlinear, "output"), "linear": (linear, "output")}
        if run.parts[0] == "plain":
            del chosen["linear"]  # it is what comes into the nonlinearity
        self._monitors = {
            place: CovariateShift(x, layers, of=of, training=True, bins=bins) for place, (layers, of) in chosen.items()
        }
        for monitor in self._monitors.values():
            monitor.set_model(model)
            monitor.begin()

    def on_train_begin(self, logs: Any = None) -> None:
        if self._run.steps:  # resumed: the last measurement was made in the state that has been restored
            self._measure()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.model.stop_training:  # diverged
            return
        for name, value in self._measure().items():
            self._run.shift.setdefault(name, []).append(float(f"{value:.3g}") if math.isfinite(value) else None)

    def _measure(self) -> dict[str, float]:
        found = {}
        for place, monitor in self._monitors.items():
            monitor.measure()
            units = defaultdict(list)
            for name, values in monitor.channels[-1].items():
                _, _, metric, since = name.split("/")
                units[f"{place}/{metric}/{since}"].append(values)
            found |= {name: float(np.median(np.concatenate(values))) for name, values in units.items()}
        return found
