"""Any network, folded: the same results, in float64 to 1e-10, without normalizations."""

import keras
from hypothesis import strategies as st

from kerasbn import fold
from tests.fuzz.networks import batch, network, results
from tests.fuzz.preserved import assert_close, assert_comes_back, assert_shares_alike, unchanged
from tests.fuzz.profiles import fuzz
from tests.transforms.models import all_layers


@fuzz(30, data=st.data(), saved=st.sampled_from([False, False, False, True]))
def test_the_same_results(data, saved):
    model = network(data.draw, normalized=True)
    changes = []
    with unchanged(model):
        new = fold(model, changes=changes)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in all_layers(new).values())
    assert new.trainable_variables == [] and type(new) is type(model) and new.name == model.name
    assert [change for change in changes if change.what == "normalization"]
    assert_shares_alike(new, model)
    x = batch(model)
    assert_close(results(new, x), results(model, x))
    assert_close(results(new, x, training=False), results(fold(new), x))
    if saved:
        assert_comes_back(new, x)
