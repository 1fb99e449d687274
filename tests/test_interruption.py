"""A process may end at any time: what it measured can be read, and one folder belongs to one process at a time."""

import ast
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report import write_whole
from examples.folder import FolderUnusable, held
from examples.mnist_sigmoid.__main__ import main as mnist_sigmoid
from examples.mnist_sigmoid.results import Results
from kerasbn.files import whole

ROOT = Path(__file__).parents[1]
PACKAGES = ("kerasbn", "tuning", "examples", "benchmarks")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

# Who writes, statically.

#: Calls that write a file under the name that they are given.
WRITES = {
    "write_text",
    "write_bytes",
    "savefig",
    "save",
    "savez",
    "savez_compressed",
    "savetxt",
    "save_weights",
    "export",
}
WRITES |= {"dump", "to_csv", "copyfile", "copytree", "tofile", "save_model"}
#: Those that may, with the reason.
ALLOWED = {
    ("benchmarks/report.py", "temporary.write_bytes"): "is what writes whole files",
    ("benchmarks/report.py", "path.write_bytes"): "a pipe or a device",
    ("kerasbn/__main__.py", "model.save"): "into the part of kerasbn.files.whole",
    ("kerasbn/__main__.py", "found.plot()[0].figure.savefig"): "into the part of kerasbn.files.whole",
    ("kerasbn/monitors/monitor.py", "part.write_text"): "into the part of kerasbn.files.whole",
    ("kerasbn/tuner/tuners.py", "part.write_text"): "into the part of kerasbn.files.whole",
    ("tuning/recovery.py", "Trial(hyperparameters, trial_id=name, status=TrialStatus.RUNNING).save"): (
        "Keras Tuner's own way; what a kill leaves of it is set aside at the next start"
    ),
    ("tuning/cluster.py", "open(log, 'a')"): "a log, which is not read again",
    ("examples/multi_worker/cluster.py", "self.log(index).open('ab')"): "a log, which is not read again",
    (
        "examples/serve/formats.py",
        "model.export",
    ): "a folder of TensorFlow's, made anew by each run and read by it alone",
    ("benchmarks/fresh.py", "os.fdopen(os.dup(sys.stdout.fileno()), 'w')"): "a pipe",
    ("benchmarks/accelerator/records.py", "path.open('w')"): "lines, each whole, of a run that is not resumed",
    ("examples/measured.py", "self._checkpoint.save"): "examples.checkpoint, which writes whole files",
    ("examples/mnist_sigmoid/training.py", "self.checkpoint.save"): "examples.checkpoint, which writes whole files",
    ("benchmarks/plot.py", "save"): "its own, which writes whole files",
    ("examples/checkpoint.py", "np.savez"): "into memory",
    ("examples/multi_worker/worker.py", "np.savez"): "into memory",
}
ALLOWED |= {
    (path, call): "into memory"
    for path, call in [
        ("examples/accelerate/report.py", "fig.savefig"),
        ("examples/covariate_shift/figures.py", "fig.savefig"),
        ("examples/covariate_shift/figures.py", "image.convert('RGB').quantize(64, dither=Image.Dither.NONE).save"),
        ("examples/ensemble/report.py", "fig.savefig"),
        ("examples/ensemble/training.py", "np.save"),
        ("examples/inception/report.py", "fig.savefig"),
        ("examples/initialisation/report.py", "fig.savefig"),
        ("examples/mnist_sigmoid/report.py", "fig.savefig"),
        ("examples/understanding/figures.py", "fig.savefig"),
        ("examples/understanding/initial_figures.py", "fig.savefig"),
        ("tuning/figures.py", "fig.savefig"),
        ("benchmarks/plot.py", "figure.savefig"),
    ]
}


