"""`reduce_photometric_distortions`: each layer of Keras, measured by what it does to images."""

import keras
import numpy as np
import pytest

from kerasbn.transforms import reduce_photometric_distortions
from kerasbn.transforms.photometric_distortions import NEUTRAL
from tests.transforms.models import images

L = keras.layers

LAYERS = [
    L.RandomBrightness(0.4),
    L.RandomBrightness((0.1, 0.3)),
    L.RandomColorDegeneration(0.8),
    L.RandomColorJitter(brightness_factor=0.2, contrast_factor=0.5, saturation_factor=(0.2, 0.7), hue_factor=0.4),
    L.RandomColorJitter(saturation_factor=0.3),
    L.RandomContrast((0.3, 0.9)),
    L.RandomGaussianBlur(0.9, kernel_size=5, sigma=(0.9, 1.0)),
    L.RandomGrayscale(0.9),
    L.RandomHue(0.6),
    L.RandomInvert(0.9),
    L.RandomPosterization((1, 4)),
    L.RandomSaturation((0.1, 0.8)),
    L.RandomSharpness((0.0, 1.0)),
]
UNTOUCHED = [
    L.RandomFlip(),
    L.RandomRotation(0.2),
    L.RandomZoom(0.3),
    L.RandomTranslation(0.2, 0.2),
    L.RandomCrop(4, 4),
    L.RandomErasing(),
    L.AutoContrast(),
    L.RandAugment(),
    L.Dropout(0.5),
]
IMAGES = np.random.default_rng(0).uniform(20, 235, size=(64, 8, 8, 3)).astype("float32")


def ids(layer):
    return type(layer).__name__


def transformed(layer, factor):
    model = keras.Sequential([keras.Input((8, 8, 3)), type(layer).from_config(layer.get_config())])
    return reduce_photometric_distortions(model, factor).layers[0]


def distortion(layer):
    return float(np.mean(np.abs(np.asarray(layer(IMAGES, training=True)) - IMAGES)))


@pytest.mark.parametrize("layer", LAYERS, ids=ids)
def test_less_is_less_and_none_is_none(layer):
    """By what comes out: halves of a strength distort less, but do, and none of it leaves the images as they are."""
    keras.utils.set_random_seed(0)
    whole, half, none = (distortion(transformed(layer, factor)) for factor in (1.0, 0.5, 0.0))
    # With each bit that posterization takes, the distortion doubles.
    assert (0.02 if "Posterization" in ids(layer) else 0.15) * whole < half < 0.85 * whole
    # It rounds to eight bits in any case.
    assert none < (1 if "Posterization" in ids(layer) else 1e-2)


@pytest.mark.parametrize(
    ("layer", "argument", "wanted"),
    [
        (L.RandomBrightness(0.4), "factor", (-0.1, 0.1)),
        (L.RandomContrast((0.2, 0.8)), "factor", (0.05, 0.2)),
        (L.RandomSaturation((0.3, 0.9)), "factor", (0.45, 0.6)),
        (L.RandomSharpness((0.1, 0.5)), "factor", (0.4, 0.5)),
        (L.RandomGrayscale(0.4), "factor", 0.1),
        (L.RandomPosterization((1, 4)), "factor", (6, 7)),
        (L.RandomColorJitter(hue_factor=0.4), "hue_factor", (0, 0.1)),
        (L.RandomColorJitter(brightness_factor=(0.1, 0.2)), "brightness_factor", (0.025, 0.05)),
        (L.RandomColorJitter(hue_factor=0.4), "saturation_factor", None),
        (L.Solarization((0.0, 0.4), (0.2, 0.6)), "threshold_factor", (0.8, 0.9)),
        (L.Solarization((0.0, 0.4), (0.2, 0.6)), "addition_factor", (0, 0.1)),
    ],
    ids=str,
)
def test_values(layer, argument, wanted):
    found = transformed(layer, 0.25).get_config()[argument]
    assert found == (wanted if wanted is None else pytest.approx(wanted))


