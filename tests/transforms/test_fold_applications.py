"""The networks of `keras.applications`, as after training: the same results, and what can be folded is folded."""

import keras
import numpy as np
import pytest

from benchmarks.fold import after_training, images_for
from kerasbn import Affine, fold
from tests.crossing import first_of

#: Pixels, normalizations, and how many of them stay: those between a sum, a concatenation or a pooling and a ReLU.
NETWORKS = {
    "MobileNetV2": (64, 52, 0),
    "ResNet50V2": (64, 49, 17),
    "EfficientNetB0": (64, 49, 0),
    "DenseNet121": (64, 121, 62),
    "InceptionV3": (75, 94, 0),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", first_of(NETWORKS))
def test_the_same_results(name):
    size, count, stay = NETWORKS[name]
    x = images_for(name, 4, size)
    model = after_training(name, x)
    changes = []
    new = fold(model, changes=changes)
    fates = [change.new for change in changes if change.what == "normalization"]
    assert len(fates) == count
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in new.layers)
    assert sum(isinstance(layer, Affine) for layer in new.layers) == stay
    assert all(fate.startswith("folded into ") or fate.endswith("relu (Activation) is behind it") for fate in fates)
    wanted = np.asarray(model(x, training=False))
    np.testing.assert_allclose(new(x), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    # And they say something: no two images look alike.
    assert wanted.std(0).min() > 0.002 * np.abs(wanted).max()
