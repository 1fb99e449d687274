"""The options of `python -m kerasbn`, which are read and checked without TensorFlow."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

from kerasbn.version import __version__

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


def about_to_run() -> bool:
    """Whether Python imports this package in order to run `python -m kerasbn`.

    The first argument is "-m" while Python looks for the module, and becomes the path of the module before it runs.
    """
    if sys.argv[:1] != ["-m"]:
        return False
    return re.fullmatch(r"(-[a-zA-Z]*m)?kerasbn(\.__main__)?", sys.orig_argv[-len(sys.argv)]) is not None


def begin() -> None:
    """Ends the process if the options of the command ask for help, or for what cannot be done."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow, which comes next, reads it
    options = parser().parse_args()
    try:
        check(options)
    except CannotDo as error:
        print(refusal(options, error), file=sys.stderr)
        sys.exit(2)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What `convert` was asked to give to the new layers."""
    found = {name: getattr(options, name) for name in ("synchronized", "virtual_batch_size", "momentum")}
    return {name: value for name, value in found.items() if value is not None}


def refusal(options: argparse.Namespace, reason: object) -> str:
    """What a command that cannot be done says."""
    return f"python -m kerasbn {options.command}: {reason}"


def check(options: argparse.Namespace) -> None:
    """Looks at everything that can be known of the options before a model is read.

    Raises:
        CannotDo: If there is nothing to read, no place to write to, or if the options exclude each other.
    """
    if options.out is not None:
        if options.out.suffix != ".keras":
            raise CannotDo(f"--out must be a .keras file. Received: {options.out}.")
        if options.out.exists() and not options.overwrite:
            raise CannotDo(f"{options.out} exists. Nothing was changed. Name another file, or give --overwrite.")
    if not options.model.is_file():
        raise CannotDo(f"There is no file {options.model}.")
    if options.model.suffix != ".keras":  # Keras reads other formats, but not all of them in safe mode
        raise CannotDo(
            f"The model must be a .keras file. Received: {options.model}. Save it with model.save('model.keras')."
        )
    data = getattr(options, "data", None)
    if data is not None and not data.is_file():
        raise CannotDo(f"There is no file {data}. --data must be {DATA}.")
    if options.command == "convert":
        if options.to_keras and settings(options):
            raise CannotDo(f"--to-keras takes no settings. Received: {', '.join(settings(options))}.")
        if options.inference_only and not options.to_keras:
            raise CannotDo("--inference-only is of --to-keras, which was not asked for.")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    made = argparse.ArgumentParser(
        prog="python -m kerasbn",
        description="Batch normalization of Keras models, from training to serving.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"kerasbn {__version__}")
    commands = made.add_subparsers(dest="command", required=True)

    def command(name: str, description: str, *, data: bool = False, out: bool = True) -> argparse.ArgumentParser:
        new = commands.add_parser(name, help=description, description=description)
        new.add_argument("model", type=Path, help="a .keras file; it is loaded with safe_mode=True")
        new.set_defaults(out=None)
        if data:
            new.add_argument("--data", type=Path, required=True, help=DATA)
            new.add_argument(
                "--batch-size", type=_count, default=32, help="that of the training (default: %(default)s)"
            )
            new.add_argument("--steps", type=_count, help="how many batches are read (default: all)")
            new.add_argument("--layers", nargs="+", metavar="NAME", help="only these, also if frozen (default: all)")
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
    groups = convert.add_mutually_exclusive_group()
    groups.add_argument("--synchronized", action="store_true", default=None, help="moments over all replicas")
    groups.add_argument("--virtual-batch-size", type=_count, help="samples that are normalized together")
    convert.add_argument("--momentum", type=_share, help="of the moving statistics, from 0 to 1")
    return made


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Received: {text}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1. Received: {text}")
    return value
