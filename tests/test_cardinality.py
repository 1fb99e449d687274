"""Data without end, and data that do not say how long they are: in every function that reads all of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn
from kerasbn.callbacks import PopulationStatistics
from kerasbn.cardinality import cardinality
from kerasbn.data import shuffle_within_shards

L = keras.layers
X = np.random.default_rng(0).normal(2.0, 3.0, (64, 6)).astype("float32")


class Batches(keras.utils.PyDataset):
    def __init__(self, number):
        super().__init__()
        self.number = number

    @property
    def num_batches(self):
        return self.number

    def __getitem__(self, index):
        return (X[index % 4 * 16 :][:16],)


def dataset():
    return tf.data.Dataset.from_tensor_slices(X).batch(16)


ENDLESS = {
    "repeat": lambda: dataset().repeat(),
    "repeat, and what comes after it": lambda: dataset().unbatch().repeat().shuffle(64).batch(16).map(abs).prefetch(2),
    "of files": lambda: shuffle_within_shards(tf.data.Dataset.from_tensor_slices(X).window(16)).batch(16).repeat(),
    "PyDataset": lambda: Batches(None),
}

FUNCTIONS = [kerasbn.recalibrate, kerasbn.diagnose, lambda _, data: PopulationStatistics(data)]


def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,)), L.Dense(4, use_bias=False), kerasbn.BatchNorm(), L.Dense(2)])


@pytest.mark.parametrize("data", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=["recalibrate", "diagnose", "PopulationStatistics"])
def test_data_without_end_are_refused_with_the_remedy(function, data):
    new = model()
    before = new.get_weights()
    with pytest.raises(ValueError, match=r"`steps` must be given.*infinite cardinality.*steps=100"):
        function(new, data())
    for weight, old in zip(new.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize("data", ENDLESS.values(), ids=ENDLESS)
def test_with_steps_they_are_read(data):
    new = model()
    assert kerasbn.recalibrate(new, data(), steps=4).batches == 4
    assert kerasbn.diagnose(new, data(), steps=4).samples == 64
    assert PopulationStatistics(data(), steps=4).report is None


def test_a_distributed_dataset_without_end(strategy):
    with strategy.scope():
        new = model()
    endless = strategy.experimental_distribute_dataset(dataset().repeat())
    with pytest.raises(ValueError, match="`steps` must be given"):
        kerasbn.recalibrate(new, endless)
    assert kerasbn.recalibrate(new, endless, steps=4).samples == 64


def test_a_function_of_a_callback_that_gives_data_without_end():
    new = model()
    new.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`steps` must be given"):
        new.fit(X, X[:, :2], verbose=0, callbacks=[PopulationStatistics(lambda: dataset().repeat())])


def test_a_learning_rate_is_found_with_data_without_end():
    new = model()
    new.compile("sgd", "mse")
    endless = tf.data.Dataset.from_tensor_slices((X, X[:, :2])).batch(16).repeat()
    assert len(kerasbn.find_learning_rate(new, endless, rates=5).rates) > 2


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (lambda: ((X[i : i + 16],) for i in range(0, 64, 16)), True),
        (lambda: dataset().filter(lambda x: True), True),
        (lambda: dataset(), False),
        (lambda: Batches(4), False),
        (lambda: X, False),
    ],
    ids=["generator", "filter", "dataset", "PyDataset", "array"],
)
def test_progress_is_shown_where_the_end_is_not_known(data, shown, capsys):
    new = model()
    for function in (kerasbn.recalibrate, kerasbn.diagnose):
        assert function(new, data()).batches == (2 if isinstance(data(), np.ndarray) else 4)
        assert ("step" in capsys.readouterr().out) == shown
        function(new, data(), steps=2)
        function(new, data(), verbose=0)
        assert capsys.readouterr().out == ""


def test_cardinality():
    assert cardinality(Batches(None)) == cardinality(dataset().repeat()) == tf.data.INFINITE_CARDINALITY
    assert cardinality(Batches(3)) == 3 and cardinality(dataset()) == 4 and cardinality([1, 2]) == 2
    assert cardinality(iter([])) == cardinality(keras.utils.PyDataset()) == tf.data.UNKNOWN_CARDINALITY
