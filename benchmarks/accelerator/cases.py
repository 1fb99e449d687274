"""What is compiled, checked and timed: one step of a layer, for each shape and dtype. Needs no package."""

from typing import NamedTuple

#: Of early, middle and late layers of a ResNet-50, of layers of vectors, and one beyond all caches.
SHAPES = (
    (32, 56, 56, 64),
    (256, 1024),
    (256, 56, 56, 64),
    (256, 14, 14, 256),
    (64, 7, 7, 512),
    (8192, 4096),
)
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
LAYERS = ("keras", "kerasbn")
MOMENTUM, EPSILON = 0.9, 1e-3


#: Of these the programs are in `programs/`, for a test that needs no compiler.
SAVED_SHAPE, SAVED_DTYPE = (32, 56, 56, 64), "float32"


class Case(NamedTuple):
    """One step of a layer: forward pass, moving statistics, backward pass.

    Attributes:
        layer: ``"keras"`` or ``"kerasbn"``.
        activation: ``"relu"`` behind it, or `None`.
        dtype: Of the batch and the result.
        shape: Of the batch, channels last.
    """

    layer: str
    activation: str | None
    dtype: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """For files and tables."""
        layer = f"{self.layer}_{self.activation}" if self.activation else self.layer
        return f"{layer}-{self.dtype}-{'x'.join(map(str, self.shape))}"


def all_cases(shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[Case]:
    """Each shape with each dtype, with and without an activation, each with both layers."""
    return [
        Case(layer, activation, dtype, shape)
        for shape in shapes
        for dtype in POLICIES
        for activation in (None, "relu")
        for layer in LAYERS
    ]
