"""`kerasbn.diagnose`: it finds each of fourteen planted faults, and nothing in healthy models."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn
from tests.crossing import crossed, first_of

L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(2.0, 3.0, size=(256, 6)).astype("float32")
IMAGES = RANDOM.normal(size=(64, 8, 8, 3)).astype("float32")
BOTH = [kerasbn.BatchNorm, L.BatchNormalization]


def healthy(norm=kerasbn.BatchNorm, **arguments):
    """A network as it should be, with statistics of the data."""
    keras.utils.set_random_seed(0)
    arguments = {"name": "bn"} | arguments
    layers = [L.Dense(8, use_bias=False, name="hidden"), norm(**arguments), L.ReLU(), L.Dense(3, name="out")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    kerasbn.recalibrate(model, X)
    return model


def kinds(model, data=X, **arguments):
    return [(finding.severity, finding.kind) for finding in kerasbn.diagnose(model, data, **arguments).findings]


@pytest.mark.parametrize("norm", BOTH)
def test_a_healthy_model(norm):
    found = kerasbn.diagnose(healthy(norm), X)
    assert found.healthy and found.findings == [] and found.output_gap < 1e-6
    assert (found.batches, found.samples) == (8, 256) and "Nothing was found" in str(found)


@pytest.mark.parametrize("norm", first_of(BOTH))
def test_a_convolutional_network_that_was_trained(norm):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 3))])
    for filters in (8, 16):
        for layer in (
            L.Conv2D(filters, 3, use_bias=False),
            norm(momentum=0.8),
            L.ReLU(),
            L.MaxPooling2D(padding="same"),
        ):
            model.add(layer)
    for layer in (L.Flatten(), L.Dropout(0.3), L.Dense(3)):
        model.add(layer)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, np.arange(64) % 3, batch_size=32, epochs=20, verbose=0)
    kerasbn.recalibrate(model, IMAGES)
    assert kinds(model, IMAGES) == []


def assign(variable, value):
    variable.assign(np.broadcast_to(value, variable.shape))


def moved(model):
    layer = model.get_layer("bn")
    assign(layer.moving_mean, layer.moving_mean + 2 * np.sqrt(layer.moving_variance))


def not_enough_steps(model):
    layer = model.get_layer("bn")
    model.compile("sgd", "mse")
    model.optimizer.iterations.assign(50)
    part = 0.99**50
    assign(layer.moving_mean, (1 - part) * layer.moving_mean.numpy())
    assign(layer.moving_variance, part + (1 - part) * layer.moving_variance.numpy())


def dead(model):
    kernel = model.get_layer("hidden").kernel
    kernel.assign(kernel.numpy() * [0, 1, 1, 0, 1, 1, 1, 1])
    kerasbn.recalibrate(model, X)


def exploding(model):
    kernel = model.get_layer("hidden").kernel
    kernel.assign(kernel.numpy() * [1e6, 1, 1, 1, 1, 1, 1, 1])
    kerasbn.recalibrate(model, X)


def small_gamma(model):
    model.get_layer("bn").gamma.assign([1, 1e-9, 1, 1, 0, 1, 1, 1])


def tiny_inputs(model):
    kernel = model.get_layer("hidden").kernel
    kernel.assign(kernel.numpy() * 1e-3)
    kerasbn.recalibrate(model, X)


def broken(model):
    variance = model.get_layer("bn").moving_variance
    variance.assign(np.where([0, 1, 0, 0, 0, 0, 0, 0], np.nan, np.where([0, 0, 0, 0, 1, 0, 0, 0], np.inf, variance)))


@pytest.mark.parametrize(
    ("plant", "expected", "value"),
    [
        (moved, [("error", "moving statistics")], 2.0),
        (not_enough_steps, [("error", "moving statistics"), ("error", "momentum")], None),
        (dead, [("warning", "dead channels")], 2),
        (exploding, [("warning", "exploding channels")], None),
        (small_gamma, [("note", "gamma near zero")], 2),
        (tiny_inputs, [("warning", "epsilon")], None),
        (broken, [("error", "not finite")], 2),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("norm", first_of(BOTH))
def test_planted_in_weights_and_statistics(norm, plant, expected, value):
    model = healthy(norm)
    plant(model)
    before = [variable.numpy() for variable in model.variables]
    found = kerasbn.diagnose(model, X)
    assert [(finding.severity, finding.kind) for finding in found.findings] == expected
    assert all(finding.layer.endswith("/bn") for finding in found.findings)
    if value is not None:
        assert found.findings[0].value == pytest.approx(value, rel=1e-2)
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)


def advice(model, kind, data=X):
    return [finding.advice for finding in kerasbn.diagnose(model, data).findings if finding.kind == kind]


@pytest.mark.parametrize(
    ("gamma", "severity", "number"),
    [
        (np.full(8, 1e-6), "warning", 8),
        (np.zeros(8), "warning", 8),
        (np.array([1e-6] * 7 + [1.0]), "warning", 7),
        (np.array([1e-6] * 7 + [1e-4]), "warning", 8),
        (np.array([-1e-6, 0.0, 0.1, -0.2, 0.1, 0.3, 0.1, 0.1]), "note", 2),
    ],
    ids=["all", "all zero", "all but one", "all, one less", "some"],
)
def test_gamma_near_zero_also_in_a_whole_layer(gamma, severity, number):
    """The median, which a factor is compared with, is as small where most of them are."""
    model = healthy()
    model.get_layer("bn").gamma.assign(gamma)
    (found,) = kerasbn.diagnose(model, X).findings
    assert (found.severity, found.kind, found.value) == (severity, "gamma near zero", number)
    assert f"{number} of 8 channels" in found.advice


def test_gamma_that_is_small_everywhere_or_zero_from_the_start_is_no_fault():
    model = healthy()
    model.get_layer("bn").gamma.assign(np.linspace(0.01, 0.02, 8))
    assert kinds(model) == []
    assert kinds(healthy(gamma_initializer="zeros")) == [("note", "gamma near zero")]


@pytest.mark.parametrize("norm", first_of(BOTH))
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_a_variance_that_is_none_is_found_and_hides_no_other_channel(norm, value):
    """It makes the gap NaN, which is above nothing."""
    model = healthy(norm)
    layer = model.get_layer("bn")
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    variance[2] = value
    mean[5] += 50.9 * np.sqrt(variance[5] + layer.epsilon)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
    found = kerasbn.diagnose(model, X)
    kind = "invalid variance" if np.isfinite(value) else "not finite"
    assert [(f.severity, f.kind) for f in found.findings] == [("error", kind), ("error", "moving statistics")]
    assert found.findings[1].value == pytest.approx(50.9, rel=1e-3)
    assert "50.9 standard deviations" in found.findings[1].advice and " of 8 channels" in found.findings[1].advice
    assert "256 samples in 8 batches" in str(found)
    np.testing.assert_array_equal(layer.moving_variance, variance)


def test_channels_without_a_divisor():
    model = healthy(epsilon=0.0)
    dead(model)
    found = {finding.kind: finding.value for finding in kerasbn.diagnose(model, X).findings}
    assert found == {"dead channels": 2, "invalid variance": 2}  # 0 / 0 in inference


@pytest.mark.parametrize("layer", ["hidden", "out"])
def test_weights_of_any_layer_that_are_not_finite(layer):
    model = healthy()
    kernel = model.get_layer(layer).kernel
    values = kernel.numpy()
    values[0, 1] = np.nan
    kernel.assign(values)
    (found,) = kerasbn.diagnose(model, X).findings
    assert (found.severity, found.kind, found.value) == ("error", "not finite", 1)
    assert found.layer.endswith(layer) and f"1 of {model.get_layer(layer).count_params()} weights" in found.advice


def test_weights_that_are_not_finite_hide_no_fault_before_them():
    model = two_layers()
    kerasbn.freeze(model, "second")
    assign(model.get_layer("second").beta, np.nan)
    first = model.get_layer("first")
    assign(first.moving_mean, first.moving_mean + 10 * np.sqrt(first.moving_variance))
    found = kerasbn.diagnose(model, X)
    assert [(f.kind, f.layer.split("/")[-1]) for f in found.findings] == [
        ("not finite", "second"),
        ("moving statistics", "first"),
    ]


def test_outputs_that_are_not_finite_although_weights_are():
    model = healthy()
    model = keras.Sequential([keras.Input((6,)), *model.layers, L.Lambda(lambda x: x / 0.0)])
    found = kerasbn.diagnose(model, X)
    assert [(f.severity, f.kind) for f in found.findings] == [("error", "not finite")]
    assert "96 of 96 outputs" in found.findings[0].advice and "outputs in inference are NaN or infinite" in str(found)


@pytest.mark.parametrize("norm", first_of(BOTH))
@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        (np.full(8, 0.0), [("warning", "dead channels", 8)]),
        (np.full(8, 1e-8), [("warning", "dead channels", 8)]),
        ([1e-8] * 5 + [1] * 3, [("warning", "dead channels", 5)]),
        ([1e-8] * 5 + [1] * 2 + [1e6], [("warning", "dead channels", 5), ("warning", "exploding channels", 1)]),
        (np.full(8, 1e7), [("warning", "exploding channels", 8)]),
        ([1e7] * 5 + [1] * 3, [("warning", "exploding channels", 5)]),
    ],
    ids=["all zero", "all dead", "most dead", "most dead, one explodes", "all explode", "most explode"],
)
def test_channels_that_are_dead_or_explode_where_most_are(norm, factors, expected):
    model = healthy(norm)
    kernel = model.get_layer("hidden").kernel
    kernel.assign(kernel.numpy() * np.float32(factors))
    kerasbn.recalibrate(model, X)
    found = kerasbn.diagnose(model, X).findings
    assert [(f.severity, f.kind) for f in found] == [each[:2] for each in expected]
    assert all(f"{number} of 8 channels" in f.advice for f, (*_, number) in zip(found, expected, strict=True))


def test_a_dead_channel_hides_no_moving_mean():
    """In inference it gives another constant than in training."""
    model = healthy()
    dead(model)
    layer = model.get_layer("bn")
    layer.moving_mean.assign(layer.moving_mean.numpy() + np.eye(8)[0])
    assert kinds(model) == [("error", "moving statistics"), ("warning", "dead channels")]


def test_a_channel_that_is_masked_everywhere_hides_no_layer():
    """Statistics for each step of a sequence: the last steps never come."""
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, kerasbn.BatchNorm(axis=(1, 2), name="bn")(L.Masking()(inputs)))
    sequences = X[:, None, :] * np.float32([1, 1, 1, 0])[:, None]
    kerasbn.recalibrate(model, sequences)
    assert kinds(model, sequences) == []
    layer = model.get_layer("bn")
    layer.moving_mean.assign(layer.moving_mean.numpy() + 30)
    found = kerasbn.diagnose(model, sequences)
    assert [f.kind for f in found.findings] == ["moving statistics"] and "in 18 of 24" in found.findings[0].advice
    assert np.isnan(found.layers[0].mean[3]).all() and found.layers[0].values == 256


@pytest.mark.parametrize(
    ("plant", "kind", "number"),
    [
        (moved, "moving statistics", "8 of 8 channels"),
        (not_enough_steps, "momentum", "after 50 steps"),
        (dead, "dead channels", "2 of 8 channels"),
        (exploding, "exploding channels", "1 of 8 channels"),
        (small_gamma, "gamma near zero", "2 of 8 channels"),
        (tiny_inputs, "epsilon", "8 of 8 channels"),
        (broken, "not finite", "2 of 32 weights"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_sentence_has_the_number(plant, kind, number):
    """It is all that comes with `--json`."""
    model = healthy()
    plant(model)
    (sentence,) = advice(model, kind)
    assert number in sentence


def test_many_layers_with_one_fault_have_one_sentence():
    keras.utils.set_random_seed(0)
    layers = [layer for _ in range(3) for layer in (L.Dense(8), kerasbn.BatchNorm(), L.ReLU())]
    model = keras.Sequential([keras.Input((6,)), *layers])
    kerasbn.recalibrate(model, X)
    model.layers[3].bias.assign(np.full(8, 2.5))
    lines = [line for line in str(kerasbn.diagnose(model, X)).splitlines() if line.startswith("bias before")]
    assert len(lines) == 1 and "3 layers" in lines[0] and "up to 2.5" in lines[0]


def test_small_batches():
    assert kinds(healthy(), batch_size=4) == [("warning", "small batches")]
    assert kinds(healthy(), batch_size=64) == []


@pytest.mark.parametrize(("size", "expected"), [(2, [("warning", "small batches")]), (32, []), (100, [])])
def test_a_virtual_batch_is_what_is_normalized_together(size, expected):
    assert kinds(healthy(virtual_batch_size=size), batch_size=64) == expected


@pytest.mark.parametrize(
    ("arguments", "small"),
    [({}, True), ({"synchronized": True}, False), ({"synchronized": True, "sync_group_size": 1}, True)],
    ids=["apart", "synchronized", "groups of one"],
)
def test_replicas_that_normalize_apart_have_small_batches(strategy, arguments, small):
    layers = [L.Dense(8, use_bias=False), kerasbn.BatchNorm(**arguments), L.ReLU(), L.Dense(3)]
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), *layers])
    kerasbn.recalibrate(model, X)
    assert kinds(model, batch_size=32) == [("warning", "small batches")] * small


def test_float16_that_will_overflow():
    keras.utils.set_random_seed(0)
    layers = [L.Dense(8, use_bias=False, name="hidden"), kerasbn.BatchNorm(name="bn", dtype="mixed_float16")]
    model = keras.Sequential([keras.Input((6,)), *layers, L.Dense(1)])
    kerasbn.recalibrate(model, X)
    assert kinds(model) == []
    bn, kernel = model.get_layer("bn"), model.get_layer("hidden").kernel
    largest = np.max(np.abs(bn.moving_mean) + 8 * np.sqrt(bn.moving_variance))
    kernel.assign(kernel.numpy() * 80_000 / largest)  # no value of the data overflows yet
    kerasbn.recalibrate(model, X)
    assert kinds(model) == [("error", "float16 overflow")]


def in_front(*layers):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), *layers, kerasbn.BatchNorm(name="bn"), L.ReLU(), L.Dense(2)])
    kerasbn.recalibrate(model, X)
    return model


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([L.Dense(4)], ("note", "bias before")),
        ([L.Dense(4), L.Reshape((2, 2))], ("note", "bias before")),
        ([L.Dense(4, "tanh")], ("note", "after the nonlinearity")),
        ([L.Dense(4, use_bias=False), L.Activation("sigmoid")], ("note", "after the nonlinearity")),
        ([L.Dropout(0.5), L.Dense(4, use_bias=False)], ("warning", "dropout before")),
    ],
    ids=["bias", "bias through a reshape", "own activation", "activation", "dropout"],
)
def test_planted_in_the_graph(layers, expected):
    assert kinds(in_front(*layers)) == [expected]


def test_not_taken_for_a_fault():
    """A bias that goes elsewhere, too; dropout that is off; normalized inputs; frozen layers."""
    inputs = keras.Input((6,))
    hidden = L.Dense(4)(inputs)
    model = keras.Model(inputs, L.Dense(2)(L.Add()([hidden, L.ReLU()(kerasbn.BatchNorm()(hidden))])))
    kerasbn.recalibrate(model, X)
    assert kinds(model) == []
    assert kinds(in_front(L.Dropout(0.0), L.Dense(4, use_bias=False))) == [] == kinds(in_front())
    model = healthy()
    model.add(frozen := kerasbn.BatchNorm(momentum=0.1))
    frozen.trainable = False
    moved(model)
    assert kinds(model) == [("error", "moving statistics")]  # of "bn", and nothing of the frozen one


@pytest.mark.parametrize("parameters", [True, False])
def test_a_frozen_layer_has_no_fault_and_is_why_another_has_none(parameters):
    """What moving statistics are subtracted from keeps its bias, and sees dropout in training only."""
    inputs = keras.Input((6,))
    hidden = L.Dense(4, "tanh")(L.Dropout(0.5)(inputs))
    model = keras.Model(inputs, kerasbn.BatchNorm(name="bn")(L.Dense(4)(kerasbn.BatchNorm(name="frozen")(hidden))))
    kerasbn.recalibrate(model, X)
    assert {f.layer for f in kerasbn.diagnose(model, X).findings} == {"bn", "frozen"}
    kerasbn.freeze(model, "frozen", parameters=parameters)
    assert [(f.kind, f.layer) for f in kerasbn.diagnose(model, X).findings] == [("bias before", "bn")]

    hidden = L.Dense(4)(inputs)
    both = L.Add()([kerasbn.BatchNorm(name="bn")(hidden), kerasbn.BatchNorm(name="frozen")(hidden)])
    model = keras.Model(inputs, both)
    kerasbn.recalibrate(model, X)
    assert kinds(model) == [("note", "bias before")] * 2
    kerasbn.freeze(model, "frozen", parameters=parameters)
    assert kinds(model) == []


def two_layers():
    keras.utils.set_random_seed(0)
    layers = [L.Dense(8, use_bias=False), kerasbn.BatchNorm(name="first"), L.ReLU(), L.Dense(4, use_bias=False)]
    model = keras.Sequential([keras.Input((6,)), *layers, kerasbn.BatchNorm(name="second")])
    kerasbn.recalibrate(model, X)
    return model


@pytest.mark.parametrize(
    ("layers", "parameters"),
    crossed(["first", ["first", "second"], lambda layer: layer.name == "first"], [True, False]),
)
def test_frozen_statistics_on_other_data(parameters, layers):
    """Domain shift, which is suspected in fine-tuning: what `recalibrate` would set is compared with what is there."""
    model = two_layers()
    kerasbn.freeze(model, parameters=parameters)
    before = model.get_weights()
    assert kerasbn.diagnose(model, X, layers=layers).healthy
    found = kerasbn.diagnose(model, 2 * X + 1, layers=layers)
    assert ("error", "moving statistics") in [(f.severity, f.kind) for f in found.findings]
    assert {f.kind for f in found.findings} == {"moving statistics"}
    (worst,) = [f for f in found.findings if f.layer.endswith("/first")]
    assert "frozen layer" in worst.advice and "recalibrate(model, data, layers='first')" in worst.advice
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    kerasbn.recalibrate(model, 2 * X + 1, layers=layers)
    assert kerasbn.diagnose(model, 2 * X + 1, layers=layers).healthy


def test_layers_that_were_not_looked_at_are_counted_and_named():
    model = two_layers()
    found = kerasbn.diagnose(model, X)
    assert found.skipped == [] and str(found).startswith("2 normalization layers, ")
    kerasbn.freeze(model, "second")
    found = kerasbn.diagnose(model, X)
    assert [path.split("/")[-1] for path in found.skipped] == ["second"]
    assert str(found).startswith("1 normalization layer, ") and "\n1 not looked at (frozen" in str(found)
    assert "`layers`" in str(found) and json.loads(found.to_json())["skipped"] == found.skipped
    found = kerasbn.diagnose(model, X, layers="second")
    assert len(found.layers) == 1 and [path.split("/")[-1] for path in found.skipped] == ["first"]


def test_the_advice_where_all_layers_are_frozen_can_be_followed():
    model = two_layers()
    kerasbn.freeze(model)
    with pytest.raises(ValueError, match=r"not frozen.*all 2 are.*layers='first'"):
        kerasbn.diagnose(model, X)
    assert kerasbn.diagnose(model, X, layers="first").healthy
    with pytest.raises(ValueError, match=r"`layers` must name layers.*'third'.*\['first', 'second'\]"):
        kerasbn.diagnose(model, X, layers="third")


def test_a_frozen_layer_with_a_negative_variance():
    """It is what makes predictions NaN, whether it is looked at or not."""
    model = two_layers()
    kerasbn.freeze(model, "first")
    assign(model.get_layer("first").moving_variance, -1.0)
    (found,) = kerasbn.diagnose(model, X).findings
    assert found.kind == "invalid variance" and "layers='first'" in found.advice
    assert {f.kind for f in kerasbn.diagnose(model, X, layers="first").findings} == {"invalid variance"}


@pytest.mark.parametrize("norm", first_of(BOTH))
@pytest.mark.parametrize(("momentum", "low"), [(0.0, True), (0.1, True), (0.5, False), (0.9, False)])
def test_a_momentum_that_is_too_low(norm, momentum, low):
    """The next training makes the statistics those of its last batch again."""
    model = healthy(norm, momentum=momentum)
    assert kinds(model) == [("warning", "low momentum")] * low
    if low:
        (finding,) = kerasbn.diagnose(model, X).findings
        assert finding.value == pytest.approx(1 - momentum)
        assert f"{1 - momentum:.0%}" in finding.advice and f"momentum {momentum:g}" in finding.advice


def test_no_momentum_and_no_training_are_not_too_low():
    assert kinds(healthy(momentum=None)) == []
    model = healthy(momentum=0.0)
    kerasbn.freeze(model)
    assert kerasbn.diagnose(model, X, layers="bn").healthy


def test_a_layer_that_the_model_calls_in_inference_mode_is_not_looked_at():
    """It got no values, all of whose variances are 0: so its channels were called dead."""

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = kerasbn.BatchNorm(name="first"), kerasbn.BatchNorm(name="second")

        def call(self, x, training=False):
            return self.second(self.first(x, training=training), training=False)

    own = Own()
    own(X)
    kerasbn.recalibrate(own, X)
    found = kerasbn.diagnose(own, X)
    assert found.healthy and [path.split("/")[-1] for path in found.skipped] == ["second"]


def test_dropout_before_any_call_of_a_shared_layer():
    inputs = keras.Input((6,))
    shared = kerasbn.BatchNorm(name="bn")
    dropped = [L.Dropout(rate)(inputs) for rate in (0.2, 0.5)]
    model = keras.Model(inputs, L.Add()([shared(x) for x in (inputs, *dropped)]))
    kerasbn.recalibrate(model, X)
    (found,) = kerasbn.diagnose(model, X).findings
    assert (found.kind, found.value) == ("dropout before", 0.5)


def test_the_gap_is_that_of_the_outputs():
    model = healthy()
    moved(model)
    found = kerasbn.diagnose(model, X, batch_size=256)
    wrong = model(X, training=False).numpy()
    kerasbn.recalibrate(model, X)
    right = model(X, training=False).numpy()
    expected = np.sqrt(np.sum((wrong - right) ** 2) / np.sum((right - right.mean(0)) ** 2))
    assert found.output_gap == pytest.approx(expected, rel=1e-4)


def test_models_in_python_code_and_nested_ones():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.bn = L.Dense(4), kerasbn.BatchNorm()

        def call(self, x, training=False):
            return self.bn(self.dense(x), training=training)

    own = Own()
    own(X)
    assert kinds(own) == [("error", "moving statistics")]
    inner = keras.Sequential([keras.Input((6,)), L.Dense(4), kerasbn.BatchNorm(name="inner_bn")], name="inner")
    outer = keras.Sequential([keras.Input((6,)), inner, L.ReLU(), L.Dense(2)])
    found = kerasbn.diagnose(outer, X)
    assert [(f.kind, f.layer.split("/")[-1]) for f in found.findings] == [
        ("moving statistics", "inner_bn"),
        ("bias before", "inner_bn"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        lambda: (X, np.zeros(256)),
        lambda: tf.data.Dataset.from_tensor_slices((X, np.zeros(256))).batch(32),
        lambda: ((batch,) for batch in np.split(X, 8)),
    ],
    ids=["arrays", "dataset", "generator"],
)
def test_data(data):
    model = healthy()
    moved(model)
    found = kerasbn.diagnose(model, data())
    assert (found.batches, found.samples) == (8, 256) and [f.kind for f in found.findings] == ["moving statistics"]


def test_what_it_looks_like(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    model = healthy()
    moved(model)
    small_gamma(model)
    found = kerasbn.diagnose(model, X)
    lines = str(found).splitlines()
    assert "1 normalization layer, 256 samples in 8 batches" in lines[0]
    assert any(line.split()[:1] == ["error"] and "/bn" in line for line in lines)
    assert any(line.startswith("moving statistics: ") and "kerasbn.recalibrate" in line for line in lines)
    content = json.loads(found.to_json())
    assert [each["kind"] for each in content["findings"]] == ["moving statistics", "gamma near zero"]
    assert len(content["layers"][0]["shift"]) == 8 and content["healthy"] is False
    model.get_layer("bn").gamma.assign(np.full(8, np.nan))
    assert json.loads(kerasbn.diagnose(model, X).to_json())["output_gap"] is None
    axes = found.plot()
    assert len(axes) == 2 and axes[0].get_ylabel() == "moving mean off by (sigmas)"
    axes[0].figure.savefig(tmp_path / "diagnosis.png")


def test_weights_that_are_not_finite_leave_nothing_to_draw(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    model = healthy()
    model.get_layer("hidden").kernel.assign(np.full((6, 8), np.nan))
    found = kerasbn.diagnose(model, X)
    assert str(found).startswith("Nothing was measured: weights or statistics are not finite.\n") and "/hidden" in str(
        found
    )
    axes = found.plot()
    assert [[text.get_text() for text in ax.texts] for ax in axes] == [
        ["Nothing was measured: weights or statistics are not finite."],
        [],
    ]
    axes[0].figure.savefig(tmp_path / "diagnosis.png")
    matplotlib.pyplot.close("all")


def test_a_model_that_was_trained_on_replicas(strategy):
    """Its optimizer counts steps in a variable of which each replica has one, and `int` does not take that."""
    with strategy.scope():
        layers = [L.Dense(8, use_bias=False), kerasbn.BatchNorm(synchronized=True), L.ReLU(), L.Dense(3)]
        model = keras.Sequential([keras.Input((6,)), *layers])
        model.compile("sgd", "mse")
    model.fit(X[:64], np.zeros((64, 3)), verbose=0)
    found = kerasbn.diagnose(model, X)
    assert found.samples == 256 and "momentum" in {finding.kind for finding in found.findings}
