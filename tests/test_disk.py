"""A disk that is full or read-only: a command prints what it found, says what is missing, and how to go on."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import options, report
from benchmarks.ending import ended
from examples.folder import FolderUnusable, held
from tests.test_experiments import EXPERIMENTS

ROOT = Path(__file__).parents[1]
FULL = Path("/dev/full")
needs_dev_full = pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
each = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=str)
#: Its report has so many curves that it is drawn in the fast tier once, by tests/test_covariate_shift.py.
MANY_CURVES = "covariate_shift"


def no_room(path="results.json"):
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def fail(error):
    def fails(*_, **__):
        raise error

    return fails


# How any command ends.


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOTDIR])
def test_what_the_disk_refuses_is_a_sentence(number, capsys):
    error = OSError(number, os.strerror(number), "out/results.json")
    assert ended(fail(error), "Name another folder.") == 2
    assert capsys.readouterr().err == f"out/results.json: {os.strerror(number)}. Name another folder.\n"


def test_what_tensorflow_says_of_the_disk_is_a_sentence(capsys):
    import tensorflow as tf

    error = tf.errors.ResourceExhaustedError(None, None, "out/trial.json; No space left on device")
    assert ended(fail(error)) == 2 and "out/trial.json; No space left on device.\n" == capsys.readouterr().err
    with pytest.raises(tf.errors.ResourceExhaustedError):  # of memory
        ended(fail(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")))


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "No such file"), ValueError("a fault"), OSError("?")]
)
def test_faults_of_the_program_are_not_hidden(error):
    with pytest.raises(type(error)):
        ended(fail(error))


@needs_dev_full
def test_an_output_that_is_full():
    with FULL.open("w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.sync_cost"], cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (
        2,
        "The output: No space left on device. Make room, or name another place.\n",
    )


def test_an_output_that_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sync_cost"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


# Files and folders.


@needs_dev_full
def test_a_device_is_written_to_and_not_replaced():
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        report.write_whole(FULL, b"content")
    assert FULL.is_char_device() and not Path("/dev/full.tmp").exists()


@pytest.mark.parametrize("operation", ["write_bytes", "mkdir", "unlink"])
def test_an_error_names_the_file(operation, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, operation, fail(OSError(errno.EROFS, os.strerror(errno.EROFS), "some other")))
    with pytest.raises(OSError, match=r"Read-only file system: '.*results.json'"):
        report.write_whole(tmp_path / "results.json", b"content")


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with (
        pytest.raises(FolderUnusable, match=r"cannot be used as `--out`: Permission denied. Name another"),
        held(tmp_path),
    ):
        pytest.fail("it worked for nothing")


@pytest.mark.parametrize("name", ["kernels", "fold", "models", "sync", "large_mean", "soak"])
def test_a_benchmark_looks_at_its_file_before_it_measures(name, tmp_path, monkeypatch, capsys):
    import importlib

    main = importlib.import_module(f"benchmarks.{name}").main
    (tmp_path / "file").write_text("")
    for out, said in (
        (tmp_path, "must be a file. Received a folder"),
        (tmp_path / "file" / "out.json", "file is read-only, or no folder"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["--out", str(out)])
        assert said in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(tmp_path / "new" / "out.json")])
    assert f"{tmp_path} is read-only" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_paths_that_can_be_written(tmp_path):
    assert options.writable(str(tmp_path / "a" / "b" / "out.json")) == tmp_path / "a" / "b" / "out.json"
    assert options.writable("/dev/null") == Path("/dev/null")


def test_a_benchmark_prints_its_table_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Path, "write_bytes", fail(no_room()))
    path = tmp_path / "out.json"
    assert ended(lambda: report.publish(path, {}, [["heading"], ["number"]]), "Make room.") == 2
    output = capsys.readouterr()
    assert "number" in output.out and output.err == f"{path}: No space left on device. Make room.\n"


# Experiments.


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(each, marks=[pytest.mark.slow] if each.name == MANY_CURVES else []) for each in EXPERIMENTS],
    ids=str,
)
def test_a_report_is_printed_where_it_cannot_be_written(experiment, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Path, "write_bytes", fail(no_room()))
    assert experiment.make_report(str(experiment.results), "--out", str(tmp_path)) == 2
    output = capsys.readouterr()
    assert output.out.count("\n") > 5 and "Written" not in output.out
    assert (
        output.err
        == f"{next(iter(output.err.split(': ')))}: No space left on device. Make room, or name another "
        + (
            "folder with `--out`. What was measured is kept; the same command goes on from there.\n"
            if experiment.name == "understanding.initialisation"
            else "folder with `--out`.\n"
        )
    )
    assert not list(tmp_path.iterdir())


@each
def test_a_full_disk_in_training_says_how_to_go_on(experiment, tmp_path, monkeypatch, capsys):
    name = experiment.name.split(".")[0]
    monkeypatch.setattr(f"examples.{name}.{experiment.train}", fail(no_room("out/results.json")))
    assert experiment.command(["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("out/results.json: No space left on device. Make room, or name another folder with `--out`.")
    assert said.endswith("What was measured is kept; the same command goes on from there.")