def writes(path):
    """The calls in a file of source that write a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in WRITES and node.args:
            yield ast.unparse(node.func)
        elif name in ("open", "fdopen"):
            path_first = isinstance(node.func, ast.Name) or name == "fdopen"
            given = [*node.args[path_first:], *(each.value for each in node.keywords)]
            modes = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            if any(re.fullmatch("[rwaxbt+]+", mode) and set(mode) & set("wax+") for mode in modes):
                yield ast.unparse(node)


def test_every_result_is_written_whole():
    """New code writes by `benchmarks.report.write_whole` or `kerasbn.files.whole`, or says here why it need not."""
    found = {(str(path.relative_to(ROOT)), call) for path in SOURCES for call in writes(path)}
    assert found - ALLOWED.keys() == set()
    assert ALLOWED.keys() - found == set()  # what is no longer there needs no reason


def test_what_the_search_finds(tmp_path):
    code = (
        "open('w', 'w')\npath.open(mode='ab')\nopen('a')\nopen('a', 'rb')\nnp.savez(p)\npath.write_text('')\nt.read()"
    )
    (tmp_path / "code.py").write_text(code)
    assert list(writes(tmp_path / "code.py")) == [
        "open('w', 'w')",
        "path.open(mode='ab')",
        "np.savez",
        "path.write_text",
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_file_that_is_not_finished_is_not_there(error, tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text("before")
    with pytest.raises(error), whole(path) as part:
        part.write_text("half")
        raise error

    def fail(*_):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error):
        write_whole(path, b"after")
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"] and path.read_text() == "before"


# One folder, one process.

HOLD = "import sys, time; from examples.folder import held; from pathlib import Path\n"
HOLD += "with held(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"


@pytest.fixture
def in_use(tmp_path):
    """A folder that another process holds."""
    folder = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout.readline() == "held\n"
        yield folder, process
    finally:
        process.kill()
        process.communicate()


def commands():
    """Each command that keeps results in a folder."""
    from examples.accelerate.__main__ import main as accelerate
    from examples.covariate_shift.__main__ import main as covariate_shift
    from examples.ensemble.__main__ import main as ensemble
    from examples.inception.__main__ import main as inception
    from examples.initialisation.__main__ import main as initialisation
    from examples.multi_worker.__main__ import main as multi_worker
    from examples.understanding.__main__ import main as understanding

    found = {"mnist_sigmoid": mnist_sigmoid, "accelerate": accelerate, "inception": inception}
    found |= {"covariate_shift": covariate_shift, "ensemble": ensemble, "multi_worker": multi_worker}
    return found | {"initialisation": initialisation, "understanding": understanding}


def test_a_second_process_is_kept_out_until_the_first_has_ended(in_use, capsys):
    """Before, both wrote what they knew, and the results of the one that wrote first were lost."""
    folder, process = in_use
    for name, command in commands().items():
        assert command(["--out", str(folder)]) == 2, name
        said = capsys.readouterr().err
        assert f"Another process is writing into {folder}. Nothing was changed." in said and said.count("\n") == 1
    assert not list(folder.iterdir())
    process.kill()
    process.wait()
    with held(folder):
        pass


def test_a_second_study_is_kept_out(in_use, capsys):
    """Before, it took the trials that the first was running for lost, and ran them again into the same files."""
    pytest.importorskip("keras_tuner")
    from tuning import study

    folder, _ = in_use
    for more in ([], ["--resume"], ["--chief", "127.0.0.1:1", "--worker-id", "chief"]):
        assert study.main(["--out", str(folder), *more]) == 2
        assert f"Another process is writing into {folder}" in capsys.readouterr().err
    assert not list(folder.iterdir())
    assert not [
        name for name in os.environ if name.startswith("KERASTUNER_")
    ]  # or the next search would wait for others


def test_a_folder_that_cannot_be_one(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for name, command in commands().items():
        assert command(["--out", str(tmp_path / "file")]) == 2, name
        assert "file cannot be used as `--out`" in capsys.readouterr().err
    with pytest.raises(FolderUnusable, match="Name another folder"), held(tmp_path / "file" / "folder"):
        pass


def test_nothing_stays_of_a_folder_without_results(tmp_path):
    with held(tmp_path / "new"):
        assert (tmp_path / "new").exists()
    assert not (tmp_path / "new").exists()
    with held(tmp_path):
        pass
    assert tmp_path.exists()


# Kills at random times.

LONG = os.environ.get("KERASBN_LONG") == "1"
TINY = ["--steps", "200", "--seeds", "1", "--batch-size", "8"]
COMMANDS = {
    "examples.mnist_sigmoid": TINY,
    "examples.accelerate": ["--steps", "40", "--measurements", "20", "--seeds", "1"],
    "examples.inception": [
        "--baseline-steps",
        "40",
        "--steps",
        "40",
        "--every",
        "2",
        "--networks",
        "inception",
        "bn_baseline",
    ],
    "examples.initialisation": ["--steps", "8", "--seeds", "1"],
    "tuning.study": ["--trials", "4", "--seeds", "1", "--steps", "12", "--stable-steps", "8"],
    "benchmarks.kernels": ["--shapes", "8x3", "--repeats", "1"],
}


def killed(command, options, out, seconds, number):
    """Runs a command until it has begun to write or ends, and a random time more; its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", command, *options, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not any(out.parent.rglob("*.json")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(seconds)
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode


