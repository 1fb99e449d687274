"""A study in several processes of this machine: a chief, who hands out the trials, and workers, who run them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import lifeline
from examples.multi_worker.cluster import free_ports, how_it_ended
from tuning.results import PROJECT, ended

HOST = "127.0.0.1"
#: Seconds between two looks at the processes.
TICK = 0.2


class WorkerLost(Exception):
    """A process ended that the study cannot do without; the message says which, and with which trial."""


class Cluster:
    """The processes of a study. All end with it, whatever happens, also if it is killed.

    A worker that is killed is started again under its name, and the chief gives it the trial that it had: that is how
    Keras Tuner's protocol works. One that ends with an error of its own would meet it again, so the study ends.

    Args:
        out: The folder of the study, which has begun. What the processes print goes to `logs` in it.
        command: The options of `python -m tuning.study` for all of them.
        workers: How many.
        restarts: How often each may be killed.
    """

    def __init__(self, out: Path, command: list[str], workers: int, restarts: int) -> None:
        self.out, self.names = out, [f"worker{index}" for index in range(workers)]
        self._address = f"{HOST}:{free_ports(1)[0]}"
        self._command, self._left = command, dict.fromkeys(self.names, restarts)
        self.processes: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "Cluster":
        for name in ("chief", *self.names):
            self._start(name)
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _start(self, name: str) -> None:
        log = self.out / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        (self.out / PROJECT / f"{name}.json").unlink(
            missing_ok=True
        )  # a worker has no state, but may have been writing
        threads = str(max(1, (os.cpu_count() or 1) // len(self.names)))
        local = {"no_grpc_proxy": HOST, "TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
        member = [*self._command, "--chief", self._address, "--worker-id", name, "--resume"]
        with open(log, "a") as stream:
            self.processes[name] = lifeline.start(
                [sys.executable, "-m", "tuning.study", *member],
                env=os.environ | local,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def wait(self, timeout: float, on_tick=lambda: None, say: Callable[[str], None] = print) -> None:
        """Waits until all trials have ended.

        Args:
            timeout: In seconds.
            on_tick: Called several times a second.
            say: Function that prints a line.

        Raises:
            WorkerLost: If a process ended with an error, was killed more than `restarts` times, or if time is up.
        """
        end = time.monotonic() + timeout
        while any(self.processes[name].poll() is None for name in self.names):
            on_tick()
            for name, process in self.processes.items():
                code = process.poll()
                if code and code < 0 and self._left.get(name, 0):
                    self._left[name] -= 1
                    say(f"{name} {how_it_ended(code)}. It is started again, with {self._trial(name)}.")
                    self._start(name)
                    break  # the processes are other ones now
                if code:
                    raise WorkerLost(f"{name} {how_it_ended(code)}, with {self._trial(name)}.\n{self._tail(name)}")
            if time.monotonic() > end:
                raise WorkerLost(f"The study is not done after {timeout:g} seconds.")
            time.sleep(TICK)
        on_tick()
        # The chief looks whether it is done every 20 seconds only. All that it knows is on disk.
        self.processes["chief"].send_signal(signal.SIGTERM)

    def _trial(self, name: str) -> str:
        try:
            ongoing = json.loads((self.out / PROJECT / "oracle.json").read_text())["ongoing_trials"]
        except (OSError, ValueError, KeyError, TypeError):  # it may be being written
            ongoing = {}
        return f"trial {ongoing[name]}" if name in ongoing else "no trial"

    def _tail(self, name: str) -> str:
        log = self.out / "logs" / f"{name}.log"
        return "\n".join([*log.read_text(errors="replace").splitlines()[-12:], f"All that it printed is in {log}."])


def finished(out: Path) -> list[str]:
    """The names of the trials that have ended."""
    return sorted(folder.name.removeprefix("trial_") for folder in (out / PROJECT).glob("trial_*") if ended(folder))
