"""What a command starts ends with it, also if it is killed, and who holds a folder is named."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from benchmarks import lifeline
from examples.folder import FolderUnusable, held

ROOT = Path(__file__).parents[1]
#: Programs that start processes, print their numbers and wait; the folder is for what they write.
PROGRAMS = {
    "start": """
        import sys, time
        from benchmarks import lifeline
        child = "import time; from benchmarks.lifeline import end_with_parent; end_with_parent(); time.sleep(60)"
        print(lifeline.start([sys.executable, "-c", child]).pid, flush=True)
        time.sleep(60)
    """,
    "tuning.study": """
        import pathlib, sys, time
        from tuning.cluster import Cluster
        with Cluster(pathlib.Path(sys.argv[1]), ["--out", sys.argv[1]], workers=2, restarts=0) as cluster:
            print(*(process.pid for process in cluster.processes.values()), flush=True)
            time.sleep(60)
    """,
    "examples.multi_worker": """
        import pathlib, sys, time
        from examples.multi_worker.cluster import Cluster
        with Cluster(2, ["--out", sys.argv[1], "--epochs", "1000"], pathlib.Path(sys.argv[1])) as cluster:
            cluster.start_all()
            print(*(process.pid for process in cluster.processes.values()), flush=True)
            time.sleep(60)
    """,
    "benchmarks.fresh": """
        from benchmarks import fresh
        process = fresh.Process()
        print(process.call("os:getpid"), flush=True)
        process.call("time:sleep", 60)
    """,
    "benchmarks": """
        import sys
        from benchmarks import lifeline
        from benchmarks.__main__ import run
        start = lifeline.start
        def shown(*arguments, **options):
            process = start(*arguments, **options)
            print(process.pid, flush=True)
            return process
        lifeline.start = shown
        run("soak", "--out", sys.argv[1] + "/soak.json")
    """,
}


def is_running(pid):
    """Whether there is such a process, and it has not ended without anyone to take note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid):
    deadline = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_started_ends_with_a_killed_parent(program, number, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAMS[program]), str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        started = []
        try:
            while not started:
                started = [int(word) for word in parent.stdout.readline().split()]
            parent.send_signal(number)
            parent.wait()
            assert all(map(ends, started))
        finally:
            parent.kill()
            for pid in filter(is_running, started):
                os.kill(pid, signal.SIGKILL)


def test_a_process_that_nobody_started_so_is_left_alone(monkeypatch):
    monkeypatch.delenv(lifeline.VARIABLE, raising=False)
    lifeline.end_with_parent()  # this one goes on


def test_nothing_stays_open():
    before = set(os.listdir("/proc/self/fd"))
    process = lifeline.start([sys.executable, "-c", "pass"])
    assert process.wait() == 0
    del process
    with pytest.raises(FileNotFoundError):
        lifeline.start([sys.executable + "-is-not-here"])
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_is_started_hands_its_lifeline_to_nobody():
    """A grandchild that held the pipe, or read its number, would end with the wrong process."""
    code = f"import os; from benchmarks import lifeline; n = int(os.environ[{lifeline.VARIABLE!r}]); "
    code += f"lifeline.end_with_parent(); print({lifeline.VARIABLE!r} in os.environ, os.get_inheritable(n))"
    process = lifeline.start([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0] == "False False\n"


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="Linux lists who holds a lock")
def test_who_holds_a_folder_is_named(tmp_path):
    code = "import pathlib, sys, time; from examples.folder import held\n"
    code += "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(FolderUnusable) as refused, held(tmp_path):
                pass
        finally:
            process.kill()
    said = str(refused.value)
    assert (
        "Another process is writing into" in said and f"It is process {process.pid} (" in said and str(tmp_path) in said
    )
