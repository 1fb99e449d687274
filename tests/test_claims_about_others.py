"""What the documents say about tf_keras, PyTorch, flax and timm, for each of them that is installed.

kerasbn needs none of them, so the tests of a library that is missing are skipped, and its name is in the reason:
``pip install tf_keras torch flax timm`` runs them all. Errors at a large mean: `python -m benchmarks.large_mean`.
"""

import numpy as np
import pytest

X = np.random.default_rng(0).normal(3.0, 2.0, size=(8, 4)).astype("float32")
MASK = np.arange(8) < 5
UNBIASED = X.var(0) * 8 / 7


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def tf_keras():
    return pytest.importorskip("tf_keras")


@pytest.fixture
def linen():
    return pytest.importorskip("flax").linen


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


# PyTorch: docs/comparison.md, docs/serving.md, docs/faq.md, `kerasbn.from_torch_state`


def test_torch_defaults_and_update(torch):
    """momentum 0.1 is the share of the new value, epsilon 1e-5, the moving variance is unbiased."""
    layer = torch.nn.BatchNorm1d(4)
    assert (layer.momentum, layer.eps) == (0.1, 1e-5)
    layer(torch.tensor(X))
    np.testing.assert_allclose(layer.running_mean, 0.1 * X.mean(0), rtol=1e-4)
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * UNBIASED, rtol=1e-4)


def test_torch_momentum_none_is_the_plain_average(torch):
    layer = torch.nn.BatchNorm1d(4, momentum=None)
    for batch in (X, 3 * X):
        layer(torch.tensor(batch))
    np.testing.assert_allclose(layer.running_mean, 2 * X.mean(0), rtol=1e-4)
    assert int(layer.num_batches_tracked) == 2


def test_torch_names_of_a_state(torch):
    state = torch.nn.Sequential(torch.nn.BatchNorm1d(4)).state_dict()
    assert list(state) == [f"0.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


def test_torch_has_no_masks_and_synchronizes_on_accelerators_only(torch):
    with pytest.raises(TypeError):
        torch.nn.BatchNorm1d(4)(torch.tensor(X), mask=torch.tensor(MASK))
    with pytest.raises((ValueError, RuntimeError)):
        torch.nn.SyncBatchNorm(4)(torch.tensor(X))


def test_torch_has_groups_of_processes_population_statistics_and_folding_of_a_pair(torch):
    assert torch.nn.SyncBatchNorm(4, process_group=None).process_group is None
    layer = torch.nn.BatchNorm1d(4)
    torch.optim.swa_utils.update_bn([torch.tensor(X), torch.tensor(3 * X)], layer)
    np.testing.assert_allclose(layer.running_mean, 2 * X.mean(0), rtol=1e-4)  # the average over batches
    fused = torch.nn.utils.fuse_conv_bn_eval(torch.nn.Conv2d(3, 4, 1).eval(), torch.nn.BatchNorm2d(4).eval())
    assert isinstance(fused, torch.nn.Conv2d)


# tf_keras: docs/comparison.md


def test_tf_keras_axes_renorm_and_virtual_batches(tf_keras):
    images = np.random.default_rng(0).normal(size=(6, 2, 3, 4)).astype("float32")
    layer = tf_keras.layers.BatchNormalization(axis=[1, 2, 3], momentum=0.0)
    layer(images, training=True)
    np.testing.assert_allclose(np.squeeze(layer.moving_mean), images.mean(0), atol=1e-5)
    assert tf_keras.layers.BatchNormalization(renorm=True).renorm
    layer = tf_keras.layers.BatchNormalization(virtual_batch_size=4)
    assert layer(images[:4], training=True).shape == (4, 2, 3, 4)
    with pytest.raises(Exception, match=r"(?i)reshape|divi"):  # 4 does not divide 6
        layer(images, training=True)


def test_tf_keras_masks(tf_keras):
    layer = tf_keras.layers.BatchNormalization(momentum=0.0, fused=False)
    layer(X[:, None], training=True, mask=MASK[:, None])
    np.testing.assert_allclose(layer.moving_mean, X[MASK].mean(0), rtol=1e-3)


def test_tf_keras_needs_a_momentum(tf_keras):
    with pytest.raises((TypeError, ValueError)):
        tf_keras.layers.BatchNormalization(momentum=None)(X, training=True)


# flax: docs/comparison.md, docs/serving.md, docs/faq.md


def trained(linen, x=X, **arguments):
    import jax

    layer = linen.BatchNorm(use_running_average=False, **arguments)
    variables = layer.init(jax.random.key(0), x)
    return layer.apply(variables, x, mutable=["batch_stats"])


def test_flax_defaults_and_update(linen):
    """momentum 0.99 is the share of the old value, epsilon 1e-5, the moving variance is biased."""
    assert (linen.BatchNorm.momentum, linen.BatchNorm.epsilon) == (0.99, 1e-5)
    _, state = trained(linen)
    assert set(state["batch_stats"]) == {"mean", "var"}
    np.testing.assert_allclose(state["batch_stats"]["mean"], 0.01 * X.mean(0), rtol=1e-3)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.99 + 0.01 * X.var(0), rtol=1e-3)


