"""Affine maps of each element of a tensor."""

from typing import NamedTuple

import numpy as np


class Refused(Exception):
    """Why an affine map cannot go where it was to go, in words that follow a colon."""


class AffineMap(NamedTuple):
    """``y = scale * x + offset``, in float64.

    Attributes:
        values: Scale and offset, one after the other along axis 0. The other axes are those of the tensor, batch
            included, with a size of 1 where the two do not depend on the place along that axis.
    """

    values: np.ndarray

    @classmethod
    def of(cls, scale: np.ndarray, offset: np.ndarray) -> "AffineMap":
        """The map of `scale` and `offset`, which broadcast."""
        return cls(np.stack(np.broadcast_arrays(scale, offset)))

    @property
    def scale(self) -> np.ndarray:
        """The factor."""
        return self.values[0]

    @property
    def offset(self) -> np.ndarray:
        """What is added."""
        return self.values[1]

    def then(self, after: "AffineMap") -> "AffineMap":
        """This map and `after` it another one, as one."""
        return AffineMap.of(after.scale * self.scale, after.scale * self.offset + after.offset)

    def channels(self, axis: int, size: int) -> np.ndarray:
        """Scale and offset of each channel, ``[2, size]``.

        Raises:
            Refused: If they depend on more than `axis`.
        """
        others = np.delete(self.values.shape[1:], axis)
        if (others > 1).any():
            raise Refused("it differs from place to place within a channel")
        return np.broadcast_to(self.values.reshape(2, -1), (2, size))
