"""`recalibrate`: the statistics of float64 NumPy over all data, and nothing else changed, to the bit."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbn
from kerasbn import BatchNorm, recalibrate
from tests import reference
from tests.cases import Case
from tests.crossing import crossed, first_of

L = keras.layers


CLASSES = [BatchNorm, L.BatchNormalization]
RANDOM = np.random.default_rng(0)


def batches(*arrays, sizes=(5, 1, 7, 4)):
    """A dataset of batches of unequal sizes."""

    def parts():
        for end, size in zip(np.cumsum(sizes), sizes, strict=True):
            yield tuple(array[end - size : end] for array in arrays)

    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in arrays)
    return tf.data.Dataset.from_generator(parts, output_signature=signature)


def population(x, axes, mask=None):
    """Mean and unbiased variance of the values under `mask`, in float64."""
    normalized = reference.algorithm_1(x, 1.0, 0.0, 0.0, axes, mask)
    return normalized.mu.ravel(), reference.algorithm_2_variance(normalized.sigma2, normalized.m).ravel()


def assert_statistics(layer, mean, variance, rtol=1e-6):
    scale = np.sqrt(variance).max()
    np.testing.assert_allclose(layer.moving_mean, mean.reshape(layer.moving_mean.shape), rtol, rtol * scale)
    np.testing.assert_allclose(layer.moving_variance, variance.reshape(layer.moving_variance.shape), rtol)


ORACLE = [
    Case("image", (17, 4, 3, 3)),
    Case("float64", (17, 5), dtype="float64"),
    Case("half", (17, 5), dtype="float16"),
    Case("mask", (17, 6, 5), masked=True),
    Case("mask, channels first", (17, 3, 4, 6), {"axis": 1}, masked=True),
    Case("renorm", (17, 5), {"renorm": True}),
]
ORACLE_OF_OURS = [
    *ORACLE,
    Case("per activation, mask", (17, 6, 5), {"axis": (1, 2)}, masked=True),
    Case("virtual batches, activation", (17, 5), {"virtual_batch_size": 3, "activation": "relu"}),
    Case("cumulative, unbiased", (17, 5), {"momentum": None, "unbiased": True}),
]


@pytest.mark.parametrize(
    ("case", "layer_class"), [*crossed(ORACLE, CLASSES), *crossed(ORACLE_OF_OURS[len(ORACLE) :], [BatchNorm])]
)
def test_population_of_all_data(layer_class, case):
    inputs = keras.Input(case.shape[1:], dtype=case.dtype)
    layer = case.layer(layer_class)
    ends, arrays, call = [inputs], [case.x], {}
    if case.masked:
        ends.append(keras.Input(case.shape[1:-1], dtype="bool"))
        arrays.append(case.mask)
        call["mask"] = ends[1]
    model = keras.Model(ends, layer(inputs, **call))
    data = batches(*arrays)
    data = data.map(lambda *parts: (parts,)) if case.masked else data
    found = recalibrate(model, data)
    mask = None if case.mask is None else case.mask[..., np.newaxis]
    mean, variance = population(case.x, case.axes, mask)
    tolerance = {"float64": 1e-13, "float16": 1e-3}.get(case.dtype, 1e-6)
    assert_statistics(layer, mean, variance, tolerance)
    assert (found.batches, found.samples) == (4, 17)
    weights = np.ones(case.shape) if mask is None else np.broadcast_to(mask, case.shape)
    assert found.layers[0].values == weights.sum(case.axes).min()


def test_statistics_of_a_mean_far_from_0():
    x = RANDOM.normal(1e6, 1.0, (4000, 2))
    layer = BatchNorm()
    model = keras.Sequential([keras.Input((2,)), layer])
    recalibrate(model, x.astype("float32"), batch_size=300)
    mean, variance = population(x.astype("float32"), 0)
    assert_statistics(layer, mean, variance)


def test_layers_that_are_compiled():
    x = RANDOM.normal(2.0, 3.0, (16, 4)).astype("float32")
    layer = BatchNorm()
    recalibrate(keras.Sequential([keras.Input((4,)), layer]), x, batch_size=4)
    assert_statistics(layer, *population(x, 0))


@pytest.mark.parametrize("layer_class", first_of(CLASSES))
def test_later_layers_see_what_earlier_ones_make_of_each_batch(layer_class):
    keras.utils.set_random_seed(0)
    first, dense, second = layer_class(dtype="float64"), L.Dense(3, dtype="float64"), layer_class(dtype="float64")
    model = keras.Sequential([keras.Input((4,), dtype="float64"), first, dense, second])
    first.gamma.assign([1.0, 2.0, 3.0, 4.0])
    x, sizes = RANDOM.normal(2.0, 3.0, (17, 4)), (5, 3, 7, 2)
    recalibrate(model, batches(x, sizes=sizes))
    assert_statistics(first, *population(x, 0), 1e-12)
    ends = np.cumsum(sizes)
    normalized = [reference.algorithm_1(part, first.gamma.numpy(), 0, 1e-3, 0).y for part in np.split(x, ends[:-1])]
    assert_statistics(second, *population(np.concatenate(normalized) @ dense.kernel.numpy(), 0), 1e-12)


def test_a_batch_of_the_same_values_in_other_batches_gives_the_same():
    x = RANDOM.normal(size=(24, 4)).astype("float32")
    results = []
    for size in (1, 5, 24):
        layer = BatchNorm()
        recalibrate(keras.Sequential([keras.Input((4,)), layer]), x, batch_size=size)
        results.append(np.stack([layer.moving_mean, layer.moving_variance]))
    np.testing.assert_allclose(results[1:], [results[0]] * 2, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("layer_class", "settings"),
    [
        (L.BatchNormalization, {}),
        (BatchNorm, {"synchronized": True}),
        pytest.param(BatchNorm, {}, marks=pytest.mark.slow),
    ],
)
def test_two_replicas(strategy, layer_class, settings):
    x = RANDOM.normal(2.0, 3.0, (15, 4)).astype("float32")
    with strategy.scope():
        first, second = layer_class(**settings), layer_class(**settings)
        model = keras.Sequential([keras.Input((4,)), first, L.Dropout(0.5), second])
    moving = [copy for copy in strategy.experimental_local_results(second.moving_mean.value)]
    moving[0].assign(np.ones(4))  # replicas may differ before
    found = recalibrate(model, tf.data.Dataset.from_tensor_slices(x).batch(8))  # shards of 4, 4, 4 and 3
    assert (found.batches, found.samples, found.layers[0].values) == (2, 15, 15)
    assert_statistics(first, *population(x, 0))
    for variable in model.variables:
        one, other = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(one, other)


def test_arrays_on_two_replicas_and_a_replica_without_data(strategy):
    x = RANDOM.normal(2.0, 3.0, (9, 4)).astype("float32")
    with strategy.scope():
        layer = BatchNorm()
        model = keras.Sequential([keras.Input((4,)), layer])
    found = recalibrate(model, {"x": x}["x"], batch_size=8)  # 4 and 4, 1 and none
    assert (found.batches, found.samples) == (2, 9)
    assert_statistics(layer, *population(x, 0))


# Where the layers are


def test_shared_layers_and_nested_models():
    """A layer that is called several times has the statistics of all that it gets."""
    shared = L.BatchNormalization(name="shared")
    inside = keras.Sequential([keras.Input((3,)), shared, L.BatchNormalization(name="inner")], name="inside")
    inputs = keras.Input((3,))
    outputs = inside(inputs) + shared(10.0 + 4.0 * inputs)
    model = keras.Model(inputs, outputs)
    x = RANDOM.normal(size=(17, 3)).astype("float32")
    found = recalibrate(model, batches(x))
    assert [each.values for each in found.layers] == [34, 17]
    assert_statistics(shared, *population(np.concatenate([x, 10 + 4 * x]), 0))
    np.testing.assert_allclose(inside.get_layer("inner").moving_mean, np.zeros(3), atol=1e-6)


class InPython(keras.Model):
    """A model whose layers are called in Python code, with one in a list."""

    def __init__(self):
        super().__init__()
        self.parts = [BatchNorm(name="in_a_list")]
        self.asleep = BatchNorm(name="asleep")
        self.kept = BatchNorm(name="never_trained")

    def call(self, x, training=False):
        return self.kept(self.parts[0](x, training=training), training=False)


def test_a_model_in_python_code_with_layers_that_are_not_called():
    model = InPython()
    x = RANDOM.normal(2.0, 3.0, (17, 3)).astype("float32")
    model.asleep.build((None, 3))
    model(x)
    before = [v.numpy() for layer in (model.asleep, model.kept) for v in layer.variables]
    found = recalibrate(model, x)
    assert {each.layer.split("/")[-1]: each.values for each in found.layers} == {
        "in_a_list": 17,
        "asleep": 0,
        "never_trained": 0,
    }
    assert_statistics(model.parts[0], *population(x, 0))
    after = [v.numpy() for layer in (model.asleep, model.kept) for v in layer.variables]
    for a, b in zip(after, before, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"must call the layers.*Received: \['asleep'\], which got none"):
        recalibrate(model, x, layers="asleep")
    recalibrate(model, x, layers=["in_a_list", "never_trained"])
    np.testing.assert_allclose(model.kept.moving_variance, np.full(3, 17 / 16), rtol=1e-3)


def test_time_distributed():
    wrapper = L.TimeDistributed(L.BatchNormalization())
    x = RANDOM.normal(2.0, 3.0, (17, 2, 3)).astype("float32")
    recalibrate(keras.Sequential([keras.Input((2, 3)), wrapper]), batches(x))
    assert_statistics(wrapper.layer, *population(x, (0, 1)))


def test_time_distributed_over_a_time_of_unknown_length():
    wrapper = L.TimeDistributed(L.BatchNormalization())
    x = RANDOM.normal(2.0, 3.0, (17, 6, 3)).astype("float32")
    anything = tf.TensorSpec((None, None, 3))
    data = tf.data.Dataset.from_generator(lambda: [x[:9], x[9:]], output_signature=anything)
    recalibrate(keras.Sequential([keras.Input((None, 3)), wrapper]), data)
    assert_statistics(wrapper.layer, *population(x, (0, 1)))


def test_masks_of_an_embedding():
    """A mask that a layer gets from the layers before it."""
    embedding, layer = L.Embedding(9, 4, mask_zero=True), BatchNorm()
    model = keras.Sequential([keras.Input((6,), dtype="int32"), embedding, layer])
    words = RANDOM.integers(0, 9, (17, 6))
    recalibrate(model, batches(words.astype("int32")))
    embedded = embedding.embeddings.numpy()[words]
    assert_statistics(layer, *population(embedded, (0, 1), (words != 0)[..., np.newaxis]))


def test_eager_models():
    layer = BatchNorm()
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(run_eagerly=True)
    x = RANDOM.normal(2.0, 3.0, (17, 3)).astype("float32")
    recalibrate(model, batches(x))
    assert_statistics(layer, *population(x, 0))


# Which layers


@pytest.mark.parametrize("layer_class", first_of(CLASSES))
def test_frozen_layers_stay_unless_they_are_named(layer_class):
    """Frozen in both ways, and asked for by name."""
    first, second, third = (layer_class(name=name) for name in ("first", "second", "third"))
    model = keras.Sequential([keras.Input((3,)), first, second, third])
    x = RANDOM.normal(2.0, 3.0, (64, 3)).astype("float32")
    first.moving_mean.assign(np.ones(3))
    kerasbn.freeze(model, "first")
    kerasbn.freeze(model, "third", parameters=False)
    assert [each.layer.split("/")[-1] for each in recalibrate(model, x).layers] == ["second"]
    np.testing.assert_array_equal(first.moving_mean, np.ones(3))
    # What the frozen one gave is its inference.
    assert_statistics(second, *population(reference.inference(x, 1, 0, 1, 1, 1e-3), 0), 1e-5)
    recalibrate(model, x, layers=["first", "third"])
    assert_statistics(first, *population(x, 0))
    assert not first.trainable and second.trainable and "call" in vars(third) and "call" not in vars(second)


def test_layers_that_are_not_named_are_in_inference_mode():
    first, second = BatchNorm(name="first"), BatchNorm(name="second")
    model = keras.Sequential([keras.Input((3,)), first, second])
    x = RANDOM.normal(2.0, 3.0, (64, 3)).astype("float32")
    recalibrate(model, x, layers=lambda layer: layer.name == "second")
    np.testing.assert_array_equal(first.moving_mean, np.zeros(3))
    assert_statistics(second, *population(reference.inference(x, 1, 0, 0, 1, 1e-3), 0))
    np.testing.assert_allclose(keras.ops.mean(model(x), 0), np.zeros(3), atol=1e-5)


def test_adaptation_to_a_domain():
    """AdaBN: inputs that are shifted and scaled give the outputs of the old domain again."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), L.Dense(8), BatchNorm(name="bn", epsilon=1e-7), L.Dense(2)])
    x = RANDOM.normal(size=(200, 4)).astype("float32")
    recalibrate(model, x)
    old = model.predict(x, verbose=0)
    model.trainable = False
    recalibrate(model, 3 * x + 1, layers="bn")
    np.testing.assert_allclose(model.predict(3 * x + 1, verbose=0), old, atol=1e-4)
    assert not model.trainable and not any(v.trainable for v in model.layers[1].variables)


