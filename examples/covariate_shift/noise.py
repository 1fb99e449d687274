"""The noise of Santurkar et al. (2018), which gives a normalized network more covariate shift than it had without."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasbn.layers.arguments import number


@keras.saving.register_keras_serializable("kerasbn.examples")
class ShiftingNoise(keras.layers.Layer):
    """In training, noise whose own mean and deviation are drawn anew at each step, for each unit.

    With `a[i, j]` the value of unit `j` in example `i` (and at a place, in images):

        m[j] ~ U(-mean, mean),  s[j] ~ U(1, scale)                                        once a step
        y[i, j] = N(s[j], scale_spread^2) * a[i, j] + U(m[j] - mean_spread, m[j] + mean_spread)

    So no two steps have the same distribution behind this layer. In inference it passes on what it gets.

    Args:
        mean: Float, not negative: how far the mean is moved.
        scale: Float, at least 1: how much the deviation is stretched.
        mean_spread: Float, not negative: of the offsets of the examples about their mean.
        scale_spread: Float, not negative: standard deviation of the factors of the examples.
        seed: Integer, or `None` for a random one.
        **kwargs: Those of `keras.layers.Layer`.

    Reference:
        S. Santurkar et al., How Does Batch Normalization Help Optimization?, 2018, https://arxiv.org/abs/1805.11604:
        Sec. 2.1 and Alg. 1 of the appendix, whose constants are the defaults.
    """

    def __init__(
        self,
        mean: float = 0.5,
        scale: float = 1.25,
        mean_spread: float = 0.1,
        scale_spread: float = 0.1,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mean, self.scale = number("mean", mean, 0), number("scale", scale, 1)
        self.mean_spread, self.scale_spread = (
            number("mean_spread", mean_spread, 0),
            number("scale_spread", scale_spread, 0),
        )
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed)
        self.built = True

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        return input_shape

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        shape = ops.shape(inputs)
        each_unit = (1,) * (len(shape) - 1) + (shape[-1],)
        draw = {"dtype": inputs.dtype, "seed": self._generator}
        offset = keras.random.uniform(each_unit, -self.mean, self.mean, **draw)
        factor = keras.random.uniform(each_unit, 1.0, self.scale, **draw)
        offset += keras.random.uniform(shape, -self.mean_spread, self.mean_spread, **draw)
        factor += keras.random.normal(shape, 0.0, self.scale_spread, **draw)
        return factor * inputs + offset

    def get_config(self) -> dict[str, Any]:
        names = ("mean", "scale", "mean_spread", "scale_spread", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