def test_flax_masks_axes_and_the_slow_variance(linen):
    import jax

    layer = linen.BatchNorm(use_running_average=False, momentum=0.0)
    _, state = layer.apply(layer.init(jax.random.key(0), X), X, mask=MASK[:, None], mutable=["batch_stats"])
    np.testing.assert_allclose(state["batch_stats"]["mean"], X[MASK].mean(0), rtol=1e-3)
    images = np.random.default_rng(0).normal(size=(6, 2, 3, 4)).astype("float32")
    _, state = trained(linen, images, axis=(1, 2, 3), momentum=0.0)
    np.testing.assert_allclose(state["batch_stats"]["mean"], images.mean(0), atol=1e-5)
    far = (np.random.default_rng(0).normal(size=(2000, 4)) + 1e4).astype("float32")
    wide = far.astype("float64")
    wanted = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
    errors = [np.abs(trained(linen, far, use_fast_variance=fast)[0] - wanted).max() for fast in (True, False)]
    assert errors[0] > 1 > 0.01 > errors[1]


def test_flax_over_devices_is_a_mean_of_means_and_has_groups(linen):
    assert linen.BatchNorm.axis_name is None and linen.BatchNorm.axis_index_groups is None
    import jax

    layer = linen.BatchNorm(use_running_average=False, momentum=0.0, axis_name="replica")
    variables = layer.init(jax.random.key(0), X[:4])
    mask = np.array([[True] * 4, [True, False, False, False]])

    def step(x, mask):
        return layer.apply(variables, x, mask=mask[:, None], mutable=["batch_stats"])[1]["batch_stats"]["mean"]

    found = jax.vmap(step, axis_name="replica")(X.reshape(2, 4, 4), mask)
    np.testing.assert_allclose(found[0], (X[:4].mean(0) + X[4]) / 2, rtol=1e-3)  # 4 values and 1 weigh the same


# timm: docs/comparison.md


def test_timm_activation_and_split_batches(timm, torch):
    import timm.layers as layers

    layer = layers.BatchNormAct2d(4, act_layer=torch.nn.ReLU)
    assert isinstance(layer, torch.nn.BatchNorm2d)
    assert float(layer(torch.randn(3, 4, 2, 2)).min()) >= 0
    split = layers.SplitBatchNorm2d(4, num_splits=2)
    assert len(split.aux_bn) == 1 and split.aux_bn[0].weight is not split.weight  # parameters of their own
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    frozen = layers.freeze_batch_norm_2d(model)
    assert not isinstance(frozen[1], torch.nn.BatchNorm2d)
