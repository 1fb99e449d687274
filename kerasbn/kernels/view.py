"""Any rank and any axes, seen by the kernels as an alternation of averaged and kept axes.

Neighbouring axes of one kind are one axis to a reduction, so ``[N, H, W, C]`` normalized over its last axis is
``[NHW, C]``, channels-first ``[N, C, H, W]`` is ``[N, C, HW]``, and per-activation normalization over ``(H, W, C)`` is
``[N, HWC]``. A reshape costs nothing, and the kernels need no case for each rank.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

#: In place of the size of an axis: of any size, and with statistics of its own at each position but weights in common.
GROUPS = -1


@dataclass(frozen=True)
class View:
    """How tensors of one rank are collapsed for the kernels.

    Attributes:
        runs: Neighbouring axes of one kind, in order, each with the number of its positions if it is kept, or `None`
            if it is averaged over. An axis of groups is kept, and has `GROUPS` positions.
    """

    runs: tuple[tuple[tuple[int, ...], int | None], ...]

    @classmethod
    def of(cls, rank: int, kept: Mapping[int, int]) -> "View":
        """The view of tensors with `rank` axes; `kept` maps the axes that are not averaged over to their sizes."""
        grouped = [(keep, tuple(axes)) for keep, axes in itertools.groupby(range(rank), key=kept.__contains__)]
        return cls(tuple((axes, math.prod(kept[a] for a in axes) if keep else None) for keep, axes in grouped))

    @property
    def averaged(self) -> tuple[int, ...]:
        """The averaged axes of the collapsed tensor."""
        return tuple(i for i, (_, size) in enumerate(self.runs) if size is None)

    def collapse(self, x: tf.Tensor) -> tf.Tensor:
        """Reshapes `x` to one axis a run."""
        sizes = [_positions(x, axes) if size is None else size for axes, size in self.runs]
        unknown = [i for i, size in enumerate(sizes) if size is None]
        if len(unknown) == 1 and 0 not in sizes:
            sizes[unknown[0]] = -1
        else:
            for i in unknown:
                axes, _ = self.runs[i]
                sizes[i] = tf.reduce_prod(tf.shape(x)[axes[0] : axes[-1] + 1])
        return tf.reshape(x, sizes)

    def collapse_mask(self, mask: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Gives a mask that lacks the last axis of `x` the collapsed shape of `x`, or size 1 along a kept last axis."""
        *outer, (axes, size) = self.runs
        mask = mask[..., tf.newaxis]
        if size is not None and len(axes) == 1:
            shape = tf.concat([tf.shape(x)[:-1], [1]], 0)
            return View((*outer, (axes, 1))).collapse(tf.broadcast_to(mask, shape))
        return self.collapse(tf.broadcast_to(mask, tf.shape(x)))

    def vector(self, v: tf.Tensor) -> tf.Tensor:
        """Reshapes a weight, one number for each kept position, to broadcast against a collapsed tensor."""
        return tf.reshape(v, [1 if size in (None, GROUPS) else size for _, size in self.runs])


def _positions(x: tf.Tensor, axes: tuple[int, ...]) -> int | None:
    """How many positions the axes have, if the graph knows it."""
    sizes = [x.shape[axis] for axis in axes]
    return None if None in sizes else math.prod(sizes)
