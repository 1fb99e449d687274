"""How a command ends: with a sentence where a user can do something about it."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from benchmarks.lifeline import end_with_parent

#: What a file system refuses: no room, no permission, a name that it cannot take.
REFUSALS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)


#: What can be done where results cannot be written.
ADVICE = "Make room, or name another place."


def unwritable(error: BaseException) -> str | None:
    """What the file system refused, and why; `None` if something else went wrong.

    TensorFlow's errors have no number, but the text of the system.
    """
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return f"{error.filename or 'The output'}: {error.strerror}."
    if type(error).__module__.startswith("tensorflow"):
        if any(os.strerror(number) in str(error) for number in REFUSALS):
            return f"{str(error).splitlines()[0].rstrip('.')}."
    return None


def ended(work: Callable[[], int | None], advice: str = "") -> int:
    """The exit status of a command that does `work`: its own, 2 with a sentence if something cannot be written.

    If another command started this one, it ends when that one is killed.

    Args:
        work: What it does. It may return an exit status.
        advice: What can be done then.
    """
    end_with_parent()
    try:
        status = work() or 0
        sys.stdout.flush()  # here, where an error can be told
        return status
    except BrokenPipeError:  # whoever reads has enough, as in `command | head`
        _discard_output()
        return 1
    except Exception as error:
        reason = unwritable(error)
        if reason is None:
            raise
        _discard_output()
        print(f"{reason} {advice}".rstrip(), file=sys.stderr)
        return 2


def _discard_output() -> None:
    """What is left in the buffer of stdout goes nowhere: Python would fail at it again when it ends."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