def test_what_else_a_layer_has_is_kept():
    layer = L.RandomHue(0.5, value_range=(0, 1), seed=3, data_format="channels_first", name="hue")
    wanted = layer.get_config() | {"factor": (0.0, 0.25)}
    assert transformed(layer, 0.5).get_config() == wanted


@pytest.mark.parametrize("layer", UNTOUCHED, ids=ids)
def test_what_moves_pixels_is_untouched(layer):
    changes = []
    model = keras.Sequential([keras.Input((8, 8, 3)), type(layer).from_config(layer.get_config())])
    new = reduce_photometric_distortions(model, 0.0, changes=changes)
    assert new.layers[0].get_config() == model.layers[0].get_config() and changes == []


def test_every_photometric_layer_of_keras_is_known():
    """A new layer of Keras is to be put into one of the two lists."""
    geometric_or_mixed = {
        *("AugMix", "CutMix", "MixUp", "RandAugment", "RandomCrop", "RandomElasticTransform", "RandomErasing"),
        *("RandomFlip", "RandomPerspective", "RandomRotation", "RandomShear", "RandomTranslation", "RandomZoom"),
        "RandomHeight", "RandomWidth",
    }  # fmt: skip
    random = {
        name for name in dir(L) if name.startswith("Rand") or name in ("AugMix", "CutMix", "MixUp", "Solarization")
    }
    assert random <= NEUTRAL.keys() | geometric_or_mixed
    assert NEUTRAL.keys() <= set(dir(L)) and not NEUTRAL.keys() & geometric_or_mixed


def test_pipelines_and_nested_models():
    pipeline = L.Pipeline([L.RandomFlip(), L.RandomBrightness(0.2), L.Pipeline([L.RandomHue(0.4)])], name="pipeline")
    augment = keras.Sequential([pipeline, L.RandomContrast(0.4, name="contrast")], name="augment")
    inputs = keras.Input((8, 8, 3))
    changes = []
    model = reduce_photometric_distortions(keras.Model(inputs, L.Flatten()(augment(inputs))), changes=changes)
    assert [str(change) for change in changes] == [
        "augment/pipeline: layers.1.factor (-0.2, 0.2) -> (-0.1, 0.1)",
        "augment/pipeline: layers.2.layers.0.factor (0, 0.4) -> (0.0, 0.2)",
        "augment/contrast: factor (0, 0.4) -> (0.0, 0.2)",
    ]
    pipeline = model.get_layer("augment").get_layer("pipeline")
    assert pipeline.layers[1].factor == (-0.1, 0.1) and pipeline.layers[2].layers[0].factor == (0, 0.2)


def test_file_and_training(tmp_path):
    model = images()
    model.compile("sgd", "sparse_categorical_crossentropy")
    new = reduce_photometric_distortions(model)
    assert new.get_layer("brightness").factor == (-0.1, 0.1) and model.get_layer("brightness").factor == (-0.2, 0.2)
    new.fit(IMAGES[:8] / 255, np.zeros(8), verbose=0)
    augmentation = keras.Sequential([keras.Input((8, 8, 3)), L.RandomBrightness(0.2)])
    reduce_photometric_distortions(augmentation).save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").layers[0].factor == (-0.1, 0.1)


class Python(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.augment = L.RandomHue(0.2, name="hue")

    def call(self, x):
        return self.augment(x)


def test_layers_in_python_code_are_refused_by_name():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, Python(name="inner")(inputs))
    with pytest.raises(ValueError, match="'hue' of class RandomHue is in 'inner'") as caught:
        reduce_photometric_distortions(model)
    assert "class Python" in str(caught.value) and "functional API" in str(caught.value)


@pytest.mark.parametrize("factor", [-0.1, 1.5, "half"])
def test_errors(factor):
    with pytest.raises(ValueError, match="`factor` must be a number from 0 to 1") as caught:
        reduce_photometric_distortions(images(), factor)
    assert f"factor={factor!r}" in str(caught.value)
