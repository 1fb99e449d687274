"""One model in several threads: inference is that of one thread, and what is saved while it trains can be read."""

import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import Affine, BatchNorm

THREADS, CALLS = 8, 10
X = np.random.default_rng(0).normal(3.0, 2.0, size=(THREADS * CALLS, 4, 6)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [BatchNorm(activation="relu", momentum=0.5), keras.layers.Dense(5), BatchNorm(renorm=True), Affine()]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model(X[0], training=True)
    model.compile("sgd", "mse")
    return model


WAYS = {
    "layer": lambda model: lambda x: model.layers[0](x, training=False),
    "model": lambda model: lambda x: model(x, training=False),
    "function": lambda model: tf.function(lambda x: model(x, training=False), autograph=False),
    "compiled": lambda model: tf.function(lambda x: model(x, training=False), autograph=False, jit_compile=True),
    "predict_on_batch": lambda model: model.predict_on_batch,
}


@pytest.mark.parametrize("way", WAYS)
def test_inference_from_eight_threads_is_that_of_one(model, way):
    expected = [np.asarray(WAYS[way](model)(x)) for x in X[:THREADS]]
    infer = WAYS[way](model)  # anew: the threads meet in its first trace
    if way == "predict_on_batch":
        model.make_predict_function(force=True)
    weights = model.get_weights()
    together = threading.Barrier(THREADS)

    def work(index):
        together.wait(timeout=60)
        return [np.asarray(infer(X[index])) for _ in range(CALLS)]

    with ThreadPoolExecutor(THREADS) as pool:
        for results, right in zip(pool.map(work, range(THREADS), timeout=120), expected, strict=True):
            for result in results:
                np.testing.assert_array_equal(result, right)
    for mine, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(mine, before)


def test_layers_in_threads_of_their_own_are_those_in_one():
    """Training writes moving statistics: one layer belongs to one thread, but kernels and caches are shared."""

    def train(seed):
        layer = BatchNorm(momentum=0.5, name="bn")
        step = tf.function(lambda x: layer(x, training=True), autograph=False)
        for x in np.random.default_rng(seed).normal(seed, 1, size=(5, 8, 6)).astype("float32"):
            y = step(x)
        return [y.numpy(), *layer.get_weights()]

    expected = [train(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for mine, right in zip(pool.map(train, range(4), timeout=120), expected, strict=True):
            for a, b in zip(mine, right, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:You are saving your model")
def test_what_is_saved_during_training_can_be_read(tmp_path):
    """From a thread of its own, whenever it comes: each variable is whole, though not all are of the same step."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(16), BatchNorm(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    x = X.reshape(-1, 6)
    model.fit(x, x[:, :1], epochs=1, verbose=0)
    done, errors, saved = threading.Event(), [], []

    def save():
        try:
            while not done.is_set() and len(saved) < 6:
                for name in (f"{len(saved)}.weights.h5", f"{len(saved)}.keras"):
                    path = tmp_path / name
                    model.save_weights(path) if name.endswith("h5") else model.save(path)
                    saved.append(path)
                assert all(np.isfinite(weight).all() for weight in model.get_weights())
        except BaseException as error:  # the test says it, not the thread
            errors.append(error)

    thread = threading.Thread(target=save)
    thread.start()
    epochs = 0
    while thread.is_alive() and epochs < 200:
        model.fit(x, x[:, :1], epochs=1, verbose=0)
        epochs += 1
    done.set()
    thread.join(timeout=60)
    assert not thread.is_alive() and not errors and epochs and len(saved) >= 2
    for path in saved:
        loaded = keras.models.clone_model(model)
        loaded.load_weights(path)
        assert all(np.isfinite(weight).all() for weight in loaded.get_weights())
        assert (loaded.layers[1].moving_variance.numpy() > 0).all()
    loaded = keras.saving.load_model(next(path for path in saved if path.suffix == ".keras"), safe_mode=True)
    loaded.fit(x, x[:, :1], epochs=1, verbose=0)  # it trains on
