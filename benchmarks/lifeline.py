"""Processes that end with the one that started them, however that ends.

What a process starts goes on when it is killed, as nobody is there any more to end it. So the two hold the ends of a
pipe. Nothing is written to it: the system closes the one end with the process that has it, and at the other end that
is seen at once. It works wherever there are pipes, and no process number is taken for that of another process.
"""

import os
import subprocess
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

#: The number of the pipe's end in the process that was started.
VARIABLE = "KERASBN_LIFELINE"


def start(command: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen:
    """A process that ends with this one if it calls `end_with_parent`; arguments are those of `subprocess.Popen`."""
    reader, writer = os.pipe()
    try:
        environment = {**(os.environ if env is None else env), VARIABLE: str(reader)}
        process = subprocess.Popen(command, env=environment, pass_fds=[reader], **options)
    except BaseException:
        os.close(writer)
        raise
    finally:
        os.close(reader)
    weakref.finalize(process, os.close, writer)
    return process


def end_with_parent() -> None:
    """Ends this process as soon as the one that started it by `start` has ended; if none did, nothing happens."""
    number = os.environ.pop(VARIABLE, None)
    if number is not None:
        os.set_inheritable(int(number), False)
        threading.Thread(target=_wait, args=(int(number),), name="lifeline", daemon=True).start()


def _wait(reader: int) -> None:
    os.read(reader, 1)
    os._exit(1)  # with all threads, wherever they are
