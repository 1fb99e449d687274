"""Weaker photometric distortions: last of the changes of Sec. 4.2.1."""

from typing import Any

import keras

from kerasbn.layers import arguments
from kerasbn.transforms.clone import clone
from kerasbn.transforms.nested_models import configuration
from kerasbn.transforms.rebuild import Change, hidden_layers, rebuild
from kerasbn.transforms.serialized import edited

#: Keras's layers that change colors and light but move nothing: each argument that says how strongly, with the value at
#: which the image stays as it is. Probabilities and shares of another image have 0 there, saturation and sharpness the
#: middle of their range, posterization all eight bits, a threshold above which pixels are inverted the highest value.
NEUTRAL: dict[str, dict[str, float]] = {
    "RandomBrightness": {"factor": 0},
    "RandomColorDegeneration": {"factor": 0},
    "RandomColorJitter": {"brightness_factor": 0, "contrast_factor": 0, "saturation_factor": 0.5, "hue_factor": 0},
    "RandomContrast": {"factor": 0},
    "RandomGaussianBlur": {"factor": 0},
    "RandomGrayscale": {"factor": 0},
    "RandomHue": {"factor": 0},
    "RandomInvert": {"factor": 0},
    "RandomPosterization": {"factor": 8},
    "RandomSaturation": {"factor": 0.5},
    "RandomSharpness": {"factor": 0.5},
    "Solarization": {"addition_factor": 0, "threshold_factor": 1},
}

#: What the arguments of `RandomColorJitter` are passed to.
JITTER = {
    "brightness_factor": keras.layers.RandomBrightness,
    "contrast_factor": keras.layers.RandomContrast,
    "saturation_factor": keras.layers.RandomSaturation,
    "hue_factor": keras.layers.RandomHue,
}


def reduce_photometric_distortions(
    model: keras.Model, factor: float = 0.5, *, changes: list[Change] | None = None
) -> keras.Model:
    """A copy of `model` whose augmentation layers change colors and light less; what moves pixels stays as it is.

    A bound `b` of the range that a distortion is drawn from moves towards the value `n` that changes nothing:

        b' = n + factor * (b - n)

    with n = 0 for brightness, contrast, hue, color degeneration and the probabilities of grayscale, inversion and blur;
    n = 0.5, the middle, for saturation and sharpness; n = 8 bits for posterization, rounded to whole bits. Layers
    within a `keras.layers.Pipeline` or another wrapper are found, too. Not changed are layers that distort nothing at
    random (`AutoContrast`, `Equalization`), and `RandAugment` and `AugMix`, whose one strength is that of their
    geometric distortions as well. `Solarization` gets a threshold nearer to the highest value (n = 1) and less
    addition (n = 0); as Keras 3.15 draws the threshold from 0 upwards whatever its lower bound, no factor switches it
    off.

    "Because batch-normalized networks train faster and observe each training example fewer times, we let the trainer
    focus on more 'real' images by distorting them less."

    Args:
        model: A functional or Sequential model with augmentation layers in it. It is left as it is.
        factor: Float in [0, 1]: the share of each distortion that remains. 0 switches them off.
        changes: Optional list, to which a `Change` is appended for each argument that was changed.

    Returns:
        A new model with the weights of `model`, compiled as it was, with a new optimizer.

    Raises:
        ValueError: If `factor` is out of its range; if `model` is not functional or Sequential, or has such a layer
            in a nested model that is not.
        TypeError: If `model` is no Keras model.

    Example:
    >>> augment = keras.Sequential([keras.layers.RandomBrightness(0.2), keras.layers.RandomSaturation((0.25, 0.75))])
    >>> [layer.factor for layer in reduce_photometric_distortions(augment, 0.5).layers]
    [(-0.1, 0.1), (0.375, 0.625)]

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, Sec. 4.2.1, "Reduce the photometric distortions".
    """
    factor = arguments.number("factor", factor, 0, 1)
    found: list[Change] = []

    def rewrite(layer: Any, where: str) -> list[Any]:
        def edit(class_name: str, config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
            reduced = {}
            for name, neutral in NEUTRAL.get(class_name, {}).items():
                old = config[name]
                if old is None:  # RandomColorJitter without this part
                    continue
                if name in JITTER:  # a single number means a range, to each of these layers another one
                    old = JITTER[name](old, seed=0).factor
                bounds = [neutral + factor * (b - neutral) for b in (old if isinstance(old, list | tuple) else [old])]
                if class_name == "RandomPosterization":
                    bounds = [round(b) for b in bounds]
                reduced[name] = tuple(bounds) if isinstance(old, list | tuple) else bounds[0]
                if reduced[name] != old:
                    found.append(Change(where, ".".join((*path, name)), old, reduced[name]))
            return config | reduced

        config = configuration(layer)
        new = edited(config, edit, type(layer))
        if new == config:
            _check_nothing_hidden(layer, where)
        return [clone(layer, new)]

    new, _ = rebuild(model, rewrite)
    if changes is not None:
        changes += found
    return new


def _check_nothing_hidden(layer: Any, where: str) -> None:
    """Raises ValueError if `layer` is a model of Python code with a photometric distortion in it."""
    for hidden in hidden_layers(layer) if isinstance(layer, keras.Model) else []:
        if type(hidden).__name__ in NEUTRAL:
            raise ValueError(
                f"Layer {hidden.name!r} of class {type(hidden).__name__} is in {where!r}, a model of class "
                f"{type(layer).__name__} that makes its layers in Python code, so it cannot be replaced. "
                "Build that model with the functional API."
            )
