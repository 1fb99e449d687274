"""Steps of a layer as StableHLO, in the form that they have where there is an accelerator.

A step is ``(x, dy, gamma, beta, moving_mean, moving_variance) -> (y, dx, dgamma, dbeta, moving_mean,
moving_variance)``. In a network `dy` comes after `y`, with other layers between them. Here an optimization barrier on
both keeps XLA from computing them together.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

import keras
import tensorflow as tf

from benchmarks.accelerator.cases import EPSILON, MOMENTUM, POLICIES, Case
from benchmarks.report import write_whole
from kerasbn import BatchNorm
from kerasbn.kernels import strategy
from kerasbn.kernels.xla import computed_again


@contextlib.contextmanager
def as_on_an_accelerator() -> Iterator[None]:
    """What is traced here has the form that it has where an accelerator computes it."""
    with mock.patch.object(strategy, "on_cpu", lambda: False):
        yield


def write_steps(cases: Iterable[Case], folder: Path) -> None:
    """Writes one file for each case, and `index.json`, the list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for case in cases:
        write_whole(folder / f"{case.name}.mlir", step_text(case).encode())
        index.append(case._asdict() | {"file": f"{case.name}.mlir", "epsilon": EPSILON, "momentum": MOMENTUM})
    write_whole(folder / "index.json", (json.dumps(index, indent=1) + "\n").encode())


def step_text(case: Case) -> str:
    """The StableHLO of one step."""
    layer = _layer(case)
    layer.build(case.shape)

    def step(x, dy, gamma, beta, mean, variance):
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            y, (new_mean, new_variance) = layer.stateless_call([gamma, beta], [mean, variance], x, training=True)
            if case.activation and case.layer == "keras":
                y = keras.activations.get(case.activation)(y)
        late, dy = computed_again(y, dy)
        dx, dgamma, dbeta = tape.gradient(y, [x, gamma, beta], dy)
        return late, dx, dgamma, dbeta, new_mean, new_variance

    batch, vector = tf.TensorSpec(case.shape, case.dtype), tf.TensorSpec(case.shape[-1:], "float32")
    with as_on_an_accelerator():
        compiled = tf.function(step, jit_compile=True, autograph=False)
        return compiled.experimental_get_compiler_ir(*[batch] * 2, *[vector] * 4)(stage="stablehlo")


def _layer(case: Case) -> keras.layers.Layer:
    options = {"dtype": POLICIES[case.dtype], "momentum": MOMENTUM, "epsilon": EPSILON}
    if case.layer == "keras":
        return keras.layers.BatchNormalization(**options)
    return BatchNorm(activation=case.activation, **options)
