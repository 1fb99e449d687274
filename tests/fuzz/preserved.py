"""What every transform leaves as it was."""

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from tests.fuzz.networks import results
from tests.transforms.models import all_layers, snapshot


@contextmanager
def unchanged(model: keras.Model) -> Iterator[None]:
    """Fails if `model` is another one afterwards: configuration, weights, random states, results."""
    before = snapshot(model)
    yield
    for a, b in zip(keras.tree.flatten(before), keras.tree.flatten(snapshot(model)), strict=True):
        np.testing.assert_array_equal(b, a)


def assert_close(found: list[np.ndarray], wanted: list[np.ndarray], tolerance: float = 1e-10) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * (1 + np.abs(b).max(initial=0)))


def assert_shares_alike(new: keras.Model, old: keras.Model) -> None:
    """Layers that are in both are one layer in several places of the one model exactly if they are in the other."""
    layers, new_layers = all_layers(old), all_layers(new)
    for a, b in itertools.combinations(layers.keys() & new_layers.keys(), 2):
        assert (layers[a] is layers[b]) == (new_layers[a] is new_layers[b]), (a, b)
    ids = {id(v) for v in old.variables}
    assert not any(id(v) in ids for v in new.variables)


def assert_comes_back(model: keras.Model, x: list[np.ndarray]) -> None:
    """`model` can be saved, and loaded without running code that is in the file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.keras"))
        loaded = keras.models.load_model(Path(folder, "model.keras"), safe_mode=True)
    assert list(all_layers(loaded)) == list(all_layers(model))
    assert_close(results(loaded, x), results(model, x), 0.0)