# What stays


class Raising(keras.utils.PyDataset):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def __len__(self):
        return 10

    def __getitem__(self, index):
        np.random.random(), random.random()
        if index == 2 and self.error:
            raise self.error
        return RANDOM.normal(size=(8, 6)).astype("float32"), np.ones((8, 2))


class Noise(L.Layer):
    """Draws from Keras's global random state, counts its calls, and has a penalty and a metric."""

    def __init__(self):
        super().__init__()
        self.calls = self.add_weight(name="calls", initializer="zeros", trainable=False)
        self.mean = keras.metrics.Mean(name="mean_input")

    def call(self, x, training=False):
        if not training:
            return x
        self.calls.assign_add(1.0)
        self.add_loss(keras.ops.mean(x))
        self.mean.update_state(x)
        return x + 0.1 * keras.random.normal(tf.shape(x))


def trained(layer_class=BatchNorm, fit=False):
    keras.utils.set_random_seed(1)
    stack = [
        L.SpectralNormalization(L.Dense(8)),
        layer_class(name="bn"),
        L.Dropout(0.3),
        Noise(),
        layer_class(renorm=True, name="renorm"),
        L.Dense(2, activity_regularizer="l2"),
    ]
    model = keras.Sequential([keras.Input((6,)), *stack])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    x = np.random.default_rng(1).normal(size=(32, 6))
    if fit:
        model.fit(x, x[:, :2], batch_size=8, verbose=0)
    else:
        model(x, training=True)
        model.optimizer.build(model.trainable_variables)
    return model


