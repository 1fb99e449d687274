"""The example: a few steps of it, what it writes, and that it can be stopped at any time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from examples.mnist_sigmoid import __main__ as command
from examples.mnist_sigmoid import data, report, training
from examples.mnist_sigmoid.results import Results, Run, Settings
from examples.results import SettingsDiffer

FAST = ["--steps", "20", "--batch-size", "8", "--seeds", "1"]
SETTINGS = Settings(dataset="digits", steps=20, batch_size=8, learning_rate=0.1, jit_compile="auto", measurements=20)
PREPARED = Path(__file__).parents[2] / "shared" / "tensorflow_datasets"


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_command(tmp_path, capsys):
    out = tmp_path / "out"
    assert command.main([*FAST, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "final accuracy" in printed and "with BN" in printed
    assert sorted(p.name for p in out.iterdir()) == ["figure1.png", "results.json"]
    stored = json.loads((out / "results.json").read_text())
    assert stored["settings"]["steps"] == 20 and stored["settings"]["initial_stddev"] == 0.1
    assert {(r["network"], r["seed"]) for r in stored["runs"]} == {("plain", 0), ("batch_norm", 0)}
    for run in stored["runs"]:
        assert run["steps"] == list(range(21))
        assert all(0 <= a <= 1 for a in run["accuracy"])
        assert all(low <= middle <= high for low, middle, high in run["percentiles"])
    # A second run has nothing to do and changes nothing; a third adds a seed.
    assert command.main([*FAST, "--out", str(out)]) == 0
    assert json.loads((out / "results.json").read_text())["runs"] == stored["runs"]
    assert command.main([*FAST[:-1], "2", "--out", str(out)]) == 0
    assert len(json.loads((out / "results.json").read_text())["runs"]) == 4


def test_digits_are_real_and_binary(digits):
    assert digits.x_train.shape == (1347, 64) and digits.x_test.shape == (450, 64)
    assert set(np.unique(digits.x_train)) == {0, 1}
    assert set(np.unique(digits.y_test)) == set(range(10))


@pytest.mark.skipif(not (PREPARED / "mnist").exists(), reason="no prepared MNIST beside the checkout")
def test_mnist():
    pytest.importorskip("tensorflow_datasets")
    mnist = data.load("mnist", PREPARED)
    assert mnist.x_train.shape == (60_000, 784) and mnist.x_test.shape == (10_000, 784)
    assert set(np.unique(mnist.x_test)) == {0, 1}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"runs": 3, "settings": {}}', '{"runs": [{"a": 1}], "settings": {}}']
)
def test_a_file_that_is_something_else_is_refused_and_kept(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(SettingsDiffer, match=r"results\.json is not a results file"):
        Results.open(tmp_path, SETTINGS)
    assert (tmp_path / "results.json").read_text() == content


class Stop(Exception):
    pass


def test_resumed_is_uninterrupted(tmp_path, digits):
    """Stopped in the middle and resumed, a run measures what it measures in one go."""

    def stop_at(count):
        def on_measurement(run):
            if len(run.steps) == count:
                raise Stop

        return on_measurement

    whole = Results.open(tmp_path / "whole", SETTINGS)
    training.train(digits, whole, whole.run("batch_norm", 3), lambda run: None)
    part = Results.open(tmp_path / "part", SETTINGS)
    for count in (1, 8, 9):
        with pytest.raises(Stop):
            training.train(digits, part, part.run("batch_norm", 3), stop_at(count))
        part = Results.open(tmp_path / "part", SETTINGS)  # from the file, as a new process would
        assert len(part.run("batch_norm", 3).steps) == count
    training.train(digits, part, part.run("batch_norm", 3), lambda run: None)
    a, b = whole.run("batch_norm", 3), part.run("batch_norm", 3)
    assert a.steps == b.steps
    np.testing.assert_allclose(b.accuracy, a.accuracy, atol=0.005)
    np.testing.assert_allclose(b.percentiles, a.percentiles, atol=0.002)
    assert [path.name for path in (tmp_path / "part").iterdir()] == ["results.json"]


def test_lost_weights_start_the_run_anew(tmp_path, digits):
    results = Results.open(tmp_path, SETTINGS)
    results.runs.append(Run("plain", 0, steps=[0, 1], accuracy=[0.1, 0.2], percentiles=[[0, 0, 0]] * 2))
    training.train(digits, results, results.run("plain", 0), lambda run: None)
    assert results.run("plain", 0).steps == list(range(21))


def test_batches_are_the_same_wherever_training_starts(digits):
    all_batches = [x.numpy() for x, _ in training.batches(digits, 8, 20, seed=1)]
    later = [x.numpy() for x, _ in training.batches(digits, 8, 20, seed=1, first=15)]
    np.testing.assert_array_equal(all_batches[15:], later)
    assert len(all_batches) == 20


def test_interrupt_keeps_what_was_measured(tmp_path):
    """Ctrl-C in a real process, then the same command goes on."""
    arguments = [
        sys.executable,
        "-m",
        "examples.mnist_sigmoid",
        "--steps",
        "40000",
        "--seeds",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        arguments,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        # A process in the background of a shell script ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    path = tmp_path / "out" / "results.json"
    try:
        deadline = time.monotonic() + 120
        while not (path.exists() and len(json.loads(path.read_text())["runs"][0]["steps"]) > 2):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted" in said and "Traceback" not in said
    assert len(json.loads(path.read_text())["runs"][0]["steps"]) > 2


def test_summary_by_hand(tmp_path):
    settings = Settings("digits", steps=30, batch_size=8, learning_rate=0.1, jit_compile="auto", measurements=3)
    results = Results(tmp_path, settings)
    for network, seed, accuracy in [
        ("plain", 0, [0.1, 0.5, 0.6, 0.8]),
        ("plain", 1, [0.1, 0.5, 0.9, 0.7]),
        ("batch_norm", 0, [0.1, 0.9, 0.8, 0.9]),  # reaches 0.8 at step 10, the plain one at 30: 3 times fewer
        ("batch_norm", 1, [0.1, 0.6, 0.8, 0.85]),  # never reaches 0.9
    ]:
        results.runs.append(Run(network, seed, [0, 10, 20, 30], accuracy, [[0, 0, 0]] * 4))
    found = results.summary()
    assert found["plain"]["final_accuracy"]["mean"] == 0.75
    assert found["plain"]["steps_to_plain_best"] == {"mean": 25, "stdev": pytest.approx(7.07107), "min": 20, "max": 30}
    assert found["batch_norm"]["best_accuracy"]["mean"] == pytest.approx(0.875)
    assert found["batch_norm"]["reached_plain_best"] == [1, 2]
    assert found["batch_norm"]["times_fewer_steps"] == {"mean": 3, "stdev": None, "min": 3, "max": 3}
    table = report.table(results)
    assert "10 (1 of 2 seeds)" in table and "75.00% ± 7.07%" in table
    (figure,) = report.write(results, tmp_path / "report")
    assert figure.exists()
