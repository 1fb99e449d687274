"""`scale_weight_decay`: penalties in the loss and the decay of the optimizer."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasbn import BatchNorm
from kerasbn.transforms import scale_weight_decay
from tests.transforms.models import (
    MODELS,
    inputs_of,
    masked_sequence,
    mixed_precision,
    nested,
    sequential,
    shared,
    with_random_weights,
)

L = keras.layers
R = keras.regularizers


def penalty(model):
    return float(sum(model.losses))


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_the_penalty_is_scaled_and_nothing_else(make):
    model = with_random_weights(make())
    new = scale_weight_decay(model)
    assert penalty(new) == pytest.approx(penalty(model) / 5, rel=1e-6)
    for a, b in zip(model.weights, new.weights, strict=True):
        np.testing.assert_array_equal(b, a)
    x = inputs_of(model)
    keras.tree.map_structure(np.testing.assert_array_equal, new(x, training=False), model(x, training=False))


def wrapped():
    """Regularizers in cells, wrappers and wrappers in wrappers."""
    cells = [L.LSTMCell(3, kernel_regularizer="l2"), L.GRUCell(2, recurrent_regularizer=R.L1L2(0.1, 0.2))]
    return keras.Sequential(
        [
            keras.Input((5, 4, 3)),
            L.TimeDistributed(
                L.Bidirectional(L.GRU(2, bias_regularizer="l1", return_sequences=True)), name="both_ways"
            ),
            L.TimeDistributed(L.TimeDistributed(L.Dense(2, kernel_regularizer=R.L2(0.5)))),
            L.Reshape((5, 8)),
            L.RNN(cells, return_sequences=True, name="rnn"),
            BatchNorm(gamma_regularizer="l2", beta_regularizer="l1"),
            L.SpectralNormalization(L.Conv1D(2, 2, kernel_regularizer="l2")),
            L.SeparableConv1D(3, 2, depthwise_regularizer="l2", pointwise_regularizer=R.L1L2(0.1, 0.2)),
            L.PReLU(alpha_regularizer="l1"),
        ]
    )


def test_wherever_a_regularizer_is():
    model = with_random_weights(wrapped())
    changes = []
    new = scale_weight_decay(model, 0.25, changes=changes)
    assert penalty(model) > 0 and penalty(new) == pytest.approx(penalty(model) / 4, rel=1e-6)
    found = {(change.where, change.what): (change.old, change.new) for change in changes}
    assert found["both_ways", "layer.layer.bias_regularizer.l1"] == pytest.approx((0.01, 0.0025))
    assert found["rnn", "cell.cells.1.recurrent_regularizer.l2"] == pytest.approx((0.2, 0.05))
    regularizers = [v.regularizer for v in new.trainable_variables if v.regularizer]
    assert len(regularizers) == 11


def test_activity_is_not_weight():
    layer = L.Dense(3, kernel_regularizer="l2", activity_regularizer="l2", name="dense")
    changes = []
    new = scale_weight_decay(
        keras.Sequential([keras.Input((2,)), layer, L.ActivityRegularization(0.5)]), changes=changes
    )
    assert [change.what for change in changes] == ["kernel_regularizer.l2"]
    assert new.layers[0].activity_regularizer.l2 == layer.activity_regularizer.l2
    assert new.layers[1].get_config()["l1"] == 0.5


def of_our_own(weight):
    return keras.ops.sum(weight)


@pytest.mark.parametrize("regularizer", [R.OrthogonalRegularizer(0.3), of_our_own])
def test_regularizers_of_other_kinds_stay(regularizer):
    if regularizer is of_our_own and keras.__version__.startswith("3.14."):
        pytest.skip("Keras 3.14 takes no function")
    model = with_random_weights(keras.Sequential([keras.Input((3,)), L.Dense(3, kernel_regularizer=regularizer)]))
    changes = []
    assert penalty(scale_weight_decay(model, 0.5, changes=changes)) == pytest.approx(penalty(model))
    assert changes == []


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.02),
        lambda: keras.optimizers.SGD(0.1, weight_decay=0.02),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Lion(0.1, weight_decay=0.02)),
    ],
    ids=["AdamW", "SGD", "LossScaleOptimizer"],
)
def test_optimizer(optimizer):
    model = sequential()
    model.compile(optimizer(), "mse")
    changes = []
    new = scale_weight_decay(model, 0.1, changes=changes).optimizer
    old = model.optimizer
    inner = getattr(new, "inner_optimizer", new)
    assert type(new) is type(old) and inner.weight_decay == pytest.approx(0.002)
    assert getattr(old, "inner_optimizer", old).weight_decay == 0.02
    assert [(c.where, c.what.split(".")[-1], c.old) for c in changes if c.where == "optimizer"] == [
        ("optimizer", "weight_decay", 0.02)
    ]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimizer_by_name(name):
    model = sequential()
    model.compile(name, "mse")
    wanted = {"adamw": 0.004 / 5, "sgd": None}[name]
    assert scale_weight_decay(model).optimizer.weight_decay == (wanted and pytest.approx(wanted))


def test_the_scaled_penalty_is_what_trains():
    """Without another loss, SGD shrinks a weight by `1 - 2 * rate * l2`."""
    model = keras.Sequential([keras.Input((2,)), L.Dense(2, kernel_regularizer=R.L2(0.5), use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), lambda_free_zero_loss)
    new = scale_weight_decay(model, 0.5)
    before = new.layers[0].kernel.numpy()
    new.fit(np.ones((4, 2)), np.ones((4, 2)), batch_size=4, verbose=0)
    np.testing.assert_allclose(new.layers[0].kernel, before * (1 - 2 * 0.1 * 0.25), rtol=1e-5)


def lambda_free_zero_loss(y_true, y_pred):
    return 0 * keras.ops.sum(y_pred)


def test_factors():
    model = with_random_weights(nested_with_penalty())
    assert penalty(scale_weight_decay(model, 0)) == 0
    assert penalty(scale_weight_decay(model, 1)) == pytest.approx(penalty(model))
    assert penalty(scale_weight_decay(scale_weight_decay(model, 0.5), 2)) == pytest.approx(penalty(model))


def nested_with_penalty():
    return keras.Sequential([keras.Input((6,)), sequential(), L.Dense(2, kernel_regularizer="l1")])


def test_nested_and_shared():
    changes = []
    scale_weight_decay(nested_with_penalty(), changes=changes)
    assert changes[0].where == "sequential_model/hidden"
    changes = []
    scale_weight_decay(shared(), changes=changes)
    assert [str(change).rsplit(" ", 3)[0] for change in changes] == ["tower: kernel_regularizer.l2"]
    for make in (mixed_precision, nested):
        scale_weight_decay(make(), changes=changes)
    assert len(changes) == 1
    scale_weight_decay(masked_sequence(), changes=changes)
    assert {change.where for change in changes} == {"tower", "words_embedded", "both_ways"}


class Hidden(keras.layers.Layer):
    """A layer that does not say that its weight has a penalty."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), regularizer=R.L2(0.1), name="w")

    def call(self, x):
        return x * self.w


def test_a_hidden_regularizer_is_refused_by_name():
    model = keras.Sequential([keras.Input((3,)), Hidden(name="hidden")])
    with pytest.raises(ValueError, match="'hidden' of class Hidden") as caught:
        scale_weight_decay(model)
    assert "hidden/w" in str(caught.value) and "get_config" in str(caught.value) and "'l2': " in str(caught.value)
    assert scale_weight_decay(model, 1).built


@pytest.mark.parametrize("factor", [-0.1, "much", float("nan"), None])
def test_errors(factor):
    with pytest.raises(ValueError, match="`factor` must be a number not below 0") as caught:
        scale_weight_decay(sequential(), factor)
    assert f"factor={factor!r}" in str(caught.value)


@settings(max_examples=20)
@given(st.floats(0, 10), st.floats(0, 1), st.floats(0, 1))
def test_any_strengths(factor, l1, l2):
    layer = L.Dense(1, kernel_regularizer=R.L1L2(l1, l2), kernel_initializer="ones")
    new = scale_weight_decay(keras.Sequential([keras.Input((3,)), layer]), factor)
    assert penalty(new) == pytest.approx(3 * factor * (l1 + l2), rel=1e-5, abs=1e-6)
