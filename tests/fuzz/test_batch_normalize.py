"""Any network, normalized: with statistics that do nothing it computes what it did, but for the biases that went."""

from hypothesis import strategies as st

from kerasbn import batch_normalize, fold
from tests.fuzz.networks import batch, network, results
from tests.fuzz.preserved import assert_close, assert_comes_back, assert_shares_alike, unchanged
from tests.fuzz.profiles import fuzz
from tests.transforms.models import all_layers
from tests.transforms.trained import trained


@fuzz(
    16,
    data=st.data(),
    where=st.sampled_from(["pre_activation", "post_activation"]),
    saved=st.sampled_from([False, False, True]),
)
def test_batch_normalize(data, where, saved):
    model = network(data.draw)
    changes = []
    with unchanged(model):
        try:
            new = batch_normalize(model, where, epsilon=0.0, changes=changes)
        except ValueError as error:
            assert where == "post_activation" and "behind different layers" in str(error), error
            return
    added = {change.new.removeprefix("layer ") for change in changes if str(change.new).startswith("layer ")}
    layers, new_layers = all_layers(model), all_layers(new)
    # Keras sorts layers by their distance from the outputs, which the new ones change.
    assert {path for path in new_layers if path.rpartition("/")[2] not in added} == layers.keys()
    assert_shares_alike(new, model)
    again = []
    batch_normalize(new, where, changes=again)
    assert again == []

    without_bias = {change.where for change in changes if change.what == "use_bias"}
    for path in without_bias:
        layer = getattr(layers[path], "layer", layers[path])
        layer.bias.assign(0 * layer.bias)
    x = batch(model)
    assert_close(results(new, x), results(model, x))
    if saved:
        assert_comes_back(new, x)
    trained(new)
    assert_close(results(fold(new), x), results(new, x), 1e-8)
