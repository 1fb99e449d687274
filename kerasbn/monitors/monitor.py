"""When a monitor measures, and where that goes."""

import csv
import io
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasbn.arguments import count, with_call
from kerasbn.files import whole


class Monitor(keras.callbacks.Callback):
    """Measures before the first step, and then at the end of each epoch or every so many steps.

    A `fit` that begins with epoch 0 begins anew, and writes over `file`. One with an `initial_epoch`, or after
    `keras.callbacks.BackupAndRestore`, goes on: steps count from ``initial_epoch`` times those of an epoch (from the
    last measurement, where Keras does not know how many these are), and what was measured up to there stays, in
    `history` and in `file`. A new process has no `history`, and begins it by measuring where it resumes.

    Subclasses define `measure`, from nothing to numbers by name, and if they read values in the model, `make_probe`.

    Args:
        every: Integer above 0, steps between two measurements; `None` for the end of each epoch.
        file: Path of a CSV file that gets a line for each measurement, or `None`. It is whole at any time.
        log_dir: Folder for TensorBoard, or `None`.
        model: The model that is measured: `None` for the one that is trained, or one in it.

    Attributes:
        history: A list with a dictionary for each measurement: `step`, and the numbers by name.
    """

    def __init__(
        self, every: int | None = None, file: Any = None, log_dir: Any = None, model: keras.Model | None = None
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__()
        self._given = None if model is None else with_call(model)
        self.every = None if every is None else count("every", every, 1)
        self.file = None if file is None else Path(file)
        self.log_dir = log_dir
        self.history: list[dict[str, float]] = []
        self._earlier: list[dict[str, float]] = []  # what is in the file of a process before
        self._step = self._before_epoch = 0
        self._begun = False
        self._writer: Any = None
        self._probe: Any = None
        self._traced: Any = None

    @property
    def measured(self) -> keras.Model:
        """The model that is measured."""
        return self.model if self._given is None else self._given

    def measure(self) -> dict[str, float]:
        """What is measured of the model now."""
        raise NotImplementedError

    def begin(self) -> None:
        """Called before the first step of a `fit`; what `history` has is what stays of it."""

    def make_probe(self) -> Any:
        """What reads the model, to be traced."""
        raise NotImplementedError

    @property
    def probe(self) -> Any:
        """What reads the model; its trace is kept from one measurement to the next, as tracing takes memory.

        It holds as long as that of the training step: both change with rates of dropout, freezing and `compile`.
        """
        step = self.model.train_function
        if self._probe is None or self._traced is not step:
            self._probe, self._traced = self.make_probe(), step
        return self._probe

    def on_train_begin(self, logs: Any = None) -> None:
        """Waits for the first epoch: until then a backup may be restored, and it is not known which that is."""
        self._begun = False
        self._probe = self._traced = None
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(os.fspath(self.log_dir))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Measures what there is before the first step."""
        if self._begun:
            return
        self._begun = True
        if not epoch:
            self.history, self._earlier = [], []
        elif not self.history and self.file is not None and self.file.exists():
            self._earlier = _read(self.file)
        last = [0, *(int(row["step"]) for row in (*self._earlier, *self.history))][-1]
        steps = self.params.get("steps")
        self._step = self._before_epoch = epoch * steps if steps else last
        self.history = [row for row in self.history if row["step"] <= self._step]
        self.begin()
        if not self.history:
            self._earlier = [row for row in self._earlier if row["step"] < self._step]
            self._measure()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Measures if it is time."""
        before, self._step = self._step, self._before_epoch + batch + 1
        if self.every is not None and self._step // self.every > before // self.every:
            self._measure()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures if it is time, and adds the last measurement to the logs."""
        self._before_epoch = self._step
        if self.every is None:
            self._measure()
        if logs is not None:
            logs.update({name: value for name, value in self.history[-1].items() if name != "step"})

    def on_train_end(self, logs: Any = None) -> None:
        """Closes TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()

    def _measure(self) -> None:
        with np.errstate(all="ignore"):  # what is not finite is to be seen, not to end a training
            row = {"step": self._step, **self.measure()}
        if self._earlier and self._earlier[0].keys() != row.keys():
            raise _not_ours(self.file, f"with {list(self._earlier[0])} instead of {list(row)}")
        self.history.append(row)
        if self._writer is not None:
            with self._writer.as_default(step=self._step):
                for name, value in row.items():
                    if name != "step":
                        tf.summary.scalar(name, value)
                self._writer.flush()
        if self.file is not None:
            _write(self.file, [*self._earlier, *self.history])


def _read(file: Path) -> list[dict[str, float]]:
    try:
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        return [{"step": int(row.pop("step"))} | {name: float(value) for name, value in row.items()} for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise _not_ours(file, f"which cannot be read ({error!r})") from error


def _not_ours(file: Path | None, what: str) -> ValueError:
    return ValueError(
        f"Argument `file` must be one that this monitor wrote, or new, where a training is resumed. Received: {file}, "
        f"{what}. Give another name, or remove it."
    )


def _write(file: Path, rows: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with whole(file) as part:
        part.write_text(text.getvalue())
