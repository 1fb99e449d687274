"""Population statistics in place of moving ones, while a model is trained."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kerasbn.arguments import count, with_call
from kerasbn.cardinality import check_end
from kerasbn.population import Recalibration, Recalibrator
from kerasbn.selection import Selection
from kerasbn.snapshot import Snapshot


class PopulationStatistics(keras.callbacks.Callback):
    """Recalibrates batch normalizations before validation, after chosen epochs or at the end.

    What it does then is `kerasbn.recalibrate`. Validation shows what the weights are worth, and not how far the moving
    averages are behind them. The statistics stay in the model, and a checkpoint that comes later in the list of
    callbacks saves them, as long as the weights that they belong to are there. When those give way to others, as when
    `keras.callbacks.SwapEMAWeights` ends its swap, the moving averages are put back, before the next step of training,
    validation or the end of an epoch.

    With averaged weights:

    - `SwapEMAWeights` has them in the model during validation: ``when="validation"``, which recalibrates at the first
      batch of it, when all callbacks have had their turn. Place this callback behind `SwapEMAWeights`.
    - `SwapEMAWeights(swap_on_epoch=True)` has them there at the end of an epoch, too, for checkpoints: ``when=1``,
      between `SwapEMAWeights` and the checkpoint. Use two of these callbacks for both.
    - An optimizer with ``use_ema=True`` leaves them in the model when `fit` ends: ``when="end"``.

    Args:
        data: As of `recalibrate`, what the model is trained on; to be used each time, so no generator unless it is used
            once. A function without arguments that returns them will do as well.
        steps: Integer, how many batches, or `None` for all; needed for data without end (`repeat()`).
        when: `"end"`, when `fit` ends; `"validation"`, before each validation; an integer n, after every n-th epoch; or
            a function of an epoch, counted from 0, that says whether to recalibrate when it ends.
        model: The model that is recalibrated: `None` for the one that is trained; or one in it, where that has a
            `train_step` and no `call`, as the generator of a GAN.
        layers: Which, as of `recalibrate`.
        batch_size: Integer, samples in a batch, for arrays.
        seed: Integer, chooses their order.
        verbose: As of `recalibrate`.

    Attributes:
        report: What the last `recalibrate` returned; `None` before the first.

    Raises:
        ValueError: If an argument is out of its range; if `data` have no end and `steps` is `None`; in training, as
            `recalibrate`.

    Example:
    >>> import kerasbn
    >>> x = np.random.default_rng(0).normal(5.0, 2.0, size=(64, 3)).astype("float32")
    >>> model = keras.Sequential([keras.Input((3,)), kerasbn.BatchNorm(), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(x, x[:, :1], callbacks=[PopulationStatistics(x)], verbose=0)
    >>> bool(np.allclose(model.layers[0].moving_mean, x.mean(0)))
    True

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Alg. 2, lines 8-11.
        P. Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018,
        https://arxiv.org/abs/1803.05407: Sec. 3.2, why averaged weights need statistics of their own.
    """

    def __init__(
        self,
        data: Any,
        steps: int | None = None,
        when: str | int | Callable[[int], bool] = "end",
        *,
        model: keras.Model | None = None,
        layers: Selection = None,
        batch_size: int = 32,
        seed: int = 0,
        verbose: int | str = "auto",
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__()
        self.data, self.when, self.layers = data, _when(when), layers
        self._given = None if model is None else with_call(model)
        steps = None if steps is None else count("steps", steps, 1)
        check_end(data, steps)
        self._how: dict[str, Any] = {
            "steps": steps,
            "batch_size": count("batch_size", batch_size, 1),
            "seed": seed,
            "verbose": verbose,
        }
        self.report: Recalibration | None = None
        self._recalibrator: Recalibrator | None = None
        self._step: Any = None
        self._weights: list[np.ndarray] = []
        self._moving: Snapshot | None = None
        self._due = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Forgets the moving averages of another model, or of weights that were exchanged since the last training.

        They stay for the weights that they belong to: `SwapEMAWeights(swap_on_epoch=True)` leaves its own in the model
        when `fit` ends, and takes them out when the next one begins.

        Raises:
            ValueError: If the model cannot be called, which would be known at the end of the training only.
        """
        with_call(self._recalibrated)
        other = self._recalibrator is None or self._recalibrator.model is not self._recalibrated
        if self._moving and (other or self._exchanged()):
            self._moving = None

    def on_test_begin(self, logs: Any = None) -> None:
        """Waits for the first batch: others may still exchange the weights."""
        self._due = self.when == "validation"

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Recalibrates, before the first batch of a validation."""
        if self._due:
            self._due = False
            self._recalibrate()

    def on_test_end(self, logs: Any = None) -> None:
        """Puts the moving averages back if other weights are in the model."""
        self._put_back_if_exchanged()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Puts the moving averages back if other weights are in the model."""
        self._put_back_if_exchanged()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Puts them back if they were exchanged behind this callback; from here on the weights change anyway."""
        self._put_back_if_exchanged()
        self._moving = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Recalibrates if it is time, and if not, puts back what does not belong to the weights."""
        self._put_back_if_exchanged()
        if callable(self.when) and self.when(epoch):
            self._recalibrate()

    def on_train_end(self, logs: Any = None) -> None:
        """Recalibrates, if that is when."""
        self._put_back_if_exchanged()
        if self.when == "end":
            self._recalibrate()

    def _recalibrate(self) -> None:
        self._put_back_if_exchanged()
        # What was traced holds as long as the training step does: both change with compile, rates of dropout, freeze.
        step = self.model.train_function
        model = self._recalibrated
        if self._recalibrator is None or self._recalibrator.model is not model or self._step is not step:
            self._recalibrator, self._step = Recalibrator(model, self.layers), step
        moving = Snapshot(self._recalibrator.statistics, model.distribute_strategy)
        self.report = self._recalibrator(self.data() if callable(self.data) else self.data, **self._how)
        self._weights, self._moving = self._now(), moving

    def _put_back_if_exchanged(self) -> None:
        if self._moving and self._exchanged():
            self._moving.restore()
            self._moving = None

    def _exchanged(self) -> bool:
        return not all(map(np.array_equal, self._weights, self._now()))

    def _now(self) -> list[np.ndarray]:
        return [weight.numpy() for weight in self._recalibrated.trainable_variables]

    @property
    def _recalibrated(self) -> keras.Model:
        return self.model if self._given is None else self._given


def _when(when: Any) -> Any:
    if callable(when) or when in ("end", "validation"):
        return when
    try:
        every = count("when", when, 1)
    except ValueError:
        raise ValueError(
            "Argument `when` must be 'end', 'validation', a number of epochs not below 1, or a function of an epoch. "
            f"Received: when={when!r}."
        ) from None
    return lambda epoch: (epoch + 1) % every == 0
