"""`kerasbn.tuner.HigherLearningRate`: what is built and how it is trained, for each hyperparameter."""

import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasbn

keras_tuner = pytest.importorskip("keras_tuner")
pytest.importorskip("tensorboard")

from kerasbn import tuner  # noqa: E402

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.arange(16) % 2
RATE = 0.01


def network(hp=None):
    rate = keras.optimizers.schedules.ExponentialDecay(RATE, 12, 0.5)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, "relu", kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2, name="last"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return model


def trial(hypermodel, **values):
    hp = keras_tuner.HyperParameters()
    hypermodel.build(hp)
    hp.values |= {f"kerasbn/{name}": value for name, value in values.items()}
    return hp


def test_a_model_is_copied_and_each_hyperparameter_does_what_it_says():
    mine = network()
    before = mine.get_weights()
    hypermodel = tuner.HigherLearningRate(mine, warmup_steps=(0, 8))

    hp = trial(hypermodel)
    assert {name: hp.get(f"kerasbn/{name}") for name in ("arm", "learning_rate_factor", "dropout")} == {
        "arm": "plain",
        "learning_rate_factor": 1.0,
        "dropout": 1.0,
    }
    plain = hypermodel.build(hp)
    assert [layer.name for layer in plain.layers] == [layer.name for layer in mine.layers]
    logs = hypermodel.fit(hp, plain, X, Y, batch_size=4, verbose=0).history
    assert logs["accelerated_learning_rate"] == [pytest.approx(RATE * 0.5 ** (4 / 12))] and logs["dropout"] == [0.5]

    hp = trial(
        hypermodel,
        arm="normalized",
        learning_rate_factor=30.0,
        decay_speedup=6.0,
        warmup_steps=8,
        dropout=0.1,
        weight_decay_factor=0.2,
    )
    fast = hypermodel.build(hp)
    assert [type(layer) for layer in fast.layers].count(kerasbn.BatchNorm) == 1
    assert fast.layers[0].kernel_regularizer.l2 == pytest.approx(0.002)
    logs = hypermodel.fit(hp, fast, X, Y, batch_size=4, verbose=0, callbacks=[]).history
    half_way = 1 + (30 - 1) * 4 / 8
    assert logs["accelerated_learning_rate"] == [pytest.approx(half_way * RATE * 0.5 ** (4 * 6 / 12))]
    assert logs["dropout"] == [pytest.approx(0.1)]

    for weight, old in zip(mine.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert mine.optimizer.iterations.value == 0


def test_a_schedule_that_ends_keeps_its_length_in_every_trial():
    """Of the speed-ups 1 and 6 that are drawn, 6 ended a cosine after a sixth of the training."""

    def with_cosine(hp):
        model = network()
        schedule = keras.optimizers.schedules.CosineDecay(RATE, 24)
        model.compile(keras.optimizers.SGD(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    hypermodel = tuner.HigherLearningRate(with_cosine, decay_speedups=(6.0,))
    hp = trial(hypermodel, learning_rate_factor=2.0)
    assert "kerasbn/decay_speedup" not in hp.values
    logs = hypermodel.fit(hp, hypermodel.build(hp), X, Y, batch_size=4, epochs=3, verbose=0).history
    expected = [2 * RATE * 0.5 * (1 + math.cos(math.pi * step / 24)) for step in (4, 8, 12)]
    assert logs["accelerated_learning_rate"] == pytest.approx(expected)


def test_each_is_a_switch():
    fixed = {"decay_speedups": [2.0], "dropout": [1.0], "weight_decay_factors": [1.0], "arms": ["plain"]}
    hp = trial(tuner.HigherLearningRate(network, learning_rate_factors=(3.0, 3.0), **fixed))
    assert all(each.name.startswith("kerasbn/") and len(each.values) == 1 for each in hp.space)
    assert hp.get("kerasbn/learning_rate_factor") == 3.0

    def without_dropout(hp):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(hp.Choice("units", [2, 3]))])
        model.compile("sgd", "mse")
        return model

    names = {each.name for each in trial(tuner.HigherLearningRate(without_dropout)).space}
    assert "units" in names and not {"kerasbn/dropout", "kerasbn/decay_speedup"} & names


def test_the_switches_that_are_off_at_first():
    shape = {"initialization_scales": [0.5, 2.0], "activations": ["as_is", "sigmoid"]}
    hypermodel = tuner.HigherLearningRate(network(), **shape, batch_sizes=[4, 8], momenta=[0.0, 0.9])
    as_it_is = hypermodel.build(trial(hypermodel, initialization_scale=0.5))
    hp = trial(hypermodel, initialization_scale=2.0, activation="sigmoid", batch_size=8, momentum=0.9, arm="normalized")
    model = hypermodel.build(hp)
    np.testing.assert_array_equal(model.layers[0].kernel, 4 * as_it_is.layers[0].kernel.numpy())
    np.testing.assert_array_equal(model.get_layer("last").kernel, 4 * as_it_is.get_layer("last").kernel.numpy())
    assert [as_it_is.layers[0].activation.__name__, as_it_is.optimizer.momentum] == ["relu", 0.0]
    (activation,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Activation)]
    assert activation.activation is keras.activations.sigmoid and model.optimizer.momentum == 0.9
    assert model.get_layer("last").activation is keras.activations.linear
    hypermodel.fit(hp, model, X, Y, verbose=0)
    assert int(model.optimizer.iterations) == len(X) // 8

    adam = network()
    adam.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"`momenta` needs an optimizer.*Adam.*SGD"):
        tuner.HigherLearningRate(adam, momenta=[0.5]).build(keras_tuner.HyperParameters())