def state(model):
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    values = {id(v): v.numpy().tobytes() for v in variables}
    for name, written in (("bn", ("moving_mean", "moving_variance")), ("renorm", ("moving_stddev",))):
        layer = model.get_layer(name)
        for each in {*written, "moving_mean", "moving_variance"}:
            values.pop(id(getattr(layer, each)))
    return values


def statistics(model):
    return [v.numpy().tobytes() for name in ("bn", "renorm") for v in model.get_layer(name).non_trainable_variables]


def random_state():
    with_effect = random.getstate(), [np.asarray(part).tobytes() for part in np.random.get_state()]
    draw = tf.function(lambda: keras.random.uniform(())).get_concrete_function()
    random.setstate(with_effect[0])
    return with_effect, [variable.numpy().tobytes() for variable in draw.variables]


@pytest.mark.parametrize("layer_class", first_of(CLASSES))
def test_nothing_else_changes(layer_class):
    model = trained(layer_class, fit=True)
    before = state(model), random_state()
    attributes = {id(layer): set(vars(layer)) for layer in model.layers}
    old, step = statistics(model), model.train_function
    found = recalibrate(model, Raising(None))
    assert (state(model), random_state()) == before and statistics(model) != old
    assert found.batches == 10 and model.train_function is step and model.predict_function is None
    assert attributes == {id(layer): set(vars(layer)) for layer in model.layers}
    bn = model.get_layer("renorm")
    np.testing.assert_allclose(bn.moving_stddev.numpy() ** 2, bn.moving_variance + bn.epsilon, rtol=1e-5)
    model.fit(np.ones((8, 6)), np.ones((8, 2)), verbose=0)


