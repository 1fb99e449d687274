"""Any network with normalizations, converted and back: the same in inference and in training, in the same places."""

import keras
import numpy as np
from hypothesis import strategies as st

from kerasbn import BatchNorm, LocalResponseNormalization, convert, to_keras
from kerasbn.selection import layers_in
from tests.fuzz.networks import batch, network, results
from tests.fuzz.preserved import assert_close, assert_comes_back, assert_shares_alike, unchanged
from tests.fuzz.profiles import fuzz
from tests.transforms.models import all_layers

KERAS = keras.layers.BatchNormalization


def normalizations(model):
    return [layer for layer, _ in layers_in(model) if isinstance(layer, KERAS)]


@fuzz(12, data=st.data(), fuse_activations=st.booleans(), saved=st.sampled_from([False, False, True]))
def test_convert(data, fuse_activations, saved):
    model = network(data.draw, normalized=True)
    changes = []
    with unchanged(model):
        new = convert(model, fuse_activations=fuse_activations, changes=changes)
    assert {type(layer) for layer in normalizations(new)} == {BatchNorm}
    assert len(normalizations(new)) == len(normalizations(model))
    if fuse_activations:
        assert set(all_layers(new)) <= set(all_layers(model))
    else:
        assert list(all_layers(new)) == list(all_layers(model))
        assert [w.path for w in new.weights] == [w.path for w in model.weights]
    assert_shares_alike(new, model)
    x = batch(model)
    if saved:
        assert_comes_back(new, x)
    assert_close(results(new, x), results(model, x))
    # The random states are the same, too, so that dropout drops the same. Statistics of few values magnify rounding.
    assert_close(results(new, x, training=True), results(model, x, training=True), 1e-6)
    for a, b in zip(model.non_trainable_variables, new.non_trainable_variables, strict=True):
        np.testing.assert_allclose(np.array(b), np.array(a), rtol=1e-6, atol=1e-6)


def keras_has_it(layer: BatchNorm) -> bool:
    """Statistics along several axes are refused; besides, activations within a wrapper and other layers of kerasbn."""
    return not isinstance(layer.axis, list) or len(layer.axis) == 1


@fuzz(12, data=st.data(), saved=st.sampled_from([False, False, True]))
def test_to_keras_and_back(data, saved):
    model = network(data.draw, normalized=True)
    new = convert(model)
    wrapped = [layer.layer for layer in all_layers(new).values() if isinstance(layer, keras.layers.TimeDistributed)]
    wrapped = [layer for layer in wrapped if isinstance(layer, BatchNorm)]
    linear = keras.activations.linear
    refused = [layer for layer in normalizations(new) if not keras_has_it(layer)]
    refused += [layer for layer in all_layers(new).values() if isinstance(layer, LocalResponseNormalization)]
    refused += [layer for layer in wrapped if layer.activation is not linear]
    with unchanged(new):
        try:
            back = to_keras(new)
        except ValueError as error:
            assert any(layer.name in str(error) for layer in refused), error
            return
    assert not refused
    assert {type(layer) for layer in normalizations(back)} == {KERAS}
    split_off = {f"{layer.name}_activation" for layer in normalizations(new) if layer.activation is not linear}
    kept = [path for path in all_layers(back) if path.rpartition("/")[2].removesuffix("_1") not in split_off]
    # Keras sorts layers by their distance from the outputs, which is another one behind an activation.
    assert (sorted(kept) == sorted(all_layers(model))) if split_off else (kept == list(all_layers(model)))
    assert_shares_alike(back, new)
    x = batch(model)
    if saved:
        assert_comes_back(back, x)
    assert_close(results(back, x), results(model, x))
    again = convert(back, fuse_activations=True)
    assert_close(results(again, x), results(model, x))
    assert_close(results(back, x, training=True), results(model, x, training=True), 1e-6)