def test_factors_are_log_uniform():
    hp = trial(tuner.HigherLearningRate(network))
    (factor,) = [each for each in hp.space if each.name == "kerasbn/learning_rate_factor"]
    quartiles = [factor.prob_to_value(p) for p in (0, 1 / 3, 2 / 3, 1)]
    assert quartiles == pytest.approx([0.1, 1, 10, 100])


@pytest.mark.parametrize(
    "kind", [tuner.RandomSearch, tuner.BayesianOptimization, tuner.GridSearch, keras_tuner.RandomSearch]
)
def test_in_a_search(kind, tmp_path):
    hypermodel = tuner.HigherLearningRate(network, dropout=[0.0], learning_rate_factors=(0.1, 10.0))
    search = kind(hypermodel, "val_accuracy", max_trials=2, directory=tmp_path, seed=1)
    search.search(X, Y, validation_data=(X, Y), batch_size=8, verbose=0)
    for done in search.oracle.trials.values():
        assert done.status == "COMPLETED" and 0 <= done.score <= 1
        if kind is not keras_tuner.RandomSearch:
            text = (Path(search.get_trial_dir(done.trial_id)) / "executions.json").read_text()
            (curve,) = json.loads(text)
            factor = done.hyperparameters.get("kerasbn/learning_rate_factor")
            decay = 0.5 ** (2 * done.hyperparameters.get("kerasbn/decay_speedup") / 12)
            assert curve["accelerated_learning_rate"] == [pytest.approx(factor * RATE * decay)]
            assert curve["dropout"] == [0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arms": ["batched"]}, "`arms` must be one of 'plain', 'normalized'.*'batched'"),
        ({"arms": "plain"}, "`arms` must be a sequence.*arms='plain'.*brackets"),
        ({"arms": []}, r"`arms` must be a sequence.*arms=\[\]"),
        ({"learning_rate_factors": (0, 1)}, "`learning_rate_factors`.*=0"),
        ({"learning_rate_factors": (10, 1)}, r"smallest and the largest.*\(10, 1\)"),
        ({"learning_rate_factors": (1, 2, 3)}, r"smallest and the largest.*\(1, 2, 3\)"),
        ({"decay_speedups": [math.inf]}, "`decay_speedups`.*inf"),
        ({"warmup_steps": [-1]}, "`warmup_steps`.*-1"),
        ({"dropout": [2]}, "`dropout`.*2"),
        ({"weight_decay_factors": [-0.5]}, "`weight_decay_factors`.*-0.5"),
        ({"initialization_scales": [0]}, "`initialization_scales`.*0"),
        ({"activations": ["softmax"]}, "`activations` must be one of 'as_is'.*'softmax'"),
        ({"batch_sizes": [0.5]}, "`batch_sizes`.*0.5"),
        ({"momenta": [1.5]}, "`momenta`.*1.5"),
        ({"momenta": [0.9, 1.0]}, r"`momenta` must be below 1.*\[0.9, 1.0\]"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tuner.HigherLearningRate(network, **arguments)


def test_a_model_must_be_compiled():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="mine")
    with pytest.raises(ValueError, match="'mine', which is not"):
        tuner.HigherLearningRate(model).build(keras_tuner.HyperParameters())
