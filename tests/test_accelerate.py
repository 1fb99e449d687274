"""`kerasbn.accelerate`: all changes of Sec. 4.2.1 in one call, each of them a switch."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn
from examples.accelerate import __main__ as example
from examples.accelerate import training
from examples.accelerate.network import DROPOUT, L2, build

CHANGES = [
    "batch normalization",
    "learning rate",
    "dropout",
    "weight decay",
    "learning-rate decay",
    "local response norm.",
    "shuffling",
    "photometric distortions",
]
X = np.random.default_rng(0).random((24, 8, 8, 1)).astype("float32")
Y = np.arange(24) % 10


def inception():
    return build((8, 8, 1), 10, learning_rate=0.02, decay_steps=60, seed=0)


def small():
    """All that there is to change, once."""
    l2 = keras.regularizers.L2(L2)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.RandomBrightness(0.2, value_range=(0, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer=l2),
            kerasbn.LocalResponseNormalization(2),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(DROPOUT),
            keras.layers.Dense(10, kernel_regularizer=l2, name="logits"),
        ]
    )
    rate = keras.optimizers.schedules.ExponentialDecay(0.02, 60, 0.1)
    model.compile(keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def examples():
    return tf.data.Dataset.from_tensor_slices((X, Y))


def layers(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_all_seven_and_normalization():
    model = inception()
    before, config = model.get_weights(), model.get_config()
    fast = kerasbn.accelerate(model, examples(), seed=1)

    assert list(fast.report.changes) == CHANGES and all(fast.report.changes.values())
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert model.get_config() == config

    convolutions = layers(fast.model, keras.layers.Conv2D)
    assert len(layers(fast.model, kerasbn.BatchNorm)) == len(convolutions) == 22
    for layer, old in zip(convolutions, layers(model, keras.layers.Conv2D), strict=True):
        same = model.get_layer(layer.name)
        np.testing.assert_array_equal(layer.kernel, same.kernel)
        assert not layer.use_bias and old.use_bias
        assert layer.kernel_regularizer.l2 == pytest.approx(L2 / 5)
    assert not layers(fast.model, kerasbn.LocalResponseNormalization)
    assert fast.model.get_layer("random_brightness").factor == pytest.approx((-0.1, 0.1))
    assert {tuple(x.ravel()) for x, _ in fast.data.as_numpy_iterator()} == {tuple(x.ravel()) for x in X}
    assert [int(y) for _, y in fast.data] != [int(y) for _, y in examples()]

    history = fast.model.fit(fast.data.batch(8), epochs=2, callbacks=fast.callbacks, shuffle=False, verbose=0).history
    assert history["dropout"] == [0, 0]
    # After 3 and 6 of its steps, a schedule that falls to a tenth in 60 has seen 18 and 36.
    wanted = [5 * 0.02 * 0.1 ** (steps / 60) for steps in (18, 36)]
    np.testing.assert_allclose(history["accelerated_learning_rate"], wanted, rtol=1e-5)
    assert fast.model.get_layer("dropout").rate == 0 and model.get_layer("dropout").rate == DROPOUT


SWITCHES = [
    ({"where": None}, ["batch normalization"]),
    ({"factor": None}, ["learning rate", "learning-rate decay"]),
    ({"dropout": None}, ["dropout"]),
    ({"weight_decay": None}, ["weight decay"]),
    ({"remove_lrn": False}, ["local response norm."]),
    ({"shuffle": False}, ["shuffling"]),
    ({"photometric_distortions": None}, ["photometric distortions"]),
]


@pytest.mark.parametrize(("switch", "names"), SWITCHES, ids=str)
def test_each_change_is_a_switch(switch, names):
    fast = kerasbn.accelerate(small(), examples(), **switch)
    assert [name for name, changes in fast.report.changes.items() if changes is None] == names
    text = str(fast.report)
    for name in CHANGES:
        assert (re.search(rf"^{re.escape(name)} +- +switched off$", text, re.M) is not None) == (name in names)
    assert bool(layers(fast.model, kerasbn.BatchNorm)) == ("where" not in switch)
    assert bool(layers(fast.model, kerasbn.LocalResponseNormalization)) == ("remove_lrn" in switch)
    decayed = fast.model.get_layer("logits").kernel_regularizer.l2
    assert decayed == pytest.approx(L2 if "weight_decay" in switch else L2 / 5)
    assert len(fast.callbacks) == 2 - ("factor" in switch) - ("dropout" in switch)
    assert [int(y) for _, y in fast.data] != [int(y) for _, y in examples()] or "shuffle" in switch


def test_report_says_what_is_alike_once():
    text = str(kerasbn.accelerate(inception()).report)
    assert re.search(r"^weight decay +stem, \.\.\., logits \(23\) +kernel_regularizer\.l2 +0\.0001 +2e-05$", text, re.M)
    assert re.search(
        r"^batch normalization +stem, \.\.\., c_pool_1x1 \(22\) +normalization +None +layer \*_bn$", text, re.M
    )
    assert re.search(r"^learning rate +optimizer +learning_rate +0\.02 +0\.1$", text, re.M)
    assert re.search(r"^shuffling +- +nothing to change$", text, re.M)
    assert (
        len(text.splitlines()) == 2 + 8 + 2 + 1
    )  # three lines of normalization, two of distortions, one of the others


def test_arguments_reach_layers_and_callbacks():
    fast = kerasbn.accelerate(
        small(), factor=30.0, decay_speedup=2.0, dropout=0.1, warmup_steps=7, momentum=0.5, unbiased=True
    )
    layer = layers(fast.model, kerasbn.BatchNorm)[0]
    assert layer.momentum == 0.5 and layer.unbiased
    acceleration, removal = fast.callbacks
    assert (acceleration.factor, acceleration.decay_speedup, acceleration.warmup_steps) == (30, 2, 7)
    assert removal.to == 0.1 and fast.data is None


def mlp(optimizer, *hidden):
    layers = [keras.Input((6,)), *(hidden or [keras.layers.Dense(8, "relu")]), keras.layers.Dense(2)]
    model = keras.Sequential(layers, name="mine")
    model.compile(optimizer, "mse")
    return model


def rates_of(fast, epochs, batches):
    x, y = np.ones((batches, 6)), np.ones((batches, 2))
    logs = fast.model.fit(x, y, batch_size=1, epochs=epochs, callbacks=fast.callbacks, verbose=0).history
    return logs["accelerated_learning_rate"]


def test_a_cosine_decay_keeps_its_length_and_the_report_says_so():
    cosine = keras.optimizers.schedules.CosineDecay(0.01, 60)
    fast = kerasbn.accelerate(mlp(keras.optimizers.SGD(cosine)))
    expected = [5 * float(cosine(10 * epoch)) for epoch in range(1, 7)]
    np.testing.assert_allclose(rates_of(fast, 6, 10), expected, rtol=1e-5, atol=1e-9)
    row = r"^learning-rate decay +optimizer +CosineDecay +ends at step 60 +ends at step 60$"
    assert re.search(row, str(fast.report), re.M)


def test_a_length_for_the_accelerated_training():
    """To which the decay is compressed, not the warm-up."""
    warmed = keras.optimizers.schedules.CosineDecay(0.0, 50, warmup_target=0.01, warmup_steps=10)
    fast = kerasbn.accelerate(mlp(keras.optimizers.SGD(warmed)), steps=30)
    expected = [5 * float(warmed(step)) for step in (5, 10, 35, 60)]
    found = rates_of(fast, 6, 5)
    np.testing.assert_allclose([found[0], found[1], found[3], found[5]], expected, atol=1e-8)
    text = str(fast.report)
    assert re.search(r"^learning-rate decay +optimizer +CosineDecay +ends at step 60 +ends at step 30$", text, re.M)
    assert re.search(r"^ +optimizer +warm-up of CosineDecay +10 steps +10 steps$", text, re.M)
    with pytest.raises(ValueError, match=r"`steps` must be more.*Received: steps=10"):
        kerasbn.accelerate(mlp(keras.optimizers.SGD(warmed)), steps=10)


def test_restarts_are_reported_as_they_are():
    restarts = keras.optimizers.schedules.CosineDecayRestarts(0.01, 10)
    fast = kerasbn.accelerate(mlp(keras.optimizers.SGD(restarts)))
    assert re.search(r"CosineDecayRestarts +restarts or cycles +restarts or cycles$", str(fast.report), re.M)


def test_a_rate_that_was_chosen_for_normalization_is_raised_on_request_only():
    layers = keras.layers
    normalized = [layers.Dense(8), layers.BatchNormalization(name="norm"), layers.ReLU()]
    nested = [keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.LayerNormalization(), layers.ReLU()])]
    for hidden in (normalized, nested):
        rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)
        fast = kerasbn.accelerate(mlp(keras.optimizers.SGD(rate), *hidden))
        (note,) = fast.report.notes
        assert re.search(r"not raised.*has normalization already.*Recommended: keep.*pass `factor`", note)
        assert f"Note: {note}" in str(fast.report)
        assert re.search(r"^learning rate +optimizer +learning_rate +0.01 +0.01$", str(fast.report), re.M)
        assert re.search(r"^learning-rate decay +optimizer +ExponentialDecay +x 1 +x 1$", str(fast.report), re.M)
        assert rates_of(fast, 1, 5) == [pytest.approx(float(rate(5)))]
    asked = kerasbn.accelerate(mlp("sgd", *normalized), factor=5.0)
    assert asked.report.notes == [] and rates_of(asked, 1, 1) == [pytest.approx(0.05)]


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RMSprop", "Adagrad", "LossScaleOptimizer"])
def test_the_rate_of_an_adaptive_optimizer_is_raised_on_request_only(name):
    if name == "LossScaleOptimizer":
        optimizer, named = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)), "Adam"
    else:
        optimizer, named = getattr(keras.optimizers, name)(0.01), name
    fast = kerasbn.accelerate(mlp(optimizer))
    (note,) = fast.report.notes
    assert re.search(rf"not raised.*{named} divides each gradient.*found with SGD.*pass `factor`", note)
    assert rates_of(fast, 1, 1) == [pytest.approx(0.01)]
    if name == "Adam":
        assert kerasbn.accelerate(mlp(optimizer), factor=5.0).callbacks[0].factor == 5.0


def test_the_rate_of_sgd_is_raised():
    inner = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))
    for optimizer in ("sgd", inner):
        fast = kerasbn.accelerate(mlp(optimizer))
        assert fast.callbacks[0].factor == 5.0 and not fast.report.notes


def test_a_network_of_which_nothing_can_be_normalized_is_refused():
    """Its rate was raised and its dropout removed all the same."""
    layers = keras.layers
    recurrent = [layers.Reshape((6, 1)), layers.LSTM(4, dropout=0.2), layers.Dropout(0.5)]
    with pytest.raises(ValueError, match=r"`model` must have a layer.*'mine' with where='pre.*Dense, LSTM.*where=None"):
        kerasbn.accelerate(mlp("sgd", *recurrent))
    with pytest.raises(ValueError, match=r"`model` must have a layer that can be normalized.*where=<function"):
        kerasbn.accelerate(mlp("sgd"), where=lambda layer: None)
    only_output = keras.Sequential([keras.Input((6,)), layers.Dense(2)])
    only_output.compile("sgd", "mse")
    with pytest.raises(ValueError, match="other than the output layer"):
        kerasbn.accelerate(only_output)
    assert kerasbn.accelerate(mlp("sgd", *recurrent), where=None).callbacks


def test_over_replicas(strategy):
    with strategy.scope():
        model = small()
    fast = kerasbn.accelerate(model, synchronized=True)
    assert fast.model.distribute_strategy is strategy
    losses = fast.model.fit(X, Y, batch_size=8, callbacks=fast.callbacks, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


def test_a_model_without_optimizer_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="bare")
    with pytest.raises(ValueError, match=r"`model` must be compiled.*'bare'.*model\.compile"):
        kerasbn.accelerate(model)


def test_example(tmp_path, capsys):
    arguments = ["--steps", "4", "--measurements", "2", "--seeds", "1", "--out", str(tmp_path)]
    assert example.main(arguments) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in CHANGES) and "times fewer" in output
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((tmp_path / "results.json").read_text())
    assert [run["network"] for run in content["runs"]] == ["baseline", "accelerated"]
    before = (tmp_path / "results.json").read_bytes()
    assert example.main(arguments) == 0  # nothing is trained twice
    assert (tmp_path / "results.json").read_bytes() == before
    assert example.main([*arguments, "--factor", "2"]) == 2
    assert "results of other settings" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_bytes() == before


def test_summary_compares_each_seed_with_itself(tmp_path):
    results = training.Results(tmp_path, training.Settings("digits", 40, 8, 0.1, 5.0, 4))
    Run = training.Run
    results.runs = [
        Run("baseline", 0, [10, 20, 30, 40], [0.1, 0.5, 0.8, 0.7], [1.0] * 4, [1.0, 2.0, 3.0, 4.0]),
        Run("accelerated", 0, [10, 20, 30, 40], [0.8, 0.9, 0.9, 0.9], [1.0] * 4, [2.0, 4.0, 6.0, 8.0]),
        Run("baseline", 1, [10, 20, 30, 40], [0.1, 0.2, 0.3, 0.9], [1.0] * 4, [1.0, 2.0, 3.0, 4.0]),
        Run("accelerated", 1, [10, 20, 30, 40], [0.8, 0.8, 0.8, 0.8], [1.0] * 4, [2.0, 4.0, 6.0, 8.0]),
    ]
    found = results.summary()["accelerated"]
    assert found["times_fewer_steps"]["mean"] == 3 and found["times_less_time"]["mean"] == 1.5
    assert found["reached"] == [1, 2] and found["best_accuracy"]["mean"] == 0.85


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"photometric_distortions": 2}, "`photometric_distortions` must be a number from 0 to 1.*=2"),
        ({"weight_decay": -1}, "`weight_decay` must be a number not below 0.*=-1"),
        ({"dropout": 1.5}, "`dropout` must be a number from 0 to 1.*=1.5"),
        ({"where": None, "dropuot": 0.1}, "`where` is None.*dropuot=0.1"),
    ],
)
def test_arguments_are_called_by_their_own_names(arguments, message):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "relu")])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=message):
        kerasbn.accelerate(model, **arguments)
