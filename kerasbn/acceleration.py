"""All seven changes of Sec. 4.2.1 of Ioffe & Szegedy (2015) in one call."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras

from kerasbn.arguments import a_model
from kerasbn.callbacks import DropoutRemoval, LearningRateAcceleration
from kerasbn.data import shuffle_within_shards
from kerasbn.dropout import dropout_rates
from kerasbn.layers.arguments import number
from kerasbn.optimizers import schedule_of, stepping
from kerasbn.recommended_factor import check_normalized, recommended_factor
from kerasbn.schedules import Accelerated
from kerasbn.table import table
from kerasbn.transforms import (
    Change,
    batch_normalize,
    reduce_photometric_distortions,
    remove_local_response_normalization,
    scale_weight_decay,
)


class Report:
    """What `accelerate` changed: a list of `kerasbn.transforms.Change` for each of its changes, by name.

    As text it is a table, with notes below it.

    Args:
        changes: By the name of each change a list of what was changed, empty if there was nothing, and `None` if the
            change was switched off. It is an attribute, too.
        notes: What was decided, and why, in sentences. It is an attribute, too.

    Example:
    >>> print(Report({"dropout": [Change("b", "rate", 0.4, 0.0)], "weight decay": [], "shuffling": None}))
    change        where  what               old  new
    ------------  -----  -----------------  ---  ---
    dropout       b      rate               0.4  0.0
    weight decay  -      nothing to change
    shuffling     -      switched off
    """

    def __init__(self, changes: dict[str, list[Change] | None], notes: Sequence[str] = ()) -> None:
        """Remembers the arguments."""
        self.changes, self.notes = changes, list(notes)

    def __str__(self) -> str:
        """A line for each kind of thing that was changed: the change, where, what, the old and the new value."""
        rows = table([("change", "where", "what", "old", "new"), *self._rows()])
        return "\n\n".join([rows, *(f"Note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        """How much there is of each change."""
        counts = {name: "off" if changes is None else len(changes) for name, changes in self.changes.items()}
        return f"<Report {', '.join(f'{name}: {count}' for name, count in counts.items())}>"

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for name, changes in self.changes.items():
            if not changes:
                yield name, "-", "switched off" if changes is None else "nothing to change", "", ""
            for i, row in enumerate(_alike(changes or ())):
                yield "" if i else name, *row


def _alike(changes: Sequence[Change]) -> Iterator[tuple[str, ...]]:
    """A row for each thing that was done, in one place or several; `*` in a value stands for the name of the layer."""
    places: dict[tuple[str, ...], list[Change]] = {}
    for change in changes:
        own = change.where.rsplit("/", 1)[-1]
        alike = (change.what, *(str(value).replace(f"layer {own}_", "layer *_") for value in (change.old, change.new)))
        places.setdefault(alike, []).append(change)
    for alike, of in places.items():
        if len(of) == 1:
            yield of[0].where, of[0].what, str(of[0].old), str(of[0].new)
        else:
            yield f"{of[0].where}, {'..., ' if len(of) > 2 else ''}{of[-1].where} ({len(of)})", *alike


class Acceleration(NamedTuple):
    """What `accelerate` returns.

    Attributes:
        model: The new model, compiled.
        callbacks: For its `fit`.
        data: The data, shuffled more thoroughly; `None` if there was none.
        report: What was changed, a `Report`; print it.
    """

    model: keras.Model
    callbacks: list[keras.callbacks.Callback]
    data: Any
    report: Report


def accelerate(
    model: keras.Model,
    data: Any = None,
    factor: float | str | None = "auto",
    *,
    decay_speedup: float = 6.0,
    steps: float | None = None,
    warmup_steps: int = 0,
    on_divergence: str | None = None,
    where: Any = "pre_activation",
    dropout: float | None = 0.0,
    weight_decay: float | None = 1 / 5,
    photometric_distortions: float | None = 0.5,
    remove_lrn: bool = True,
    shuffle: bool = True,
    seed: int | None = None,
    **layer_arguments: Any,
) -> Acceleration:
    """The batch-normalized network that trains fast, from one that is not: Sec. 4.2.1, each change a switch.

    Adding batch normalization alone "does not take full advantage" of it. Done here, in the paper's order:

    1. the learning rate is `factor` times as high (5 in BN-x5, 30 in BN-x30), by `callbacks`, if the network was not
       normalized before and trains with SGD, or if `factor` is given;
    2. dropout is removed, or lowered to `dropout`, by `callbacks`;
    3. weight decay, as penalty or in the optimizer, is multiplied by `weight_decay`;
    4. with it, a decay without end is `decay_speedup` times as fast, by `callbacks`; a schedule that ends, such as
       `CosineDecay`, keeps its length or ends at `steps`: see `kerasbn.schedules.Accelerated`;
    5. local response normalization is removed;
    6. training examples are shuffled within shards, if there is `data`;
    7. photometric distortions are multiplied by `photometric_distortions`;

    and before all of them, `BatchNorm` is put at each nonlinearity. `model` is left as it is.

    Args:
        model: A compiled functional or Sequential model; weights are carried over.
        data: What `kerasbn.data.shuffle_within_shards` takes, examples and not batches: a `tf.data.Dataset` of
            examples or of shards, or names of TFRecord files. `None` if you shuffle them yourself.
        factor: Float above 0; `"auto"` for the recommended one, which is 5 for a network without normalization that
            trains with `SGD`, else 1: the rate of a normalized network was chosen for it, and an adaptive optimizer
            such as Adam does not depend on the scale of the gradients. A note in `report` says so. `None` leaves rate
            and decay alone.
        decay_speedup: Float above 0; 1 leaves the decay alone. A rate that is a number has none, and a schedule that
            ends or restarts is no faster. It is 1 where the recommended factor is.
        steps: Number of batches that the accelerated training has in all, at which a schedule with an end then ends, or
            `None`: it keeps its length. Warm-up in a schedule is not compressed.
        warmup_steps: Integer: over so many steps the factor rises from 1.
        on_divergence: `None`, or `"backoff"`; see `kerasbn.callbacks.LearningRateAcceleration`.
        where: Where `BatchNorm` goes; see `kerasbn.batch_normalize`. `None`: nowhere, as the model has it.
        dropout: Float in [0, 1], what rates are lowered to (5 % and 10 % in the paper's ensemble), or `None` to leave
            them alone.
        weight_decay: Float, not negative, what it is multiplied by, or `None` to leave it alone.
        photometric_distortions: Float in [0, 1], what they are multiplied by, or `None` to leave them alone.
        remove_lrn: Whether local response normalization is removed.
        shuffle: Whether `data` are shuffled.
        seed: Of that shuffling.
        **layer_arguments: Those of `BatchNorm`, such as ``synchronized=True``.

    Returns:
        An `Acceleration`, with `model`, `callbacks`, `data` and `report`.

    Raises:
        ValueError: If `model` is not compiled, cannot be rebuilt, or has nothing that can be normalized (as networks of
            recurrent layers) and no normalization; or if an argument is out of its range.
        TypeError: If the learning rate is a function, or a schedule that cannot be serialized.

    Example:
    >>> layers = [keras.Input((4,)), keras.layers.Dense(8, "relu", name="a"), keras.layers.Dropout(0.4, name="b")]
    >>> model = keras.Sequential([*layers, keras.layers.Dense(2)])
    >>> model.compile(keras.optimizers.SGD(0.01), "mse")
    >>> fast = accelerate(model)
    >>> print(fast.report)
    change                   where      what               old   new
    -----------------------  ---------  -----------------  ----  ------------------
    batch normalization      a          normalization      None  layer a_bn
                             a          use_bias           True  False
                             a          activation         relu  layer a_activation
    learning rate            optimizer  learning_rate      0.01  0.05
    dropout                  b          rate               0.4   0.0
    weight decay             -          nothing to change
    learning-rate decay      -          nothing to change
    local response norm.     -          nothing to change
    shuffling                -          nothing to change
    photometric distortions  -          nothing to change
    >>> import numpy as np
    >>> history = fast.model.fit(np.ones((8, 4)), np.ones((8, 2)), callbacks=fast.callbacks, verbose=0)

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 4.2.1.
    """
    if not a_model(model).compiled:
        raise ValueError(
            "Argument `model` must be compiled: its optimizer has the learning rate that is raised. "
            f"Received: {model.name!r}, which is not. Call model.compile(...) first."
        )
    # All are checked before anything is made.
    if dropout is not None:
        dropout = number("dropout", dropout, 0, 1)
    if weight_decay is not None:
        weight_decay = number("weight_decay", weight_decay, 0)
    if photometric_distortions is not None:
        photometric_distortions = number("photometric_distortions", photometric_distortions, 0, 1)
    raised: Any
    raised, note = recommended_factor(model) if factor == "auto" else (factor, "")
    callbacks: list[keras.callbacks.Callback] = []
    rates: list[Change] = []
    decays: list[Change] = []
    if raised is not None:
        if note:
            decay_speedup = 1.0
        acceleration = LearningRateAcceleration(
            raised, decay_speedup, warmup_steps=warmup_steps, on_divergence=on_divergence, steps=steps
        )
        callbacks.append(acceleration)
        for optimizer in stepping(model.optimizer):
            rates += _rate_change(optimizer, acceleration.factor)
            decays += _decay_changes(optimizer, decay_speedup, steps)
    if where is None and layer_arguments:
        raise ValueError(
            "Arguments of `BatchNorm` must be left out if `where` is None, which puts none into the model. "
            f"Received: {', '.join(f'{name}={value!r}' for name, value in layer_arguments.items())}."
        )
    changes: dict[str, list[Change] | None] = dict.fromkeys(
        (
            "batch normalization",
            "learning rate",
            "dropout",
            "weight decay",
            "learning-rate decay",
            "local response norm.",
            "shuffling",
            "photometric distortions",
        )
    )

    def begin(name: str) -> list[Change]:
        found: list[Change] = []
        changes[name] = found
        return found

    if remove_lrn:
        model = remove_local_response_normalization(model, changes=begin("local response norm."))
    if weight_decay is not None:
        model = scale_weight_decay(model, weight_decay, changes=begin("weight decay"))
    if photometric_distortions is not None:
        distortions = begin("photometric distortions")
        model = reduce_photometric_distortions(model, photometric_distortions, changes=distortions)
    if where is not None:
        model = batch_normalize(model, where, changes=begin("batch normalization"), **layer_arguments)
        check_normalized(model, where)
    if raised is not None:
        changes |= {"learning rate": rates, "learning-rate decay": decays}
    if dropout is not None:
        found = begin("dropout")
        for rate in dropout_rates(model):
            if rate.value > dropout:
                found.append(Change(rate.layer.name, rate.attribute, rate.value, dropout))
        callbacks.append(DropoutRemoval(to=dropout))
    if shuffle:
        found = begin("shuffling")
        if data is not None:
            data = shuffle_within_shards(data, seed=seed)
            found.append(Change("data", "order", "as it comes", "shards, and examples within each, shuffled"))
    return Acceleration(model, callbacks, data, Report(changes, [note] if note else []))


def _rate_change(optimizer: keras.optimizers.Optimizer, factor: float) -> list[Change]:
    schedule = schedule_of(optimizer)
    start = float(keras.ops.convert_to_numpy(schedule(0) if schedule else optimizer.learning_rate))
    return [Change("optimizer", "learning_rate", f"{start:g}", f"{factor * start:g}")]


def _decay_changes(optimizer: keras.optimizers.Optimizer, decay_speedup: float, steps: float | None) -> list[Change]:
    """What becomes of a schedule, or that it stays."""
    schedule = schedule_of(optimizer)
    if schedule is None:
        return []
    if isinstance(schedule, Accelerated):
        schedule = schedule.schedule
    fast = Accelerated(schedule, decay_speedup=decay_speedup, steps=steps)
    name, shape = type(schedule).__name__, fast.shape
    if shape.falls:
        changes = [Change("optimizer", name, "x 1", f"x {decay_speedup:g}")]
    else:
        changes = [Change("optimizer", name, str(shape), str(shape._replace(end=fast.end)))]
    if shape.warmup:
        changes.append(Change("optimizer", f"warm-up of {name}", *[f"{shape.warmup:g} steps"] * 2))
    return changes
