"""`batch_normalize`: where normalization goes, where it does not, and what is kept."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasbn import BatchNorm, batch_normalize
from kerasbn.transforms import replace_activations
from tests.crossing import crossed
from tests.transforms.models import (
    MODELS,
    Block,
    Python,
    all_layers,
    autoencoder,
    custom,
    frozen,
    images,
    inputs_of,
    masked_sequence,
    mixed_precision,
    nested,
    normalized_already,
    residual,
    sequential,
    several_inputs_and_outputs,
    shared,
    with_random_weights,
    without_input_shape,
)

L = keras.layers


def assert_close(a, b, tolerance):
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), a, b)


def normalized(model, **arguments):
    """The paths of what is normalized, with those of the layers that were split off."""
    new = batch_normalize(model, **arguments)
    return {path for path in all_layers(new) if path not in all_layers(model)}


@pytest.mark.parametrize(
    ("make", "before", "after"),
    [
        (sequential, {"hidden_bn", "hidden_activation"}, {"hidden_bn"}),
        (without_input_shape, {"hidden_bn", "hidden_activation"}, {"hidden_bn"}),
        (
            images,
            {"conv_bn"} | {f"{n}_{s}" for n in ("depthwise", "separable", "transposed") for s in ("bn", "activation")},
            {"relu_bn", "depthwise_bn", "separable_bn", "transposed_bn"},
        ),
        (
            residual,
            {"conv1a_bn", "conv1a_activation", "conv1b_bn", "conv2a_bn", "conv2a_activation", "conv2b_bn"},
            {"conv1a_bn", "relu1_bn", "conv2a_bn", "relu2_bn"},
        ),
        (
            nested,
            {"backbone/hidden_bn", "backbone/hidden_activation", "backbone/linear_bn", "head/hidden_bn"},
            {"backbone/hidden_bn", "relu_bn", "head/relu_bn"},
        ),
        (
            several_inputs_and_outputs,
            {"dense_a_bn", "dense_a_activation", "conv_b_bn", "conv_b_activation", "joint_bn"},
            {"dense_a_bn", "conv_b_bn", "relu_bn"},
        ),
        (
            masked_sequence,
            {"each_bn", "each_activation", "dense_bn", "dense_activation"},
            {"each_bn", "dense_bn"},
        ),
        (
            autoencoder,
            {"decoder/hidden_bn", "decoder/hidden_activation"},  # twice the result of encoder/first is an output
            {"decoder/hidden_bn"},
        ),
        (
            custom,
            {f"{n}_{s}" for n in ("custom_activation", "layer_as_activation") for s in ("bn", "activation")},
            {"custom_activation_bn", "layer_as_activation_bn"},
        ),
        (frozen, {"backbone/linear_bn"}, {"relu_bn"}),
        (mixed_precision, {"half_bn", "half_activation", "linear_bn"}, {"half_bn", "relu_bn"}),
        (normalized_already, set(), set()),
        (shared, {"tower_bn", "tower_activation", "encoder/tied_bn", "tied_bn"}, None),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_where(make, before, after):
    keras.backend.clear_session()  # operations of `keras.ops` are named by how many there were before
    model = make()
    assert normalized(model) == before
    if after is not None:
        assert normalized(model, where="post_activation") == after


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_with_statistics_of_identity_only_the_bias_is_missing(make):
    """With mean 0, variance 1 and no epsilon the network is the old one without the biases."""
    model = with_random_weights(make())
    new = batch_normalize(model, epsilon=0.0)
    layers, new_layers = all_layers(model), all_layers(new)
    without_bias = set()
    for path, layer in layers.items():
        if f"{path}_bn" in new_layers:
            inner = getattr(layer, "layer", layer)
            without_bias.add("/".join(inner.bias.path.split("/")[:-1]))
            inner.bias.assign(0 * inner.bias)
    carried = {weight.path: weight for weight in new.weights}
    for weight in model.weights:
        dropped = weight.name == "bias" and "/".join(weight.path.split("/")[:-1]) in without_bias
        assert (weight.path not in carried) == dropped, weight.path
        if not dropped:
            np.testing.assert_array_equal(carried[weight.path], weight)
    x = inputs_of(model)
    tolerance = 2e-2 if make is mixed_precision else 1e-4
    assert_close(new(x, training=False), model(x, training=False), tolerance)


@pytest.mark.parametrize("make", [m for m in MODELS if m is not shared], ids=lambda make: make.__name__)
def test_after_the_activation_nothing_else_changes(make):
    model = with_random_weights(make())
    new = batch_normalize(model, "post_activation", epsilon=0.0)
    x = inputs_of(model)
    assert_close(new(x, training=False), model(x, training=False), 1e-5)


@pytest.mark.parametrize(
    ("make", "where"), crossed([m for m in MODELS if m is not shared], ["pre_activation", "post_activation"])
)
def test_twice_is_once(make, where):
    once = batch_normalize(make(), where)
    changes = []
    twice = batch_normalize(once, where, changes=changes)
    assert changes == [] and list(all_layers(twice)) == list(all_layers(once))


def test_order_and_settings():
    model = batch_normalize(images(), momentum=0.8, synchronized=True)
    names = [layer.name for layer in model.layers]
    assert names[:7] == ["brightness", "conv", "conv_bn", "relu", "depthwise", "depthwise_bn", "depthwise_activation"]
    for layer in model.layers:
        if isinstance(layer, BatchNorm):
            assert layer.momentum == 0.8 and layer.synchronized and layer.axis == -1
    for name in ("conv", "depthwise", "separable", "transposed"):
        assert not model.get_layer(name).use_bias
        assert model.get_layer(name).activation is keras.activations.linear
    assert model.get_layer("probabilities").use_bias
    assert model.get_layer("conv").kernel_regularizer.l2 == pytest.approx(0.01)


def test_changes():
    changes = []
    batch_normalize(nested(), changes=changes)
    assert [str(change) for change in changes] == [
        "backbone/hidden: normalization None -> layer hidden_bn",
        "backbone/hidden: use_bias True -> False",
        "backbone/hidden: activation relu -> layer hidden_activation",
        "backbone/linear: normalization None -> layer linear_bn",
        "backbone/linear: use_bias True -> False",
        "head/hidden: normalization None -> layer hidden_bn",
        "head/hidden: use_bias True -> False",
    ]


@pytest.mark.parametrize("where", ["pre_activation", "post_activation"])
def test_channels_first(where):
    layers = [
        L.Conv2D(4, 3, data_format="channels_first", activation="relu", name="fused"),
        L.Conv2D(5, 3, data_format="channels_first", name="linear"),
        L.Dropout(0.1),
        L.ReLU(name="relu"),
        L.Flatten(),
        L.Dense(6, activation="relu", name="dense"),
        L.Dense(2, name="logits"),
    ]
    new = batch_normalize(keras.Sequential([keras.Input((3, 8, 8)), *layers]), where)
    found = {layer.name: (layer.axis, layer.gamma.shape[0]) for layer in new.layers if isinstance(layer, BatchNorm)}
    last = "linear_bn" if where == "pre_activation" else "relu_bn"
    assert found == {"fused_bn": (1, 4), last: (1, 5), "dense_bn": (-1, 6)}


def test_channels_first_at_each_time_step():
    inner = L.Conv2D(4, 3, data_format="channels_first", activation="relu")
    model = keras.Sequential([keras.Input((5, 3, 8, 8)), L.TimeDistributed(inner, name="each"), L.GlobalMaxPooling3D()])
    model.add(L.Dense(2))
    assert batch_normalize(model).get_layer("each_bn").axis == 2
    assert batch_normalize(model, axis=[1, 2]).get_layer("each_bn").gamma.shape == (5, 4)


@pytest.mark.parametrize(
    "layer",
    [
        L.Conv1D(3, 2),
        L.Conv3D(3, 2),
        L.Conv1DTranspose(3, 2),
        L.Conv3DTranspose(3, 2),
        L.DepthwiseConv1D(2),
        L.SeparableConv1D(3, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_kind_of_convolution(layer):
    rank = 3 if "3D" in type(layer).__name__ else 1
    model = keras.Sequential([keras.Input((6,) * rank + (2,)), layer, L.LeakyReLU(), L.Flatten(), L.Dense(1)])
    model = batch_normalize(model)
    assert isinstance(model.layers[1], BatchNorm) and not model.layers[0].use_bias


@pytest.mark.parametrize(
    "nonlinearity",
    [L.Activation("tanh"), L.ELU(), L.LeakyReLU(), L.PReLU(), L.ReLU(6.0), L.Softmax(), *map(
        keras.activations.get, ["relu", "relu6", "sigmoid", "silu", "gelu", "leaky_relu", "tanh", "log_softmax"]
    )],
    ids=lambda f: getattr(f, "name", getattr(f, "__name__", "")),
)  # fmt: skip
def test_every_kind_of_nonlinearity(nonlinearity):
    """As a layer, and as an operation of `keras.ops` in a functional model."""
    inputs = keras.Input((3,))
    x = nonlinearity(L.Dense(4, name="hidden")(inputs))
    assert normalized(keras.Model(inputs, L.Dense(1)(x))) == {"hidden_bn"}


def test_what_is_no_nonlinearity():
    inputs = keras.Input((3,))
    x = L.Activation("linear")(L.Dense(4)(inputs))
    x = keras.ops.relu(L.LayerNormalization()(L.Dense(4)(x)))
    x = L.Lambda(lambda x: x + 1.0)(L.Dense(4)(x))
    assert normalized(keras.Model(inputs, L.Dense(1)(x))) == set()


@pytest.mark.parametrize(
    "ending",
    [
        [L.Dense(2, activation="softmax")],
        [L.Dense(2), L.Activation("sigmoid")],
        [L.Dense(6), L.Reshape((3, 2)), L.Softmax(), L.Flatten()],
        [L.Dense(2, activation="relu"), L.Activation("linear", dtype="float32")],
        [L.Dense(2, activation="tanh"), L.Rescaling(2.0)],
        [L.Dense(6, activation="relu"), L.Reshape((3, 2)), L.GlobalAveragePooling1D(), L.Softmax()],
        [L.Dense(2), L.ReLU(), L.LayerNormalization()],
        [L.Dense(2, activation="relu"), L.PReLU(), L.Dropout(0.5)],
        [L.Dense(6, activation="relu"), L.Reshape((3, 2)), L.UpSampling1D(2), L.Cropping1D(1), L.ZeroPadding1D(1)],
        [L.Dense(2, activation="softplus"), L.UnitNormalization()],
    ],
    ids=["fused", "apart", "reshaped", "cast", "scaled", "pooled", "normed", "two", "upsampled", "unit length"],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_output_layers(ending, wrapped):
    """Also at the end of a nested model that is the end of the model."""
    layers = [keras.Input((3,)), *map(keras.layers.deserialize, map(keras.layers.serialize, ending))]
    model = keras.Sequential(layers)
    if wrapped:
        model = keras.Sequential([keras.Input((3,)), model])
    assert normalized(model) == set()


def images_in(*layers):
    """A network of `layers`, which may be operations, on images; after a convolution that is not its last."""
    x = inputs = keras.Input((8, 8, 3))
    for layer in (L.Conv2D(4, 3, activation="relu", name="hidden"), *layers):
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    "ending",
    [
        [L.Flatten(), L.Dense(1, "tanh", name="out"), lambda x: x * 2.0],
        [L.Flatten(), L.Dense(1, "tanh", name="out"), lambda x: 0.5 * (x + 1.0), L.Lambda(lambda x: 3.0 * x)],
        [L.Flatten(), L.Dense(3, name="out"), keras.ops.relu, lambda x: keras.ops.clip(x, 0, 5)],
        [L.Flatten(), L.Dense(4, name="out"), lambda x: x * keras.ops.sigmoid(x)],
        [L.Flatten(), L.Dense(4, "relu", name="out"), lambda x: x / keras.ops.sum(x, axis=-1, keepdims=True)],
        [L.Conv2D(5, 1, name="out"), L.GlobalAveragePooling2D(), L.Softmax()],
        [L.Conv2D(5, 1, activation="relu", name="out"), lambda x: keras.ops.mean(x, axis=(1, 2)), keras.ops.softmax],
        [L.Conv2D(1, 1, activation="sigmoid", name="out"), L.UpSampling2D(2)],
        [L.Conv2D(1, 1, activation="sigmoid", name="out"), L.Cropping2D(1)],
        [L.Conv2DTranspose(1, 1, activation="sigmoid", name="out"), L.Rescaling(255.0), L.Resizing(4, 4)],
        [L.Conv2D(8, 1, activation="relu", name="out"), L.MaxPooling2D(), lambda x: keras.ops.image.resize(x, (5, 5))],
        [L.Conv2D(4, 1, activation="relu", name="out"), lambda x: x[:, 1:-1] - x[:, :-2]],
    ],
    ids=lambda ending: type(ending[-1]).__name__,
)
def test_a_linear_layer_after_which_no_other_comes_is_the_output_layer(ending):
    model = images_in(*ending)
    for where in ("pre_activation", "post_activation"):
        new = batch_normalize(model, where)
        assert [layer.name for layer in new.layers if isinstance(layer, BatchNorm)] == ["hidden_bn"]
    assert new.get_layer("out").activation is model.get_layer("out").activation and new.get_layer("out").use_bias
    activations = [layer.activation.__name__ for layer in model.layers if layer.name == "out"]
    replaced = replace_activations(model, "elu")
    assert [layer.activation.__name__ for layer in replaced.layers if layer.name == "out"] == activations
    assert replaced.get_layer("hidden").activation is keras.activations.elu


@pytest.mark.parametrize(
    "after",
    [
        [L.LSTM(3)],
        [L.Bidirectional(L.GRU(3))],
        [L.EinsumDense("abc,cd->abd", (None, 2))],
        [lambda x: L.MultiHeadAttention(2, 2)(x, x)],
        [Block(3)],
        [L.TimeDistributed(keras.Sequential([keras.Input((4,)), L.Dense(2)]))],
        [L.SpectralNormalization(L.Conv1D(2, 1))],
    ],
    ids=lambda after: type(after[0]).__name__,
)
def test_a_layer_before_any_other_with_a_kernel_is_hidden(after):
    x = inputs = keras.Input((5, 3))
    for layer in (L.Dense(4, "relu", name="hidden"), *after):
        x = layer(x)
    assert "hidden_bn" in normalized(keras.Model(inputs, x))


def test_output_layers_of_several_outputs():
    """An actor whose action goes to the critic, too; a stage of a residual network; one layer for two outputs."""
    observation = keras.Input((3,))
    hidden = L.Dense(4, "relu", name="hidden")(observation)
    mean, deviation = L.Dense(2, "tanh", name="mean")(hidden) * 2.0, L.Dense(2, "softplus", name="deviation")(hidden)
    action = L.Concatenate()([mean, deviation])
    judged = L.Dense(4, "relu", name="critic")(L.Concatenate()([action, observation]))
    outputs = {"action": action, "value": L.Dense(1, name="value")(judged)}
    model = keras.Model(observation, outputs)
    assert normalized(model) == {f"{name}_{what}" for name in ("hidden", "critic") for what in ("bn", "activation")}
    shared = L.Dense(4, "relu", name="shared")
    model = keras.Model(observation, shared(shared(hidden)) + 1.0)
    assert normalized(model) == {"hidden_bn", "hidden_activation"}
    residual = keras.Model(observation, L.ReLU()(L.Add()([hidden, L.Dense(4, name="last")(hidden)])))
    assert normalized(residual) == {"hidden_bn", "hidden_activation"}


def test_the_end_of_a_cnn_over_frames_is_an_output_layer_if_nothing_with_a_kernel_follows():
    picture = keras.Input((6, 6, 2))
    x = L.Conv2D(4, 3, activation="relu", name="last")(L.Conv2D(3, 3, activation="relu", name="first")(picture))
    each = L.TimeDistributed(keras.Model(picture, L.GlobalAveragePooling2D()(x), name="cnn"), name="each")
    clip = keras.Input((3, 6, 6, 2))

    def found(end):
        new = batch_normalize(keras.Model(clip, end(each(clip))))
        return [layer.name for layer in new.get_layer("each").layer.layers if isinstance(layer, BatchNorm)]

    assert found(L.GlobalAveragePooling1D()) == ["first_bn"] and found(L.LSTM(2)) == ["first_bn", "last_bn"]


def test_a_result_that_one_of_its_users_normalizes():
    inputs = keras.Input((3,))
    x = L.Dense(4)(inputs)
    x = L.Add()([L.BatchNormalization()(x), L.ReLU()(x)])
    assert normalized(keras.Model(inputs, L.Dense(1)(x))) == set()


def test_an_output_that_is_used_further_stays_what_it_is():
    inputs = keras.Input((3,))
    feature = L.Dense(4, activation="relu", name="feature")(inputs)
    hidden = L.Dense(4, activation="relu", name="hidden")(feature)
    assert normalized(keras.Model(inputs, [feature, L.Dense(1)(hidden)])) == {"hidden_bn", "hidden_activation"}


def test_end_of_a_nested_model_whose_result_goes_on():
    """A nonlinearity may be outside of the model that its layer is in, or the other way round."""
    inner = keras.Sequential([keras.Input((3,)), L.Dense(3, name="linear")], name="inner")
    later = keras.Sequential([keras.Input((3,)), L.ReLU(), L.Dense(3, name="last")], name="later")
    inputs = keras.Input((3,))
    assert normalized(keras.Model(inputs, later(inner(inputs)))) == {"inner/linear_bn"}
    # Called twice, once before a nonlinearity and once as the output: an output is left alone.
    assert normalized(keras.Model(inputs, [later(inner(inputs)), inner(2 * inputs)])) == set()


def test_inputs_and_outputs_of_a_nested_model_are_told_apart():
    """Also in dictionaries whose keys are not sorted."""
    within = {"y": keras.Input((3,), name="y"), "x": keras.Input((3,), name="x")}
    outputs = {"t": L.Dense(2, name="t")(within["y"]), "s": L.Dense(2, name="s")(L.ReLU()(within["x"]))}
    inner = keras.Model(within, outputs, name="inner")
    inputs = keras.Input((3,))
    results = inner({"y": L.Dense(3, name="to_y")(inputs), "x": L.Dense(3, name="to_x")(inputs)})
    x = L.Concatenate()([L.ReLU()(results["t"]), L.LayerNormalization()(results["s"])])
    assert normalized(keras.Model(inputs, L.Dense(1)(x))) == {"to_x_bn", "inner/t_bn"}


def test_shared_layers_share_their_normalization():
    new = batch_normalize(shared())
    layers = all_layers(new)
    assert layers["tied_bn"] is layers["encoder/tied_bn"]
    # Two inputs, each through the tower; each of them through the tied layer twice.
    x = inputs_of(new)
    momentum = layers["tower_bn"].momentum
    layers["tower_bn"].moving_mean.assign([1, 1, 1, 1])
    layers["tower"].kernel.assign(0 * layers["tower"].kernel)
    new(x, training=True)
    np.testing.assert_allclose(layers["tower_bn"].moving_mean, momentum**2, rtol=1e-5)


def test_a_nonlinearity_shared_by_different_layers():
    relu = L.ReLU(name="relu")
    layers = [L.Dense(4, name="a"), relu, L.Dense(5, name="b"), relu, L.Dense(1)]
    inputs = x = keras.Input((3,))
    for layer in layers:
        x = layer(x)
    model = keras.Model(inputs, x)
    assert normalized(model) == {"a_bn", "b_bn"}
    with pytest.raises(ValueError, match="'relu' is called 2 times") as caught:
        batch_normalize(model, "post_activation")
    assert "where='pre_activation'" in str(caught.value)


def test_predicate():
    places = {"conv": True, "depthwise": "post_activation", "separable": None, "transposed": False}
    seen = []

    def where(layer):
        seen.append(layer.name)
        return places[layer.name]

    assert normalized(images(), where=where) == {"conv_bn", "depthwise_bn"}
    assert seen[:4] == list(places)


def test_a_name_that_is_taken():
    layers = [L.Dense(4, activation="relu", name="a"), L.Dense(4, name="a_bn"), L.Dense(1, name="a_activation")]
    new = batch_normalize(keras.Sequential([keras.Input((3,)), *layers]))
    assert [layer.name for layer in new.layers] == ["a", "a_bn_1", "a_activation_1", "a_bn", "a_activation"]


def test_masks_reach_the_normalization():
    model = batch_normalize(masked_sequence(), momentum=0.0)
    words = np.array([[1, 2, 3, 0, 0, 0, 0], [4, 5, 0, 0, 0, 0, 0]])
    model(words, training=True)
    each, embedding = model.get_layer("each"), model.get_layer("words_embedded")
    kernel = each.layer.kernel
    wanted = (np.asarray(embedding.embeddings)[[1, 2, 3, 4, 5]] @ np.asarray(kernel)).mean(0)
    np.testing.assert_allclose(model.get_layer("each_bn").moving_mean, wanted, rtol=1e-4, atol=1e-5)


def test_policies_are_those_of_the_layers():
    model = batch_normalize(mixed_precision())
    for name in ("half_bn", "half_activation", "linear_bn"):
        assert model.get_layer(name).dtype_policy.name == "mixed_bfloat16"
    assert model.get_layer("half_bn").gamma.dtype == "float32"


@pytest.mark.parametrize(
    ("make", "jit_compile"),
    [
        (several_inputs_and_outputs, False),
        pytest.param(residual, True, marks=pytest.mark.slow),
        pytest.param(mixed_precision, False, marks=pytest.mark.slow),
    ],
)
def test_training(make, jit_compile, tmp_path):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
    new = batch_normalize(model)
    x, random = inputs_of(new, 8), np.random.default_rng(0)
    y = keras.tree.map_structure(lambda output: random.random(output.shape), new(x))
    losses = new.fit(x, y, batch_size=8, epochs=6, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    new.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    keras.tree.map_structure(np.testing.assert_array_equal, loaded.predict(x, verbose=0), new.predict(x, verbose=0))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"where": "before"}, ["`where`", "'pre_activation', 'post_activation'", "where='before'"]),
        ({"where": lambda layer: "both"}, ["where('hidden')", "'post_activation', True, False, None", "'both'"]),
        ({"name": "bn"}, ["`name`", "name='bn'"]),
        ({"activation": "relu"}, ["`activation`", "activation='relu'"]),
        ({"momentum": 2.0}, ["`momentum`", "momentum=2.0"]),
        ({"momentun": 0.9}, ["momentun"]),
    ],
    ids=["where", "predicate", "name", "activation", "momentum", "unknown"],
)
def test_errors(arguments, parts):
    with pytest.raises(ValueError) as caught:
        batch_normalize(sequential(), **arguments)
    for part in parts:
        assert part in str(caught.value)


def test_layers_in_python_code_are_refused_by_name():
    inputs = keras.Input((4,))
    x = L.Dense(3, activation="relu", name="dense")(Python(name="inner")(inputs))
    model = keras.Model(inputs, L.Dense(2)(x))
    with pytest.raises(ValueError, match="'hidden' of class Dense is in 'inner'") as caught:
        batch_normalize(model)
    assert "class Python" in str(caught.value) and "functional API" in str(caught.value)
    # As the message proposes:
    left_alone = batch_normalize(model, lambda layer: not isinstance(layer, keras.Model))
    assert left_alone.get_layer("dense_bn") and isinstance(left_alone.get_layer("inner"), Python)


KINDS = {
    "fused": lambda n: [L.Dense(n, activation="relu")],
    "apart": lambda n: [L.Dense(n), L.ReLU()],
    "linear": lambda n: [L.Dense(n)],
    "normalized": lambda n: [L.Dense(n), L.BatchNormalization(), L.ReLU()],
    "dropout": lambda n: [L.Dense(n), L.Dropout(0.5), L.Activation("tanh")],
}


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(1, 4)), max_size=5), st.booleans())
def test_any_stack(stack, as_sequential):
    """Each layer with a nonlinearity is normalized once, and no other; in a functional model as in a Sequential."""
    layers = [keras.Input((3,)), *(layer for kind, n in stack for layer in KINDS[kind](n)), L.Dense(2)]
    model = keras.Sequential(layers)
    if not as_sequential:
        x = inputs = keras.Input((3,))
        for layer in model.layers:
            x = layer(x)
        model = keras.Model(inputs, x)
    new = batch_normalize(model)
    added = sum(type(layer) is BatchNorm for layer in new.layers)
    assert added == sum(kind in ("fused", "apart", "dropout") for kind, _ in stack)
    assert new(np.ones((2, 3))).shape == (2, 2)
