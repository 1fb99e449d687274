"""Values and objects that nobody should hand in: what comes out, or which argument the error names."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse

import kerasbn
from kerasbn import Affine, BatchNorm, monitors
from tests.cases import MODES, in_mode, train

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = X[:, :1]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def network():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, name="hidden"), BatchNorm(name="bn"), keras.layers.ReLU(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("sgd", "mse")
    return model


def state(model):
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


# The layers.

SAME_NUMBERS = {
    "strided": np.asfortranarray(np.repeat(X, 2, 0))[::2],
    "read-only": read_only(X),
    "big-endian": X.astype(">f4"),
    "of a tensor": tf.constant(X),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", SAME_NUMBERS)
def test_however_the_numbers_lie_in_memory(kind, training):
    results = []
    for x in (X, SAME_NUMBERS[kind]):
        layer = BatchNorm(momentum=0.5)
        layer.build((None, 3))
        results.append([layer(x, training=training), *layer.get_weights(), Affine(name="affine")(x)])
    for mine, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_whole_numbers_are_taken_as_float32(dtype):
    x = (X > 0) if dtype == "bool" else np.abs(10 * X).astype(dtype)
    assert x.dtype == dtype
    layer = BatchNorm(epsilon=0.0)
    expected = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_stays_in_its_channel_and_out_of_the_statistics(value):
    x = X.copy()
    x[2, 0] = value
    layer, healthy = BatchNorm(), BatchNorm()
    for each in (layer, healthy):
        each.build((None, 3))
    y, expected = layer(x, training=True), healthy(X, training=True)
    np.testing.assert_allclose(y[:, 1:], expected[:, 1:], rtol=1e-6)
    assert layer.moving_mean[0] == 0 and layer.moving_variance[0] == 1
    np.testing.assert_allclose(layer.moving_mean[1:], healthy.moving_mean[1:], rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.full((8, 3), 7.0, "float32"), 0.0),  # constant
        (np.full((8, 3), 3e38, "float32"), 0.0),  # the sum is beyond float32
        (1e-42 * X, 0.0),  # below the smallest normal number: epsilon is all of the divisor
    ],
    ids=["constant", "large constant", "subnormal"],
)
@pytest.mark.parametrize("jit_compile", [True, False])
def test_without_variance_the_result_is_beta(jit_compile, x, expected):
    layer = BatchNorm(momentum=0.0, jit_compile=jit_compile)
    np.testing.assert_allclose(layer(x, training=True), np.full_like(x, expected), atol=1e-30)
    assert np.all(layer.moving_variance == 0)
    np.testing.assert_allclose(layer.moving_mean, x.mean(0, dtype="float64"), rtol=1e-6, atol=1e-40)


#: Columns whose squared deviations are beyond float32, some with sums that are, too.
BEYOND = {
    "squares": 1e20 * X[:, 0],
    "squares and products": 1e37 * X[:, 0],
    "sum": 1e38 * (3 + X[:, 0] / 10),
    "sums of both signs": 3e38 * np.array([1, 1, 1, 1, -1, -1, -1, -1]),
    "deviation": 3.3e38 * np.array([1, -1, -1, 0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("settings", [{}, {"renorm": True}, {"virtual_batch_size": 8}, {"activation": "relu"}], ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("jit_compile", [True, False])
def test_moments_beyond_float32_give_beta_and_leave_the_statistics_alone(jit_compile, mode, settings):
    """The same in all ways of computing; the other channels are as ever."""
    large = np.stack(list(BEYOND.values()), 1)
    x = np.concatenate([large, X], 1).astype("float32")
    dy = np.arange(x.size, dtype="float32").reshape(x.shape)
    results = []
    for each in (x, np.concatenate([np.ones_like(large), X], 1).astype("float32")):
        layer = BatchNorm(jit_compile=jit_compile, **settings)
        layer.build(x.shape)
        layer.gamma.assign(np.full(8, 2.0))
        layer.beta.assign(np.full(8, 0.5))
        before = [weight[:5] for weight in layer.get_weights()]
        gradients = in_mode(mode, lambda x, layer=layer: train(layer, x, dy))(tf.constant(each))
        results.append([*gradients, *layer.get_weights()])
    y, dx, dgamma, dbeta, *weights = (np.asarray(value)[..., :5] for value in results[0])
    assert np.all(y == 0.5) and not dx.any() and not dgamma.any()
    np.testing.assert_allclose(dbeta, dy[:, :5].sum(0))
    np.testing.assert_array_equal(weights, before)
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found[..., 5:], wanted[..., 5:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_no_example_changes_nothing(training):
    layer = BatchNorm()
    layer.build((None, 3))
    before = layer.get_weights()
    assert layer(X[:0], training=training).shape == (0, 3)
    for mine, expected in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("layer_class", [Affine, BatchNorm])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([["a", "b", "c"]]), "`inputs` must hold real numbers. Received: dtype string"),
        (X * 1j, "`inputs` must hold real numbers. Received: dtype complex64"),
        (tf.ragged.constant([[1.0, 2, 3], [1.0]]), "`inputs` must be a dense tensor. Received: a RaggedTensor"),
        (tf.sparse.from_dense(X), "`inputs` must be a dense tensor. Received: a SparseTensor"),
        (X[0], "expected ndim=2, found ndim=1"),
        (X[:, None], "expected ndim=2, found ndim=3"),
        (X[:, :2], "expected axis 1 of input shape to have value 3.*shape .8, 2."),
        (X.astype(object), "Unsupported object type float"),
        (sparse.csr_matrix(X), "Only input tensors may be passed"),
        (None, "should be tensors. Got 'None'"),
        ("text", "Only input tensors"),
    ],
    ids=str,
)
def test_what_a_layer_refuses(layer_class, x, message):
    layer = layer_class()
    layer.build((None, 3))
    before = layer.get_weights()
    with pytest.raises(ValueError, match=message):
        layer(x)
    for mine, expected in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, expected)


# Data.

NOT_DATA = {
    "None": (None, TypeError, "must be .*arrays.*Received: None"),
    "text": ("train.npz", TypeError, "must be .*arrays.*Received: 'train.npz'"),
    "a number": (5, TypeError, "must be .*arrays.*Received: 5"),
    "nothing": ((), ValueError, "must hold an array. Received: ()"),
}
NOT_ARRAYS = {
    "no example": (X[:0], "at least one batch.*arrays of 0"),
    "strings": (np.array([["a", "b", "c"]] * 8), "real numbers. Received: a ndarray, with dtype <U1"),
    "objects": (np.array([[1, 2, None]] * 8), "real numbers. Received: a ndarray, with dtype object"),
    "complex": (X * 1j, "real numbers. Received: a ndarray, with dtype complex64"),
    "dates": (np.zeros((8, 3), "M8[s]"), "real numbers.*datetime64"),
    "records": (np.zeros(8, [("a", "f4")]), "real numbers.*with dtype .*'a'"),
    "ragged": (tf.ragged.constant([[1.0, 2, 3], [1.0]]), "dense arrays. Received: a RaggedTensor of shape"),
    "sparse": (tf.sparse.from_dense(X), "dense arrays. Received: a SparseTensor of shape"),
    "of SciPy": (sparse.csr_matrix(X), "dense arrays. Received: a csr_matrix of shape"),
    "one number": (np.float32(1), "on their first axis. Received: a float32, a single number"),
    "a list": (X.tolist(), "a single number. Lists are for models with several inputs.*np.asarray"),
    "ragged lists": ([[1.0, 2.0], [1.0]], "a single number"),
}
TAKE_DATA = {"recalibrate": kerasbn.recalibrate, "diagnose": kerasbn.diagnose}


@pytest.mark.parametrize("function", [*TAKE_DATA, "find_learning_rate"])
@pytest.mark.parametrize("kind", NOT_DATA)
def test_what_is_no_data(function, kind):
    model, (data, error, message) = network(), NOT_DATA[kind]
    before = state(model)
    with pytest.raises(error, match=rf"`data` {message}"):
        getattr(kerasbn, function)(model, data)
    for mine, expected in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("function", [*TAKE_DATA, "find_learning_rate"])
@pytest.mark.parametrize("kind", NOT_ARRAYS)
def test_arrays_that_are_no_examples(function, kind):
    model, (x, message) = network(), NOT_ARRAYS[kind]
    before = state(model)
    with pytest.raises(ValueError, match=rf"`data` must.*{message}"):
        getattr(kerasbn, function)(model, x if function in TAKE_DATA else (x, Y))
    for mine, expected in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("function", TAKE_DATA)
def test_data_that_overflow_or_are_not_finite_change_nothing(function, value):
    model = network()
    x = np.where(X > 0, np.float32(value), X)
    before = state(model)
    with pytest.raises(ValueError, match=r"`data` must give every layer finite values.*'sequential.*/bn'"):
        TAKE_DATA[function](model, x)
    for mine, expected in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_a_loss_that_is_not_finite_from_the_start_is_no_divergence():
    """It used to be said that the loss diverged at the first rate, and to begin with a smaller one."""
    model = network()
    before = state(model)
    with pytest.raises(ValueError, match="`data` must give a loss that is finite before the first step"):
        kerasbn.find_learning_rate(model, (X, np.nan * Y), rates=4, batch_size=4)
    for mine, expected in zip(state(model)[: len(before)], before, strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_arrays_of_several_lengths():
    with pytest.raises(ValueError, match=r"each array as many examples. Received: arrays of 8, 3 examples"):
        kerasbn.find_learning_rate(network(), (X, Y[:3]))


@pytest.mark.parametrize("function", ["recalibrate", "diagnose", "find_learning_rate"])
def test_several_inputs_may_be_a_list(function):
    """Keras reads batches of lists from arrays, but not from what draws batches of them: `recalibrate` failed."""
    inputs = [keras.Input((3,)), keras.Input((3,))]
    joined = BatchNorm(name="bn")(keras.layers.Concatenate()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(joined))
    model.compile("sgd", "mse")
    if function == "find_learning_rate":
        assert len(kerasbn.find_learning_rate(model, ([X, 2 * X], Y), rates=4, batch_size=4).rates) >= 3
        return
    assert getattr(kerasbn, function)(model, [X, 2 * X]).samples == 8
    if function == "recalibrate":
        np.testing.assert_allclose(model.get_layer("bn").moving_mean, np.concatenate([X, 2 * X], 1).mean(0), rtol=1e-5)


def test_half_precision_arrays_are_numbers():
    model = network()
    kerasbn.recalibrate(model, X.astype(tf.bfloat16.as_numpy_dtype))
    expected = network()
    kerasbn.recalibrate(expected, X)
    np.testing.assert_allclose(
        model.get_layer("bn").moving_mean, expected.get_layer("bn").moving_mean, rtol=0.02, atol=0.02
    )


# Models.

WITH_A_MODEL = {
    "accelerate": (),
    "batch_normalize": (),
    "convert": (),
    "diagnose": (X,),
    "find_learning_rate": ((X, Y),),
    "fold": (),
    "freeze": (),
    "recalibrate": (X,),
    "to_keras": (),
    "unfreeze": (),
}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        ("model.keras", "'model.keras'"),
        ([], "an object of class list"),
        (keras.Sequential, "the class"),
    ],
    ids=["None", "text", "list", "class"],
)
@pytest.mark.parametrize("function", WITH_A_MODEL)
def test_what_is_no_model(function, value, shown):
    with pytest.raises(TypeError, match=rf"`model` must be a keras.Model. Received: {shown}.*load_model"):
        getattr(kerasbn, function)(value, *WITH_A_MODEL[function])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_converted_and_folded_as_they_are(value):
    model = network()
    for weight in model.get_layer("bn").weights:
        broken = weight.numpy()
        broken[1] = value
        weight.assign(broken)
    for mine, expected in zip(kerasbn.to_keras(model).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, expected)
    kernel, bias = kerasbn.fold(model).get_layer("hidden").get_weights()
    assert not np.isfinite(bias[1]) and np.isfinite(np.delete(bias, 1)).all()
    assert np.isfinite(np.delete(kernel, 1, 1)).all()


# Monitors.


@pytest.mark.parametrize("distance", [monitors.histogram_kl, monitors.wasserstein], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("p", "message"),
    [
        (np.array([["a", "b", "c"]]), "`p` must be an array of real numbers. Received: a ndarray, dtype <U1"),
        (X * 1j, "`p`.*complex64"),
        (X.astype(object), "`p`.*object"),
        ([[1.0, 2.0], [1.0]], "`p`.*Received: a list, .*inhomogeneous"),
        (tf.sparse.from_dense(X), "`p`.*Received: a SparseTensor"),
        (sparse.csr_matrix(X), "`p`.*Received: a csr_matrix"),
        ("text", "`p`.*Received: a str"),
        (None, "`p`.*Received: a NoneType"),
        (X[:0], r"same channels.*shapes \(0, 3\)"),
        (X[0], r"same channels.*shapes \(3,\)"),
    ],
    ids=str,
)
def test_samples_that_are_none(distance, p, message):
    with pytest.raises(ValueError, match=message):
        distance(p, X)


def test_a_variance_is_not_negative():
    with pytest.raises(ValueError, match=r"`variance_q` must not be negative. Received: -1"):
        monitors.gaussian_kl(0.0, 1.0, 0.0, [1.0, -1.0])
    with pytest.raises(ValueError, match="`mean_p` must be an array of real numbers"):
        monitors.gaussian_kl(1j, 1.0, 0.0, 1.0)
    assert monitors.gaussian_kl(1e200, 1.0, 0.0, 1e-300) == np.inf  # and no warning


@pytest.mark.parametrize(
    ("x", "message"),
    [(X[:0], "at least one example"), (X * 1j, "real numbers.*complex64"), (sparse.csr_matrix(X), "csr_matrix")],
    ids=["no example", "complex", "of SciPy"],
)
def test_what_monitors_refuse(x, message):
    with pytest.raises(ValueError, match=rf"`x` must.*{message}"):
        monitors.activation_statistics(network(), x, ["bn"])
    with pytest.raises(ValueError, match=rf"`x` must.*{message}"):
        monitors.gradient_statistics(network(), x, Y[: x.shape[0]], ["hidden"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_monitors_show_what_is_not_finite(value):
    x = X.copy()
    x[0] = value
    found = monitors.activation_statistics(network(), x, ["hidden"], training=False)["hidden"]
    assert not np.isfinite(found["mean"]).any() and (found["zero"] == 0).all()
