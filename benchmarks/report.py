"""What a benchmark leaves behind: JSON, and the same as a table."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def machine() -> dict[str, str | int | None]:
    """What a reader must know to compare with another machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = models[0] if models else model
    found: dict[str, str | int | None] = {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version()}
    for package in ("tensorflow", "keras", "torch", "numpy", "kerasbn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all. What is no file, such as a pipe, is written to as it is.

    Raises:
        OSError: If it cannot be written; it names `path`.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not (path.is_file() or path.is_dir()):
            path.write_bytes(content)
            return
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def publish(path: Path, content: dict, rows: list[list[str]]) -> None:
    """Prints the table and writes the JSON."""
    print(table(rows))
    write_whole(path, (json.dumps({"machine": machine(), **content}, indent=1) + "\n").encode())
    print(f"\nWritten: {path}")


def table(rows: list[list[str]]) -> str:
    """Rows as aligned text, the first one a heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def markdown(rows: list[list[str]]) -> str:
    """Rows as a table of a document, the first one a heading."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
