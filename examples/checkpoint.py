"""The state of a training at its last measurement, kept beside the results that it belongs to."""

import io
from pathlib import Path

import keras
import numpy as np

from benchmarks.report import write_whole
from examples.results import Results, Run
from kerasbn.snapshot import training_state


class Checkpoint:
    """One run's file: weights, moving statistics, seeds, and the optimizer's slots and counters."""

    def __init__(self, results: Results, run: Run) -> None:
        self._results, self._run = results, run

    def save(self, model: keras.Model) -> None:
        """Writes the results, with a measurement that was added to the run, and the state that it was made in.

        The state goes first, under the number of measurements that it belongs to: a kill in between loses one stretch,
        no more. A run that has ended needs none.
        """
        ended = self._results.has_ended(self._run)
        if not ended:
            content = io.BytesIO()
            np.savez(content, *(np.asarray(v) for v in training_state(model)))
            write_whole(self._path(len(self._run.steps)), content.getvalue())
        self._results.save()
        self.remove(but=None if ended else len(self._run.steps))

    def restore(self, model: keras.Model) -> bool:
        """Gives `model` the state of the last measurement. Where that is lost, nothing is changed, and it says so."""
        variables = training_state(model)
        try:
            with self._path(len(self._run.steps)).open("rb") as file, np.load(file) as stored:
                values = list(stored.values())
        except Exception:  # whatever NumPy meets in a broken file
            return False
        if [value.shape for value in values] != [tuple(v.shape) for v in variables]:
            return False
        if any(value.dtype.kind not in "biufV" for value in values):  # "V" is what NumPy calls bfloat16 in a file
            return False
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return True

    def remove(self, but: int | None = None) -> None:
        """Removes the run's files, but for that of one measurement."""
        for path in self._results.folder.glob(f"{self._run.network}-{self._run.seed}-*.npz"):
            if but is None or path != self._path(but):
                path.unlink(missing_ok=True)

    def _path(self, measurements: int) -> Path:
        return self._results.folder / f"{self._run.network}-{self._run.seed}-{measurements}.npz"
