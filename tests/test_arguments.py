"""Bad input: the error names the argument, says what is allowed and shows what came."""

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn import BatchNorm

X = np.ones((4, 5, 3), "float32")


@pytest.mark.parametrize(
    ("settings", "error", "parts"),
    [
        ({"axis": "channels"}, TypeError, ["`axis`", "integer", "axis='channels'", "str"]),
        ({"axis": 1.5}, TypeError, ["`axis`", "integer", "axis=1.5", "float"]),
        ({"axis": [1, "a"]}, TypeError, ["`axis`", "axis=[1, 'a']"]),
        ({"axis": ()}, ValueError, ["`axis`", "at least one", "axis=()", "axis=-1"]),
        ({"momentum": 1.5}, ValueError, ["`momentum`", "0 to 1", "momentum=1.5"]),
        ({"momentum": -0.1}, ValueError, ["`momentum`", "momentum=-0.1"]),
        ({"momentum": float("nan")}, ValueError, ["`momentum`", "momentum=nan"]),
        ({"renorm_momentum": 2}, ValueError, ["`renorm_momentum`", "renorm_momentum=2"]),
        ({"epsilon": None}, ValueError, ["`epsilon`", "epsilon=None"]),
        ({"epsilon": -1e-3}, ValueError, ["`epsilon`", "not below 0", "epsilon=-0.001"]),
        ({"jit_compile": "always"}, ValueError, ["`jit_compile`", "'auto', True, False", "jit_compile='always'"]),
        ({"renorm": True, "renorm_clipping": [("rmax", 1)]}, ValueError, ["`renorm_clipping`", "[('rmax', 1)]"]),
        ({"renorm": True, "renorm_clipping": {"rmax": -1}}, ValueError, ["rmax=-1", "rmin=0"]),
        ({"renorm": True, "renorm_clipping": {"max": 1}}, ValueError, ["`renorm_clipping`", "{'max': 1}", "rmax"]),
        ({"renorm": True, "renorm_clipping": {"rmax": 1, "rmin": 2}}, ValueError, ["rmax", "rmax=1", "rmin=2"]),
        ({"renorm": True, "renorm_clipping": {"dmax": -3}}, ValueError, ["dmax", "dmax=-3"]),
        ({"renorm": True, "renorm_clipping": {"rmax": "3.x"}}, ValueError, ["`renorm_clipping['rmax']`", "'3.x'"]),
        ({"renorm": True, "renorm_clipping": {"dmax": float("nan")}}, ValueError, ["`renorm_clipping['dmax']`", "nan"]),
        ({"momentun": 0.9}, ValueError, ["momentun"]),
    ],
    ids=str,
)
def test_constructor(settings, error, parts):
    with pytest.raises(error) as caught:
        BatchNorm(**settings)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("axis", "shape", "parts"),
    [
        (3, (4, 5, 3), ["`axis`", "between -3 and 2", "(4, 5, 3)", "axis=3"]),
        (-4, (4, 5, 3), ["`axis`", "out of bounds", "axis=-4"]),
        ((1, 5), (4, 5, 3), ["Axis 5", "axis=[1, 5]"]),
        ((2, -1), (4, 5, 3), ["once", "axis=[2, -1]"]),
        ((0, 1), (4, 5), ["at least one axis", "axis=[0, 1]"]),
        (-1, (5,), ["rank 2", "(5,)", "tf.newaxis"]),
        (-1, (), ["rank 2", "()"]),
    ],
    ids=str,
)
def test_axis_and_shape(axis, shape, parts):
    for method in ("build", "compute_output_shape"):
        with pytest.raises(ValueError) as caught:
            getattr(BatchNorm(axis=axis), method)(shape)
        for part in parts:
            assert part in str(caught.value)


@pytest.mark.parametrize(
    ("mask", "parts"),
    [
        (np.ones((4, 5, 3)), ["one dimension less", "mask.shape=(4, 5, 3)", "inputs.shape=(4, 5, 3)"]),
        (np.ones(4), ["one dimension less", "mask.shape=(4,)"]),
        (np.ones((4, 6)), ["without the last axis", "(4, 5)", "mask.shape=(4, 6)"]),
    ],
    ids=["same rank", "rank 1", "wrong length"],
)
@pytest.mark.parametrize("training", [False, True])
def test_mask(mask, parts, training):
    layer = BatchNorm()
    layer.build(X.shape)
    before = layer.get_weights()
    with pytest.raises(ValueError) as caught:
        layer(X, mask=mask, training=training)
    for part in parts:
        assert part in str(caught.value)
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("inputs", "parts"),
    [
        (tf.constant(np.ones((4, 3)) * 1j), ["`inputs`", "real numbers", "complex128", "(4, 3)"]),
        (tf.sparse.from_dense(np.ones((4, 3))), ["`inputs`", "dense", "SparseTensor", "tf.sparse.to_dense"]),
        (tf.ragged.constant([[1.0], [2.0, 3.0]]), ["`inputs`", "dense", "RaggedTensor", ".to_tensor()"]),
    ],
    ids=["complex", "sparse", "ragged"],
)
def test_inputs(inputs, parts):
    layer = BatchNorm()
    layer.build((None, 3))
    with pytest.raises(ValueError) as caught:
        layer.call(inputs, training=True)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(("axis", "shape"), [(-1, (4, 5, None)), (0, (None, 5))], ids=str)
def test_unknown_size_of_the_axis(axis, shape):
    with pytest.raises(ValueError, match="known size") as caught:
        BatchNorm(axis=axis).build(shape)
    assert str(shape) in str(caught.value) and f"axis={axis}" in str(caught.value)
    assert BatchNorm(axis=axis).compute_output_shape(shape) == shape  # no weight is made here


@pytest.mark.parametrize(
    "settings", [{"epsilon": "1e-3", "momentum": "0.9"}, {"momentum": np.float32(0.5)}, {"axis": np.int64(1)}]
)
def test_numbers_of_other_kinds(settings):
    """As Keras takes them; YAML reads 1e-3 as text."""
    ours, theirs = BatchNorm(**settings).get_config(), keras.layers.BatchNormalization(**settings).get_config()
    assert {name: ours[name] for name in settings} == {name: theirs[name] for name in settings}
    json.dumps(ours)


def test_wrong_number_of_channels_and_rank():
    layer = BatchNorm()
    layer.build((None, 3))
    for shape in ((4, 5), (4, 5, 3)):
        with pytest.raises(ValueError, match="incompatible with the layer"):
            layer(np.ones(shape))


def test_signature_begins_with_that_of_keras():
    """Code that passes arguments by position keeps its meaning."""
    theirs = inspect.signature(keras.layers.BatchNormalization.__init__).parameters
    ours = inspect.signature(BatchNorm.__init__).parameters
    positional = {n: p.default for n, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert list(positional.items()) == [(n, p.default) for n, p in theirs.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    new = {n: p.default for n, p in ours.items() if p.kind is p.KEYWORD_ONLY}
    assert new == {
        "sync_group_size": None,
        "unbiased": False,
        "activation": None,
        "virtual_batch_size": None,
        "jit_compile": "auto",
    }
