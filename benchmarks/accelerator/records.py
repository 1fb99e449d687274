"""What the commands that need JAX share. Each result is written when it is there."""

import argparse
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path


def need_jax(parser: argparse.ArgumentParser, *others: str) -> None:
    """Ends the command if JAX, or another package that it needs, is not installed."""
    missing = [name for name in ("jax", *others) if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(f"needs the packages {', '.join(missing)}; pip install -e '.[accelerator]' has them")


def write_lines(path: Path, records: Iterable[dict]) -> None:
    """Writes records as they come, as JSON lines, and says of each that it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as out:
        for record in records:
            print(json.dumps(record), file=out, flush=True)
            print({key: value for key, value in record.items() if not isinstance(value, dict)}, flush=True)
