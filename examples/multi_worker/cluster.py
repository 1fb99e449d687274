"""Starts workers on this machine, watches them, and ends every one that it has started."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import lifeline

ROOT = Path(__file__).parents[2]

#: How long, in seconds, workers may take to notice that one of them has died. TensorFlow takes about ten.
GRACE = 60.0


class Cluster:
    """Worker processes, on free ports of the loopback interface. All end with this process, also if it is killed.

    Args:
        workers: How many; 0 for one process without a cluster.
        arguments: Of each worker.
        logs: The folder for their output, ``worker-0.log`` and so on.
        module: What each runs.
    """

    def __init__(
        self, workers: int, arguments: Sequence[str], logs: Path, module: str = "examples.multi_worker.worker"
    ) -> None:
        self.workers, self.arguments, self.logs, self.module = workers, list(arguments), logs, module
        self.processes: dict[int, subprocess.Popen] = {}
        self._addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]

    def __enter__(self) -> "Cluster":
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def start(self, index: int) -> subprocess.Popen:
        """Starts one worker."""
        # Workers on one machine would fight for its GPUs.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
        environment.pop("TF_CONFIG", None)
        if self.workers:
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": self._addresses}, "task": task})
        with self.log(index).open("ab") as log:
            self.processes[index] = lifeline.start(
                [sys.executable, "-u", "-m", self.module, *self.arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.processes[index]

    def start_all(self) -> None:
        for index in range(max(1, self.workers)):
            self.start(index)

    def log(self, index: int) -> Path:
        return self.logs / f"worker-{index}.log"

    def wait(self, timeout: float, on_tick: Any = lambda: None) -> dict[int, int]:
        """Waits until all have ended. Once one has failed, the others get `GRACE` seconds, then they are ended.

        Args:
            timeout: In seconds; after it all are ended.
            on_tick: Called several times a second.

        Returns:
            The exit status of each worker that failed, negative for a signal; empty if all went well.
        """
        end = time.monotonic() + timeout
        failed: dict[int, int] = {}
        while any(process.poll() is None for process in self.processes.values()):
            on_tick()
            codes = {index: process.poll() for index, process in self.processes.items()}
            if not failed and any(codes.values()):
                failed = {index: code for index, code in codes.items() if code}
                end = min(end, time.monotonic() + GRACE)
            if time.monotonic() > end:
                for process in self.processes.values():
                    process.kill()
            time.sleep(0.1)
        on_tick()
        return failed or {index: process.returncode for index, process in self.processes.items() if process.returncode}


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens now. One may be taken before its worker starts: then that worker fails."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def how_it_ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
