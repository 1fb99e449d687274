"""`from_torch_state`: PyTorch's outputs from Keras's layers, before and after a step."""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, from_torch_state

L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(2.0, 3.0, (8, 4)).astype("float32")


def state_of(*modules, size=4, **parts):
    """A state with weights that no initializer gives."""
    values = {"weight": 1.5, "bias": 0.5, "running_mean": -1.0, "running_var": 4.0} | parts
    arrays = {part: RANDOM.random(size) + value for part, value in values.items() if value is not None}
    counted = {f"{module}.num_batches_tracked": np.int64(7) for module in modules}
    return {f"{module}.{part}": array for module in modules for part, array in arrays.items()} | counted


def model_with(*norms):
    return keras.Sequential([keras.Input((4,)), *norms])


@pytest.mark.parametrize("momentum", [0.1, 0.25, None])
@pytest.mark.parametrize("affine", [True, False])
def test_outputs_and_statistics_of_pytorch(momentum, affine):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    network = torch.nn.Sequential(
        torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4, eps=0.01, momentum=momentum, affine=affine)
    )
    if affine:
        torch.nn.init.uniform_(network[1].weight, 0.5, 1.5)
        torch.nn.init.uniform_(network[1].bias)
    x = torch.tensor(X)
    network(x)  # a step of training
    dense = L.Dense(4)
    model = model_with(dense, BatchNorm(unbiased=True, momentum=0.9 if momentum else None))
    linear = network[0].state_dict()
    dense.set_weights([linear["weight"].numpy().T, linear["bias"].numpy()])
    new = from_torch_state(model, network.state_dict(), momentum=momentum, epsilon=0.01)
    for _ in range(2):
        network.eval()
        np.testing.assert_allclose(new(X), network(x).detach().numpy(), rtol=1e-4, atol=1e-5)
        network.train()
        np.testing.assert_allclose(new(X, training=True), network(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new.layers[1].moving_mean, network[1].running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(new.layers[1].moving_variance, network[1].running_var.numpy(), rtol=1e-5)


@pytest.mark.parametrize("layer_class", [L.BatchNormalization, BatchNorm])
def test_each_number_gets_where_it_belongs(layer_class, tmp_path):
    state = state_of("bn1", "head.bn")
    np.savez(tmp_path / "state.npz", **state)
    nested = keras.Sequential([keras.Input((4,)), layer_class(name="inner", renorm=True)], name="nested")
    model = model_with(layer_class(name="first", momentum=0.5), nested)
    before = model.get_weights()
    for source in (state, tmp_path / "state.npz", str(tmp_path / "state.npz")):
        new = from_torch_state(model, source, momentum=0.3, epsilon=0.02)
        for layer, module in ((new.layers[0], "bn1"), (new.layers[1].layers[0], "head.bn")):
            assert type(layer) is layer_class and layer.momentum == 0.7 and layer.epsilon == 0.02
            for name, part in (("gamma", "weight"), ("beta", "bias"), ("moving_mean", "running_mean")):
                np.testing.assert_allclose(getattr(layer, name), state[f"{module}.{part}"], rtol=1e-6)
            np.testing.assert_allclose(layer.moving_variance, state[f"{module}.running_var"], rtol=1e-6)
        np.testing.assert_allclose(layer.moving_stddev, np.sqrt(layer.moving_variance.numpy() + 0.02), rtol=1e-6)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_names():
    state = state_of("a", "b", "c")
    model = model_with(L.BatchNormalization(name="x"), BatchNorm(name="y", epsilon=0.5))
    new = from_torch_state(model, state, {"x": "c"})
    np.testing.assert_allclose(new.get_layer("x").moving_mean, state["c.running_mean"], rtol=1e-6)
    np.testing.assert_array_equal(new.get_layer("y").moving_mean, np.zeros(4))
    assert new.get_layer("y").epsilon == 0.5 and type(new.get_layer("y")) is BatchNorm


def test_a_network_that_is_a_normalization():
    new = from_torch_state(model_with(BatchNorm()), {"running_mean": X[0], "running_var": X[1] ** 2})
    np.testing.assert_array_equal(new.layers[0].moving_mean, X[0])


def test_what_one_side_lacks():
    without = state_of("bn", weight=None, bias=None)
    new = from_torch_state(
        model_with(L.BatchNormalization(gamma_initializer="zeros", beta_initializer="ones")), without
    )
    np.testing.assert_array_equal(new.layers[0].gamma, np.ones(4))
    np.testing.assert_array_equal(new.layers[0].beta, np.zeros(4))
    from_torch_state(model_with(L.BatchNormalization(scale=False, center=False)), without)
    with pytest.raises(ValueError, match=r"'bn' must have a gamma, as 'bn' has. Received: a layer without, 4 values"):
        from_torch_state(model_with(L.BatchNormalization(name="bn", scale=False)), state_of("bn"))


def test_the_count_of_batches():
    new = from_torch_state(model_with(BatchNorm()), state_of("bn"), momentum=None)
    np.testing.assert_array_equal(new.layers[0].moving_count, [7, 7, 7, 7])
    with pytest.raises(
        ValueError, match=r"`momentum` must be a number for layers of Keras, as is 'bn'.*kerasbn.convert"
    ):
        from_torch_state(model_with(L.BatchNormalization(name="bn")), state_of("bn"), momentum=None)


@pytest.mark.parametrize(
    ("state", "arguments", "message"),
    [
        (
            state_of("a", "b"),
            {},
            r"`names` must say.*1 layers, \['bn'\], and 2 modules, \['a', 'b'\]. Received: names=N",
        ),
        (state_of("a"), {"names": {"nb": "a"}}, r"`names` must lead.*\['bn'\].*\['a'\]. Received: 'nb': 'a'"),
        (state_of("a"), {"names": {"bn": "b"}}, r"`names` must lead.*Received: 'bn': 'b'"),
        (
            state_of("a", size=3),
            {},
            r"'bn' must have as many channels as 'a'. Received: gamma of shape \(3,\) for.*\(4,\)",
        ),
        ({"a.weight": X}, {}, r"`state` must have the running statistics.*Received: \['a.weight'\]"),
        (state_of("a"), {"momentum": 1.5}, r"`momentum`.*Received: momentum=1.5"),
        (state_of("a"), {"epsilon": -1}, r"`epsilon`.*Received: epsilon=-1"),
        (None, {}, r"`state` must be a dictionary of arrays.*class NoneType"),
        (state_of("a"), {"names": ["bn"]}, r"`names` must be a dictionary.*class list"),
    ],
)
def test_arguments(state, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        from_torch_state(model_with(BatchNorm(name="bn")), state, **arguments)


def test_no_pickle_is_loaded(tmp_path):
    np.savez(tmp_path / "state.npz", running_mean=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        from_torch_state(model_with(BatchNorm()), tmp_path / "state.npz")


def test_layers_within_others_are_refused():
    model = keras.Sequential([keras.Input((5, 4)), L.TimeDistributed(BatchNorm(name="bn"))])
    with pytest.raises(
        ValueError, match=r"must have its normalizations in functional.*Received: \['bn'\], which are w"
    ):
        from_torch_state(model, state_of("bn"))


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="must be built"):
        from_torch_state(keras.Sequential([BatchNorm(name="bn")]), state_of("bn"))


def test_training_with_renorm_goes_on_from_the_statistics():
    """What corrects a batch is what PyTorch's network has seen, as if it had been trained here."""
    state = state_of("bn")
    model = from_torch_state(model_with(BatchNorm(name="bn", renorm=True)), state)
    layer = model.get_layer("bn")
    np.testing.assert_allclose(layer.renorm_mean, state["bn.running_mean"], rtol=1e-6)
    stddev = np.sqrt(np.asarray(state["bn.running_var"]) + layer.epsilon)
    np.testing.assert_allclose(layer.renorm_stddev, stddev, rtol=1e-6)
    np.testing.assert_allclose(layer.moving_stddev, stddev, rtol=1e-6)
