"""`python -m kerasbn`: diagnose, recalibrate, fold and convert models from the shell."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

EXAMPLES = """examples:
  python -m kerasbn diagnose model.keras --data train.npz --batch-size 64
  python -m kerasbn recalibrate model.keras --data train.npz --out recalibrated.keras
  python -m kerasbn fold recalibrated.keras --out serving.keras
  python -m kerasbn convert model.keras --out synchronized.keras --synchronized
  python -m kerasbn convert model.keras --out plain.keras --to-keras

exit status: 0 if all went well; 1 if diagnose found a warning or an error; 2 for what cannot be done; 130
after an interrupt
"""
DATA = "arrays: a .npy file, or .npz with `x`, with one array, or with one for each of the model's inputs by its name"


class CannotDo(Exception):
    """What was asked for cannot be done; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("Interrupted. Nothing was written.", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    import keras
    import tensorflow as tf

    import kerasbn

    try:
        if options.out is not None:
            _check_out(options.out, options.overwrite)
        model = _load(options.model, keras)
        if options.command == "diagnose":
            return _diagnose(kerasbn, model, options)
        if options.command == "recalibrate":
            found = kerasbn.recalibrate(
                model, _data(options.data, model), options.steps, batch_size=options.batch_size, verbose=1
            )
            print(found)
        else:
            model, changes = _changed(kerasbn, model, options)
            print(*changes or ["There was nothing to change."], sep="\n")
        _save(model, options.out)
    except (CannotDo, ImportError, OSError, TypeError, ValueError, tf.errors.OpError) as error:
        print(f"python -m kerasbn {options.command}: {_sentence(error)}", file=sys.stderr)
        return 2
    print(f"Written: {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kerasbn",
        description="Batch normalization of Keras models, from training to serving.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, description: str, *, data: bool = False, out: bool = True) -> argparse.ArgumentParser:
        new = commands.add_parser(name, help=description, description=description)
        new.add_argument("model", type=Path, help="a .keras file; it is loaded with safe_mode=True")
        new.set_defaults(out=None)
        if data:
            new.add_argument("--data", type=Path, required=True, help=DATA)
            new.add_argument("--batch-size", type=int, default=32, help="that of the training (default: %(default)s)")
            new.add_argument("--steps", type=int, help="how many batches are read (default: all)")
        if out:
            new.add_argument("--out", type=Path, required=True, help="the .keras file to write")
            new.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
        return new

    diagnose = command("diagnose", "say what is wrong with the batch normalization of a model", data=True, out=False)
    diagnose.add_argument("--json", action="store_true", help="print JSON")
    diagnose.add_argument("--plot", type=Path, metavar="FILE", help="draw the layers into FILE, such as diagnosis.png")
    command("recalibrate", "estimate the population statistics of a model anew, from training data", data=True)
    command("fold", "make the inference network: normalizations go into the weights of their neighbours")
    convert = command("convert", "make every batch normalization of Keras one of kerasbn, or back")
    convert.add_argument("--to-keras", action="store_true", help="the other way, for machines without kerasbn")
    convert.add_argument(
        "--inference-only", action="store_true", help="with --to-keras: leave out options that matter in training only"
    )
    convert.add_argument("--synchronized", action="store_true", help="moments over all replicas")
    convert.add_argument("--virtual-batch-size", type=int, help="samples that are normalized together")
    convert.add_argument("--momentum", type=float, help="of the moving statistics")
    return parser


def _sentence(error: Exception) -> str:
    """The message of an error in one line. Keras's own have where it was met around it, and color."""
    parts = re.sub(r"\x1b\[\d*m", "", str(error)).strip().split("\n\n")
    what = parts[1] if parts[0].startswith("Exception encountered") and len(parts) > 1 else parts[0]
    return " ".join(what.split())


def _load(path: Path, keras: Any) -> Any:
    if not path.is_file():
        raise CannotDo(f"There is no file {path}.")
    if path.suffix != ".keras":  # Keras reads other formats, but not all of them in safe mode
        raise CannotDo(f"The model must be a .keras file. Received: {path}. Save it with model.save('model.keras').")
    try:
        model = keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # whatever Keras meets in a broken file
        why = f"{type(error).__name__}: {_sentence(error)}"
        raise CannotDo(f"{path} cannot be loaded as a Keras model: {why}") from error
    if not isinstance(model, keras.Model):
        raise CannotDo(f"{path} must hold a keras.Model. Received: an object of class {type(model).__name__}.")
    return model


def _check_out(path: Path, overwrite: bool) -> None:
    """What is known of `--out` before the work."""
    if path.suffix != ".keras":
        raise CannotDo(f"--out must be a .keras file. Received: {path}.")
    if path.exists() and not overwrite:
        raise CannotDo(f"{path} exists. Nothing was changed. Name another file, or give --overwrite.")


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


def _diagnose(kerasbn: Any, model: Any, options: argparse.Namespace) -> int:
    from kerasbn.files import whole

    found = kerasbn.diagnose(
        model,
        _data(options.data, model),
        options.steps,
        batch_size=options.batch_size,
        verbose=0 if options.json else 1,
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
    settings = {
        name: value
        for name, value in (
            ("synchronized", options.synchronized or None),
            ("virtual_batch_size", options.virtual_batch_size),
            ("momentum", options.momentum),
        )
        if value is not None
    }
    if options.to_keras:
        if settings:
            raise CannotDo(f"--to-keras takes no settings. Received: {', '.join(settings)}.")
        return kerasbn.to_keras(model, inference_only=options.inference_only, changes=changes), changes
    if options.inference_only:
        raise CannotDo("--inference-only is of --to-keras, which was not asked for.")
    return kerasbn.convert(model, changes=changes, **settings), changes


if __name__ == "__main__":
    sys.exit(main())
