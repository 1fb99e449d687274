"""Several processes on the loopback interface: what they compute, and what they do when one is late or dies."""

import re
import signal
import subprocess
import sys
import time
from os import kill

import pytest

from examples.multi_worker.cluster import GRACE, ROOT, Cluster
from tests.crossing import first_of


@pytest.mark.parametrize("workers", first_of([2, 3]))
def test_what_only_workers_can_see(workers, tmp_path):
    """The last one starts two seconds late: the others wait."""
    with Cluster(workers, [], tmp_path, module="tests.worker_checks") as cluster:
        for index in range(workers - 1):
            cluster.start(index)
        time.sleep(2)
        cluster.start(workers - 1)
        failed = cluster.wait(timeout=200)
        logs = [cluster.log(index).read_text() for index in range(workers)]
    assert not failed, logs[min(failed)][-3000:]
    for log in logs:
        assert log.count("holds\n") == 4


def example(tmp_path, *arguments):
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "examples.multi_worker", "--dtype", "float64", "--out", str(tmp_path), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # What is started in the background of a script inherits that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def difference(output):
    return float(re.search(r"largest relative difference of a weight: (\S+)", output)[1])


@pytest.mark.slow
def test_workers_train_like_one_process_also_after_one_was_killed(tmp_path):
    """Batches of 51 and a last one of 21 do not divide. The third epoch is broken off, and trained again."""
    with example(tmp_path, "--epochs", "4", "--batch-size", "51", "--workers", "2", "--timeout", "200") as process:
        try:
            output = ""
            for line in process.stdout:
                output += line
                if ": 2 workers, epoch 2 of 4, " in line:
                    break
            victim = int(re.findall(r"process (\d+)", output)[1])
            kill(victim, signal.SIGKILL)
            start = time.monotonic()
            for line in process.stdout:
                output += line
                if "starting all workers again" in line:
                    break
            assert time.monotonic() - start < GRACE, output  # the other one ended by itself
            output += process.communicate(timeout=200)[0]
        finally:
            process.kill()
    assert process.returncode == 0, output
    assert "worker 1 was ended by SIGKILL" in output
    survivor = (tmp_path / "2-workers" / "worker-0.log").read_text()
    assert "Collective ops is aborted" in survivor and "Another worker has died. Start all again" in survivor
    shown = re.findall(r"% after .*: epoch (\d) of 4", survivor) + re.findall(
        r"done after .*: epoch (\d) of 4", survivor
    )
    assert shown == ["1", "2", "3", "4"] and "training: resumed at 50%" in survivor
    assert difference(output) < 1e-9


@pytest.mark.slow
def test_an_interrupt_ends_all_workers(tmp_path):
    """In a terminal they get it, too. From a script only the command does, which ends them."""
    with example(tmp_path, "--workers", "2", "--epochs", "100") as process:
        try:
            started = next(line for line in process.stdout if "process" in line)
            workers = [int(pid) for pid in re.findall(r"process (\d+)", started)]
            assert len(workers) == 2
            process.send_signal(signal.SIGINT)
            output = process.communicate(timeout=60)[0]
        finally:
            process.kill()
    assert process.returncode == 130 and output.endswith("\nInterrupted.\n")
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            kill(worker, 0)


@pytest.mark.slow
def test_one_that_keeps_dying_is_reported(tmp_path):
    """An option that the worker does not accept stands for any error: no hang, a status and where to look."""
    with Cluster(2, ["--epochs", "none", "--out", str(tmp_path)], tmp_path) as cluster:
        cluster.start_all()
        failed = cluster.wait(timeout=100)
    assert failed and set(failed.values()) == {2}
    assert "invalid" in cluster.log(min(failed)).read_text()
    assert all(process.poll() is not None for process in cluster.processes.values())


def test_replicas_train_like_one_device():
    """Three parts of the CPU; batches of 50 and a last one of 47 do not divide."""
    arguments = ["--replicas", "3", "--epochs", "1", "--batch-size", "50", "--dtype", "float64"]
    done = subprocess.run(
        [sys.executable, "-m", "examples.multi_replica", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert difference(done.stdout) < 1e-9