def everything_can_be_read(folder):
    """How many files of results there are, each of which is whole."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".npz", ".png")]
    for path in files:
        if path.suffix == ".json" and "trials" not in path.parts:  # those are mended, and tested in test_study
            json.loads(path.read_text())
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                assert all(arrays[name] is not None for name in arrays)
        elif path.suffix == ".png":
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    return len(files)


@pytest.mark.slow
def test_killed_at_random_times_nothing_is_lost(tmp_path):
    """Two kills, then to the end: no measurement is lost or made twice, and the result is that of one run."""
    times, seen = random.Random(0), 0
    for number in (signal.SIGKILL, signal.SIGINT):
        killed("examples.mnist_sigmoid", TINY, tmp_path / "out", times.uniform(0.0, 0.5), number)
        if everything_can_be_read(tmp_path):
            found = sum(len(run.steps) for run in Results.read(tmp_path / "out").runs)
            assert found >= seen
            seen = found
    assert mnist_sigmoid([*TINY, "--out", str(tmp_path / "out")]) == 0
    assert mnist_sigmoid([*TINY, "--out", str(tmp_path / "whole")]) == 0
    one, other = (Results.read(tmp_path / name) for name in ("out", "whole"))
    for mine, expected in zip(one.runs, other.runs, strict=True):
        assert (mine.steps, mine.accuracy, mine.percentiles) == (
            expected.steps,
            expected.accuracy,
            expected.percentiles,
        )
    assert not list((tmp_path / "out").glob("*.tmp"))


@pytest.mark.skipif(not LONG, reason="minutes: KERASBN_LONG=1 runs it")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_long_command_may_be_killed(command, tmp_path):
    """Eight times, by both signals; after each all files are whole, and at the end the command goes on to its end."""
    times, begun = random.Random(command), 0
    name = "out.json" if command.startswith("benchmarks") else "out"
    resume = command == "tuning.study"
    for number in (signal.SIGKILL, signal.SIGINT) * 4:
        options = [*COMMANDS[command], *(["--resume"] if resume and (tmp_path / name / "study.json").exists() else [])]
        killed(command, options, tmp_path / name, times.uniform(0.0, 8.0), number)
        begun = max(begun, everything_can_be_read(tmp_path))
    options = [*COMMANDS[command], *(["--resume"] if resume and (tmp_path / name / "study.json").exists() else [])]
    done = subprocess.run(
        [sys.executable, "-m", command, *options, "--out", str(tmp_path / name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert everything_can_be_read(tmp_path) and begun
