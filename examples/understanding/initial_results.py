"""What was measured at initialisation, and what of it is told."""

import math
from dataclasses import dataclass, field
from typing import Any

from examples.results import Entry, spread
from examples.results import Results as AnyResults
from examples.understanding.initial_jacobians import ACTIVATIONS, KINDS, WEIGHTS
from examples.understanding.network import NORMALIZED

MATRICES = "matrices"


@dataclass(frozen=True)
class Settings:
    """Every choice that a result depends on."""

    dataset: str
    depth: int
    batch_size: int  # of activations and of the gradients of kernels
    images: int  # of the gradient at the outputs
    matrix_size: int
    width: int  # of the stacks of dense layers
    stack_batch: int
    counts: tuple[int, ...]  # of matrices in a product, of layers in a stack


@dataclass
class Measurement(Entry):
    """All numbers of one network, or of one product of matrices, with one seed."""

    values: dict[str, Any] = field(default_factory=dict)


def resnet_name(normalized: str, initializer: str) -> str:
    return f"resnet/{normalized}/{initializer}"


def stack_name(activation: str, weights: str) -> str:
    return f"stack/{activation}/{weights}"


class Results(AnyResults):
    """Networks at initialisation, by `resnet_name` and `stack_name`, and `MATRICES`."""

    experiment = "Bjorck et al. 2018, networks at initialisation; Ioffe & Szegedy 2015, Sec. 3.3"
    settings_class, run_class = Settings, Measurement
    file = "initialisation.json"

    def has_ended(self, run: Measurement) -> bool:
        return bool(run.values)

    def of(self, name: str) -> list[dict[str, Any]]:
        """What was measured of a network, by seed."""
        runs = [run for run in self.runs if run.network == name and run.values]
        return [run.values for run in sorted(runs, key=lambda run: run.seed)]

    @property
    def initializers(self) -> list[str]:
        """Those that something was measured with, in that order."""
        return list(dict.fromkeys(run.network.split("/")[2] for run in self.runs if run.network.startswith("resnet")))

    def summary(self) -> dict[str, Any]:
        """Means and deviations over seeds of the numbers in the tables."""
        return {
            "resnet": {
                name: _of_resnet(found)
                for initializer in self.initializers
                for name in (resnet_name(normalized, initializer) for normalized in NORMALIZED)
                if (found := self.of(name))
            },
            "matrices": _of_spectra(self.of(MATRICES)),
            "stacks": {
                f"{activation}, {weights}, {kind}": _of_spectra([each[kind] for each in found])
                for activation in ACTIVATIONS
                for weights in WEIGHTS
                if (found := self.of(stack_name(activation, weights)))
                for kind in KINDS
            },
        }


def growth(moments: dict[str, list[float]]) -> float:
    """Powers of ten that the deviation of the last block is larger by than that of the first."""
    return math.log10(moments["deviation"][-1] / moments["deviation"][0])


def _of_resnet(found: list[dict[str, Any]]) -> dict[str, Any]:
    gradients = [each["gradients"] for each in found]
    row: dict[str, Any] = {"seeds": len(found)}
    if "moments" in found[0]:
        row["growth_of_block"] = spread([growth(each["moments"]["block"]) for each in found])
        row["growth_of_convolution"] = spread([growth(each["moments"]["convolution"]) for each in found])
    for name in ("rms", "max"):
        row[f"middle_{name}_power_of_ten"] = spread([math.log10(each["middle"][name]) for each in gradients])
    row["middle_kurtosis"] = spread([each["middle"]["kurtosis"] for each in gradients])
    row["terms"] = [
        {
            "layer": terms[0]["layer"],
            "absolute_by_summed": spread([each["absolute"] / each["summed"] for each in terms]),
            "by_example_by_summed": spread([each["by_example"] / each["summed"] for each in terms]),
        }
        for terms in zip(*(each["terms"] for each in gradients), strict=True)
    ]
    for name in ("coherence", "largest_class", "same_prediction"):
        row[f"output_{name}"] = spread([each["output"][name] for each in found])
    return row


def _of_spectra(found: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By number of layers. JSON has made strings of the numbers."""
    if not found:
        return {}
    return {
        count: {
            name: spread([each[count][name] for each in found if each[count][name] is not None])
            for name in found[0][count]
            if name != "quantiles"
        }
        for count in found[0]
    }