@pytest.mark.parametrize("error", [RuntimeError("no more"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_nothing_changes_if_the_data_raise(error, monkeypatch):
    model = trained()
    before = state(model), statistics(model), random_state()
    if isinstance(error, KeyboardInterrupt):  # TensorFlow's threads would make another error of it
        calls = []

        def interrupt(*args):
            calls.append(1)
            if len(calls) == 3:
                raise error
            return function(*args)

        monkeypatch.setattr(keras.callbacks.CallbackList, "on_predict_batch_end", interrupt, raising=True)
        function = lambda *args: None  # noqa: E731
        with pytest.raises(KeyboardInterrupt):
            recalibrate(model, Raising(None))
        assert len(calls) == 3
    else:
        with pytest.raises((RuntimeError, tf.errors.OpError), match="no more"):
            recalibrate(model, Raising(error))
    assert (state(model), statistics(model), random_state()) == before
    assert not any("call" in vars(layer) for layer in model.layers)


def test_data_that_end_early_count_for_what_they_are():
    model = trained()
    before = state(model), random_state()
    x = RANDOM.normal(size=(17, 6)).astype("float32")
    with pytest.warns(UserWarning, match="ran out of data"):
        found = recalibrate(model, batches(x), steps=9)
    assert (found.batches, found.samples) == (4, 17) and (state(model), random_state()) == before


def test_values_that_are_not_finite_change_nothing():
    model = trained()
    before = state(model), statistics(model)
    x = RANDOM.normal(size=(16, 6)).astype("float32")
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"finite values. Received: values that are not, in 8 of 8 channels of .*bn'"):
        recalibrate(model, x)
    assert (state(model), statistics(model)) == before


# Data and arguments


@pytest.mark.parametrize("kind", ["array", "tensor", "tuple", "dictionary", "dataset", "PyDataset", "generator"])
def test_data(kind):
    x = RANDOM.normal(2.0, 3.0, (20, 3)).astype("float32")
    y = np.zeros(20)

    class Sequence(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return x[5 * i : 5 * i + 5], y[5 * i : 5 * i + 5]

    data = {
        "array": x,
        "tensor": tf.constant(x),
        "tuple": (x, y, y),
        "dictionary": {"values": x},
        "dataset": batches(x, y, sizes=(5, 5, 5, 5)),
        "PyDataset": Sequence(),
        "generator": (Sequence()[i] for i in range(4)),
    }[kind]
    inputs = keras.Input((3,), name="values")
    layer = BatchNorm()
    model = keras.Model({"values": inputs} if kind == "dictionary" else inputs, layer(inputs))
    found = recalibrate(model, data, batch_size=5)
    assert (found.batches, found.samples) == (4, 20)
    assert_statistics(layer, *population(x, 0))
    if kind != "generator":
        few = recalibrate(model, data, steps=2, batch_size=5)
        assert (few.batches, few.samples) == (2, 10)


def test_arrays_are_shuffled():
    """Sorted data would give batches unlike those of training: each of one value here, which normalizes to 0."""
    x = np.repeat(np.arange(8.0), 8)[:, np.newaxis]
    second = BatchNorm()
    recalibrate(keras.Sequential([keras.Input((1,)), BatchNorm(), second]), x, batch_size=8)
    assert 0.8 < float(second.moving_variance[0]) < 1.2


def test_report():
    layer = BatchNorm(name="bn", epsilon=0.0)
    model = keras.Sequential([keras.Input((2,)), layer], name="model")
    x = np.array([[0.0, 0.0], [2.0, 8.0], [4.0, 16.0]])
    layer.moving_mean.assign([2.0, 0.0])
    layer.moving_variance.assign([4.0, 16.0])
    found = recalibrate(model, x)
    (each,) = found.layers
    assert each.layer == "model/bn" and each.values == 3
    np.testing.assert_allclose([each.mean, each.variance], [[2, 8], [4, 64]])
    np.testing.assert_allclose([each.shift, each.stretch], [[0, -1], [1, 0.5]])
    assert str(found).splitlines() == [
        "3 samples in 1 batches",
        "layer     values  mean off by (sigmas)  sigma times",
        "--------  ------  --------------------  -----------",
        "model/bn  3       1                     0.5 to 1",
    ]


def test_progress_bar(capsys):
    model = keras.Sequential([keras.Input((3,)), BatchNorm()])
    recalibrate(model, np.ones((8, 3)), batch_size=2, verbose=1)
    assert "4/4" in capsys.readouterr().out
    recalibrate(model, np.ones((8, 3)), batch_size=2)
    assert capsys.readouterr().out == ""


def no_norm():
    return keras.Sequential([keras.Input((3,)), L.Dense(2)], name="plain")


def all_frozen():
    model = keras.Sequential([keras.Input((3,)), BatchNorm(name="bn")], name="frozen")
    model.trainable = False
    return model


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (no_norm, {}, r"`model` must have a BatchNormalization.*Received: 'plain', which has none"),
        (all_frozen, {}, r"that is not frozen. Received: 'frozen', in which all 1 are. Name.*layers='bn'"),
        (all_frozen, {"layers": "nb"}, r"`layers`.*Received: layers='nb'; there is no 'nb'. Batch norm.*\['bn'\]"),
        (all_frozen, {"layers": lambda layer: False}, r"`layers` must mean at least one.*none of \['bn'\]"),
        (all_frozen, {"layers": "bn", "steps": 0}, r"`steps` must be an integer not below 1. Received: steps=0"),
        (all_frozen, {"layers": "bn", "batch_size": 0}, r"`batch_size`.*Received: batch_size=0"),
        (lambda: keras.Sequential([BatchNorm()], name="raw"), {}, r"must be built.*Received: 'raw'"),
    ],
)
def test_arguments(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        recalibrate(make(), np.ones((4, 3)), **arguments)


def test_data_without_a_batch():
    model = keras.Sequential([keras.Input((3,)), BatchNorm()])
    with pytest.raises(ValueError, match=r"`data` must give at least one batch.*Received: arrays of 0 examples"):
        recalibrate(model, np.ones((0, 3)))
    nothing = tf.data.Dataset.from_tensor_slices(np.ones((8, 3))).batch(2).filter(lambda x: False)
    with pytest.warns(UserWarning, match="ran out of data"), pytest.raises(ValueError, match="at least one batch"):
        recalibrate(model, nothing, steps=2)
    with pytest.raises(ValueError, match=r"Received: \['batch_normalization.*'\], which got none"):
        masked = keras.Sequential([keras.Input((2, 3)), L.Masking(1.0), BatchNorm()])
        recalibrate(masked, np.ones((4, 2, 3)))


class WithoutTraining(kerasbn.BatchNorm):
    """Normalizes with the batch whatever the mode is."""

    def call(self, inputs, mask=None):
        return super().call(inputs, training=True, mask=mask)


class WithKeywords(kerasbn.BatchNorm):
    def call(self, inputs, *args, **kwargs):
        return super().call(inputs, *args, **kwargs)


class OfKeras(L.BatchNormalization):
    def call(self, x, mask=None):
        return super().call(x, training=True, mask=mask)


@pytest.mark.parametrize(("own", "layers"), crossed([WithoutTraining, WithKeywords, OfKeras], [None, "bn"]))
def test_classes_whose_call_has_no_training(own, layers):
    model = keras.Sequential([keras.Input((3,)), own(name="bn"), L.Dense(1)])
    x = np.random.default_rng(0).normal(5.0, 2.0, (64, 3)).astype("float32")
    before = kerasbn.diagnose(model, x, layers=layers)
    assert [finding.kind for finding in before.findings] == ["moving statistics"]
    found = kerasbn.recalibrate(model, x, layers=layers)
    assert found.layers[0].values == 64
    np.testing.assert_allclose(model.layers[0].moving_mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.layers[0].moving_variance, x.var(0, ddof=1), rtol=1e-5)
    assert kerasbn.diagnose(model, x, layers=layers).healthy


def test_other_classes_whose_call_has_no_training_stay_where_layers_are_named():
    x = np.random.default_rng(0).normal(5.0, 2.0, (64, 3)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), WithoutTraining(name="first"), kerasbn.BatchNorm(name="second")])
    kerasbn.recalibrate(model, x, layers="second")
    first, second = model.layers
    np.testing.assert_array_equal(first.moving_mean, np.zeros(3))
    # The first one is in inference mode, in which it does next to nothing here.
    np.testing.assert_allclose(second.moving_mean, x.mean(0) / np.sqrt(1.001), rtol=1e-5)


def test_a_mask_that_a_class_with_keywords_is_called_with():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.bn = WithKeywords(name="bn")

        def call(self, x, training=False):
            return self.bn(x, training=training, mask=x[..., 0] > 5)

    x = np.random.default_rng(0).normal(5.0, 2.0, (64, 4, 3)).astype("float32")
    own = Own()
    own(x)
    found = kerasbn.recalibrate(own, x)
    assert found.layers[0].values == np.count_nonzero(x[..., 0] > 5)
    np.testing.assert_allclose(own.bn.moving_mean, x[x[..., 0] > 5].mean(0), rtol=1e-5)
