"""Calls functions in a process of its own, in which nothing has been compiled, cached or allocated before."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks import lifeline

ROOT = Path(__file__).parents[1]


class ProcessFailed(Exception):
    """The process ended without an answer; the message has what it said last."""


class Process:
    """A process that calls what it is told to and is idle in between. It is ended with the `with` that holds it.

    Should this process be killed, the other one ends, too.
    """

    def __init__(self, **environment: str) -> None:
        self._said = tempfile.TemporaryFile("w+")
        self._process = lifeline.start(
            [sys.executable, "-m", "benchmarks.fresh"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def call(self, function: str, *arguments: object, timeout: float = 900) -> object:
        """The result of `function`, named "module:function". Arguments and result are what JSON can hold.

        Raises:
            ProcessFailed: If there is none, or not within `timeout` seconds.
        """
        limit = threading.Timer(timeout, self._process.kill)
        limit.start()
        try:
            self._process.stdin.write(json.dumps([function, arguments]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:  # it ended before
            answer = ""
        finally:
            limit.cancel()
        if not answer:
            self._said.seek(0)
            reason = self._said.read()[-2000:]
            raise ProcessFailed(f"{function}{arguments} has no result (limit: {timeout} s). The process said: {reason}")
        return json.loads(answer)


def call(function: str, *arguments: object) -> object:
    """One call in a process that does nothing else; see `Process.call`."""
    with Process() as process:
        return process.call(function, *arguments)


def serve() -> None:
    """Answers calls until no more can come."""
    lifeline.end_with_parent()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    for line in sys.stdin:
        function, arguments = json.loads(line)
        module, name = function.split(":")
        print(json.dumps(getattr(importlib.import_module(module), name)(*arguments)), file=answers, flush=True)


if __name__ == "__main__":
    serve()
