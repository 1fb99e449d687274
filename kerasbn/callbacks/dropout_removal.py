"""Training without dropout, or with less."""

import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

import keras

from kerasbn.arguments import built, count
from kerasbn.dropout import DropoutRate, dropout_rates
from kerasbn.layers.arguments import number, one_of
from kerasbn.selection import Selection


class DropoutRemoval(keras.callbacks.Callback):
    """Removes or lowers the dropout of a model: Sec. 4.2.1 of Ioffe & Szegedy (2015).

        rate in epoch e = min(original rate, to)       from epoch `at` on

    Batch normalization regularizes, so "in some cases" a network does without dropout (Sec. 3.4); the paper's ensemble
    keeps 5 % and 10 % (Sec. 4.2.3). Setting `rate` during `fit` does nothing, as Keras has built it into the traced
    training step; this callback has the step traced anew, which costs as much as the first step of a training, each
    time that a rate changes.

    All dropout is found: `Dropout`, `SpatialDropout1D` to `3D`, `GaussianDropout`, `AlphaDropout`, the `dropout` and
    `recurrent_dropout` of recurrent layers and their cells, the `dropout` of attention layers; in nested models,
    wrappers and layers within layers. Weights files stay loadable: nothing is added to the model or taken away.

    The rates stay as they are at the end unless `put_back` is set. If training raises, Keras calls no callback any
    more: `restore()` puts the rates back, and so does the end of a ``with`` statement, however it ends:

        with DropoutRemoval(at=10) as removal:
            model.fit(..., callbacks=[removal])

    With another model everything begins anew, plateaus too. The model before then keeps the rates that it has: call
    `restore()` first if it is to have its own again, or give each model a callback of its own.

    Args:
        at: Integer, the epoch, counted from 0, before whose first step the rates change; or a function from an epoch
            to a rate in [0, 1], in place of `to`; or `"plateau"`: the epoch after `monitor` has not improved for
            `patience` epochs. With an integer or a function a resumed training has the rates of the epoch that it
            resumes with; a plateau is remembered by the callback, from one `fit` of the model to the next.
        to: Float in [0, 1], what rates are lowered to. None is raised.
        layers: Which layers: `None` for all; a name or several; or a function that says whether a layer is meant. A
            layer stands for all in it, so the name of a nested model or of an `LSTM` will do. A layer of your own is
            recognised by its number `dropout` or `recurrent_dropout`, and by `rate` if it is meant here.
        noise: Whether the standard deviations of `GaussianNoise` are treated as rates too.
        monitor: Name of a value in the logs, for `"plateau"` and `restore_if_worse`.
        mode: `"min"` if a smaller value of `monitor` is better, `"max"` if a larger one is.
        patience: Integer, number of epochs without improvement that make a plateau.
        min_delta: Float, not negative: a smaller improvement is none.
        restore_if_worse: `None`, or a float, not negative: if `monitor` is worse than its best value so far by more
            than this, in its own unit, after rates were lowered, they return before the next epoch, for good.
        put_back: Whether the original rates return when training ends.

    Attributes:
        lowered: Whether rates are in force that this callback has lowered.

    The logs of an epoch get `dropout`, the largest rate in force.

    Raises:
        ValueError: If an argument is out of its range; in training, if `layers` names one that is not there,
            or if the model is not built.

    Example:
    >>> import numpy as np
    >>> import keras
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1), keras.layers.Dropout(0.5)])
    >>> model.compile("sgd", "mse")
    >>> removal = DropoutRemoval(at=2, to=0.1)
    >>> model.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=3, callbacks=[removal], verbose=0).history["dropout"]
    [0.5, 0.5, 0.1]
    >>> removal.restore()
    >>> model.layers[-1].rate
    0.5

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 3.4, 4.2.1, 4.2.3.
    """

    def __init__(
        self,
        at: int | str | Callable[[int], float] = 0,
        to: float = 0.0,
        *,
        layers: Selection = None,
        noise: bool = False,
        monitor: str = "val_loss",
        mode: str = "min",
        patience: int = 3,
        min_delta: float = 0.0,
        restore_if_worse: float | None = None,
        put_back: bool = False,
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__()
        self.at: Any = at if callable(at) or at == "plateau" else _epoch(at)
        self.to = number("to", to, 0, 1)
        self.layers, self.noise = layers, noise
        self.monitor, self.mode = monitor, one_of("mode", mode, ("min", "max"))
        self.patience = count("patience", patience, 1)
        self.min_delta = number("min_delta", min_delta, 0)
        self.restore_if_worse = None if restore_if_worse is None else number("restore_if_worse", restore_if_worse, 0)
        self.put_back = put_back
        self._rates: list[DropoutRate] = []
        self._of: Any = None

    @property
    def lowered(self) -> bool:
        """Whether rates are in force that this callback has lowered."""
        return any(rate.value < rate.original for rate in self._rates)

    def on_train_begin(self, logs: Any = None) -> None:
        """Finds the rates and begins anew, where this is not the model of the last `fit`."""
        if self._of is not self.model:
            self._rates, self._of = dropout_rates(built(self.model), self.layers, self.noise), self.model
            self._best, self._waited = float("inf"), 0  # In the direction of "min".
            self._plateau = self._returned = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Sets the rates of the epoch."""
        self._lower(1.0 if self._returned else self._rate(epoch))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at what is monitored, and reports."""
        logs = {} if logs is None else logs
        logs["dropout"] = max((rate.value for rate in self._rates), default=0.0)
        if self.at == "plateau" or self.restore_if_worse is not None:
            self._look(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Puts the rates back, if asked to."""
        if self.put_back:
            self.restore()

    def restore(self) -> None:
        """Puts the original rates back. Does nothing where they are in force."""
        self._lower(1.0)

    def __enter__(self) -> "DropoutRemoval":
        """The callback; the end of the statement puts the rates back."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Puts the rates back, also after an error."""
        self.restore()

    def _rate(self, epoch: int) -> float:
        if callable(self.at):
            return number(f"at({epoch})", self.at(epoch), 0, 1)
        lower = self._plateau if self.at == "plateau" else epoch >= self.at
        return self.to if lower else 1.0

    def _lower(self, to: float) -> None:
        changed = [rate.lower(to) for rate in self._rates]
        if any(changed):  # The rates are numbers in the traced step.
            self._of.make_train_function(force=True)

    def _look(self, logs: dict[str, Any]) -> None:
        if self.monitor not in logs:
            warnings.warn(
                f"DropoutRemoval monitors {self.monitor!r}, which is not in the logs. There are: {sorted(logs)}.",
                stacklevel=2,
            )
            return
        value = logs[self.monitor] if self.mode == "min" else -logs[self.monitor]
        if self.restore_if_worse is not None and self.lowered and not value - self._best <= self.restore_if_worse:
            self._returned = True
        if value < self._best - self.min_delta:
            self._best, self._waited = value, 0
        else:
            self._waited += 1
        self._plateau = self._plateau or self._waited >= self.patience


def _epoch(at: Any) -> int:
    try:
        return count("at", at, 0)
    except ValueError:
        raise ValueError(
            "Argument `at` must be an epoch, an integer counted from 0, a function from an epoch to a rate, or "
            f"'plateau'. Received: at={at!r}."
        ) from None
