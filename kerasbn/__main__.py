"""`python -m kerasbn`: diagnose, recalibrate, fold and convert models from the shell."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

from kerasbn.command_line import DATA, CannotDo, check, parser, refusal, settings


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        status = _run(options)
        sys.stdout.flush()  # here, where an error can be told
        return status
    except KeyboardInterrupt:
        print("Interrupted. Nothing was written.", file=sys.stderr)
        return 130
    except OSError as error:  # of stdout, whose rest goes nowhere: Python would fail at it again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(refusal(options, f"The output cannot be written: {error.strerror}."), file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    import keras
    import tensorflow as tf

    import kerasbn

    try:
        check(options)
        model = _load(options.model, keras)
        if options.command == "diagnose":
            return _diagnose(kerasbn, model, options)
        if options.command == "recalibrate":
            found = kerasbn.recalibrate(
                model,
                _data(options.data, model),
                options.steps,
                layers=options.layers,
                batch_size=options.batch_size,
                verbose=_verbose(),
            )
            print(found)
        else:
            model, changes = _changed(kerasbn, model, options)
            print(*changes or ["There was nothing to change."], sep="\n")
        _save(model, options.out)
    except (CannotDo, ImportError, OSError, TypeError, ValueError, tf.errors.OpError) as error:
        print(refusal(options, _sentence(error)), file=sys.stderr)
        return 2
    print(f"Written: {options.out}")
    return 0


def _sentence(error: Exception) -> str:
    """The message of an error in one line. Keras's own have where it was met around it, and color."""
    parts = re.sub(r"\x1b\[\d*m", "", str(error)).strip().split("\n\n")
    what = parts[1] if parts[0].startswith("Exception encountered") and len(parts) > 1 else parts[0]
    return " ".join(what.split())


def _load(path: Path, keras: Any) -> Any:
    try:
        model = keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # whatever Keras meets in a broken file
        why = f"{type(error).__name__}: {_sentence(error)}"
        raise CannotDo(f"{path} cannot be loaded as a Keras model: {why}") from error
    if not isinstance(model, keras.Model):
        raise CannotDo(f"{path} must hold a keras.Model. Received: an object of class {type(model).__name__}.")
    return model


def _save(model: Any, path: Path) -> None:
    """Writes all or nothing."""
    from kerasbn.files import whole

    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        model.save(part)


def _data(path: Path, model: Any) -> Any:
    """The arrays of a file, as the model takes them."""
    import numpy as np

    try:
        with path.open("rb") as file:  # which NumPy leaves open where it fails
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            arrays = dict(loaded)
    except Exception as error:  # whatever NumPy meets in a broken file
        raise CannotDo(f"--data: {path} cannot be read as {DATA}. {_sentence(error)}") from error
    names = [tensor.name for tensor in getattr(model, "inputs", None) or []]
    if "x" in arrays:
        return arrays["x"]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if names and set(names) <= set(arrays):
        return {name: arrays[name] for name in names}
    raise CannotDo(f"--data must have an array `x`, or arrays {names}. Received: {path} with {sorted(arrays)}.")


def _verbose() -> int:
    """A bar on a terminal; elsewhere, where it would be thousands of lines of a log, one line."""
    return 1 if sys.stdout.isatty() else 2


def _diagnose(kerasbn: Any, model: Any, options: argparse.Namespace) -> int:
    from kerasbn.files import whole

    found = kerasbn.diagnose(
        model,
        _data(options.data, model),
        options.steps,
        layers=options.layers,
        batch_size=options.batch_size,
        verbose=0 if options.json else _verbose(),
    )
    print(found.to_json() if options.json else found)
    if options.plot:
        import matplotlib

        matplotlib.use("Agg")
        with whole(options.plot) as part:
            found.plot()[0].figure.savefig(part, dpi=130)
    return int(any(finding.severity != "note" for finding in found.findings))


def _changed(kerasbn: Any, model: Any, options: argparse.Namespace) -> tuple[Any, list[Any]]:
    changes: list[Any] = []
    if options.command == "fold":
        return kerasbn.fold(model, changes=changes), changes
    if options.to_keras:
        return kerasbn.to_keras(model, inference_only=options.inference_only, changes=changes), changes
    return kerasbn.convert(model, changes=changes, **settings(options)), changes


if __name__ == "__main__":
    sys.exit(main())
