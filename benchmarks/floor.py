"""The least that memory allows for a training step of batch normalization: its passes, as plain operations."""

from collections.abc import Callable
from typing import Any

import numpy as np


def numbers(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, dy and y of `size` bytes each. They are float32 at any dtype of the layer: it is bytes that take the time."""
    x, dy = (np.random.default_rng(seed).normal(size=size // 4).astype("float32") for seed in (0, 1))
    return x, dy, np.empty_like(x)


def passes(x: Any, dy: Any, y: Any, multiply: Callable, add: Callable) -> Callable[[], None]:
    """A call that reads x; reads x, writes y; reads x and dy; reads x and dy, writes dx (over y)."""

    def call():
        x.sum()
        multiply(x, 2.0, out=y)
        x.dot(dy)
        add(x, dy, out=y)

    return call
