"""How far a command is: a bar on a terminal, and in a log no more than a dozen lines, however long it takes."""

import importlib
import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import options
from benchmarks.progress import VARIABLE, Progress
from examples.datasets import DatasetMissing, prepared
from examples.understanding.results import Losses

ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines(capsys):
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("steps", [1, 4, 10, 97, 5000])
def test_a_log_gets_at_most_a_dozen_lines(steps, capsys):
    with Progress("training", total=steps) as progress:
        for step in range(steps):
            progress.add(1, f"step {step + 1}")
    first, *way, last = lines(capsys)
    assert first == "training: started" and last == f"training: done after 0 s: step {steps}"
    assert len(way) == min(steps - 1, 9)
    numbers = [int(line.split("step ")[1]) for line in way]
    assert numbers == sorted(set(numbers)) and all(
        f": {number / steps:.0%} after" in line for number, line in zip(numbers, way, strict=True)
    )


def test_work_between_notes_counts(capsys):
    with Progress("trials", total=400) as progress:
        for trial in range(4):
            for _ in range(100):
                progress.add(1)
            progress.add(0, f"trial {trial}")
    assert [line.split(": ", 1)[1] for line in lines(capsys)] == [
        "started",
        *(f"{25 * (n + 1)}% after 0 s: trial {n}" for n in range(3)),
        "done after 0 s: trial 3",
    ]


def test_work_of_unknown_length(capsys):
    with Progress("search", total=None) as progress:
        for number in range(5000):
            progress.add(1, f"rate {number + 1}")
    _, *way, last = lines(capsys)
    assert [line.split("rate ")[1] for line in way] == [str(2**n) for n in range(10)] and last.endswith("rate 5000")


def test_resumed_and_interrupted(capsys):
    with pytest.raises(KeyboardInterrupt), Progress("training", total=10, done=4) as progress:
        progress.add(2, "step 6")
        raise KeyboardInterrupt
    assert lines(capsys) == [
        "training: resumed at 40%",
        "training: 60% after 0 s: step 6",
        "training: ended at 60% after 0 s: step 6",
    ]
    with Progress("training", total=10, done=10):
        pass
    assert lines(capsys) == []


def test_a_terminal_gets_a_bar(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("training", total=10) as progress:
        progress.add(2.5, "accuracy=0.5")
        progress.add(2.5, "row of a table", keep=True)
        progress.add(5)
    shown = sys.stderr.getvalue()
    assert "\r" in shown and "100%" in shown and "row of a table\n" in shown and "started" not in shown


def test_a_terminal_without_tqdm_gets_lines(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("training", total=10):
        pass
    assert sys.stderr.getvalue() == "training: started\ntraining: done after 0 s\n"


def test_what_another_command_started_is_silent(monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, "0")
    with Progress("training", total=1) as progress:
        progress.add(1, "note")
        progress.say("an event")
    assert capsys.readouterr() == ("an event\n", "")


class Interrupt:
    """In place of a training: hundreds of measurements each, and an interrupt in the fourth of them."""

    def __init__(self):
        self.trainings = 0

    def __call__(self, *arguments):
        self.trainings += 1
        results, run, on_measurement = arguments[-3:]
        for step in range(1, 501):
            run.steps.append(results.planned(run.network) * step / 501)
            run.accuracy.append(0.5)
            on_measurement(run)
        if self.trainings == 4:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "name", ["mnist_sigmoid", "accelerate", "inception", "ensemble", "covariate_shift", "understanding"]
)
def test_a_log_of_trainings(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(f"examples.{name}.training.train", Interrupt())
    command = importlib.import_module(f"examples.{name}.__main__")
    only = ["--only", "rates"] if name == "understanding" else []
    assert command.main([*only, "--out", str(tmp_path / "out")]) == 130
    first, *way, last, _ = lines(capsys)
    assert first.endswith(": started") and 1 <= len(way) <= 10 and ": ended at " in last
    assert all("% after " in line and "accuracy=0.5" in line for line in way)


@pytest.mark.parametrize(
    ("name", "measures"),
    [
        ("initialisation.__main__", "examples.initialisation.training.Trainer.train"),
        ("understanding.__main__", "examples.understanding.looking.losses"),
        ("understanding.initialisation", "examples.understanding.initial_measurements.measure_resnet"),
    ],
)
def test_a_log_of_measurements(name, measures, tmp_path, monkeypatch, capsys):
    """Several hundred of them, of which the last is interrupted."""
    made = []

    def measure(*arguments, **_):
        made.append(arguments)
        if len(made) == 90:
            raise KeyboardInterrupt
        return Losses(*arguments[2:]) if "losses" in measures else {"done": 1}

    monkeypatch.setattr(measures, measure)
    options = {"understanding.__main__": ["--only", "step_size", "--seeds", "50"]}.get(name, [])
    options = ["--seeds", "10"] if name == "understanding.initialisation" else options
    monkeypatch.setattr("examples.results.Results.save", lambda results: None)
    command = importlib.import_module(f"examples.{name}")
    assert command.main([*options, "--out", str(tmp_path / "out")]) == 130
    first, *way, last, _ = lines(capsys)
    assert first.endswith(": started") and 1 <= len(way) <= 10 and ": ended at " in last


@pytest.mark.parametrize("name", ["models", "memory", "startup"])
def test_a_log_of_networks(name, tmp_path, monkeypatch, capsys):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(benchmark, "measure", lambda *_: {})
    monkeypatch.setattr(benchmark, "rows", lambda content: [["row"], [str(len(content["results"]))]])
    monkeypatch.setattr("benchmarks.each_network.NETWORKS", [*options.NETWORKS] * 10)
    benchmark.main(["--out", str(tmp_path / "out.json")])
    first, *way, last = lines(capsys)
    assert first == f"{name}: started" and len(way) == 9 and last.startswith(f"{name}: done after")


@pytest.mark.parametrize(
    ("name", "function", "arguments"),
    [
        ("kernels", "measure", ["--shapes", *["8x3"] * 100]),
        ("fold", "measure", ["--models", "MobileNetV2", "--batches", *["1"] * 50]),
        ("sync", "fresh.call", ["--replicas", *map(str, range(1, 51))]),
        ("many_models", "fresh.call", ["--repeats", "50"]),
        ("large_mean", "fresh.call", ["--libraries", *["kerasbn"] * 50]),
    ],
)
def test_a_log_of_a_benchmark(name, function, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(f"benchmarks.{name}.{function}", lambda *_: {"models": [(1, 1)], "sizes": [(1, 1)]})
    monkeypatch.setattr(f"benchmarks.{name}.rows", lambda content: [["row"], ["row"]])
    if name == "fold":
        monkeypatch.setattr("benchmarks.fold.after_training", lambda *_: SimpleNamespace(layers=[]))
        monkeypatch.setattr("benchmarks.fold.fold", lambda model: model)
    importlib.import_module(f"benchmarks.{name}").main([*arguments, "--out", str(tmp_path / "out.json")])
    first, *way, last = lines(capsys)
    assert first == f"{name}: started" and 1 <= len(way) <= 9 and last.startswith(f"{name}: done after")


def test_a_log_of_all_benchmarks(tmp_path, monkeypatch, capsys):
    everything, seen = importlib.import_module("benchmarks.__main__"), []

    def run(command, env):
        seen.append(env[VARIABLE])
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(everything.lifeline, "start", run)
    assert everything.main(["--out", str(tmp_path)]) == 0
    assert len(lines(capsys)) <= 12 and set(seen) == {"0"} and len(seen) == len(everything.RUNS) + 2


def test_a_log_of_a_worker(capsys):
    epochs = pytest.importorskip("examples.multi_worker.epochs")
    shown = epochs.ShowEpochs(300)
    for epoch in range(100, 300):  # resumed
        shown.on_epoch_begin(epoch)
        shown.on_epoch_end(epoch, {"loss": 0.5})
    shown.on_train_end()
    first, *way, last = lines(capsys)
    assert first == "training: resumed at 33%" and len(way) == 6
    assert last.endswith(": epoch 300 of 300, loss=0.5000")


def test_a_command_follows_the_log_of_a_worker(tmp_path, capsys):
    from examples.multi_worker.__main__ import Follow

    log = tmp_path / "worker-0.log"
    with Progress("training", total=8) as progress:
        follow = Follow(log, progress, "2 workers")
        log.write_text("training: started\ntraining: 25% after 1 s: epoch 1 of 4, loss=0.5\ntraining: 50% after 2")
        follow()
        follow()
        log.write_text(
            "training: 25% after 1 s: epoch 1 of 4, loss=0.5\ntraining: 75% after 3 s: epoch 3 of 4, loss=1\n"
        )
        follow()
    assert [line.split(": ", 2)[-1] for line in lines(capsys)] == [
        "started",
        "2 workers, epoch 1 of 4, loss=0.5",
        "2 workers, epoch 3 of 4, loss=1",
        "2 workers, epoch 3 of 4, loss=1",
    ]


def test_bars_of_data_sets_are_off_in_a_log(monkeypatch, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    off = []
    monkeypatch.setattr(tfds, "disable_progress_bar", lambda: off.append(True))
    with pytest.raises(DatasetMissing):
        prepared("mnist", tmp_path, download=False, command="examples.mnist_sigmoid")
    assert off


def test_no_command_has_a_bar_of_its_own():
    """What shows progress goes through `Progress`, or it would be found in logs again."""
    sources = [
        path for package in ("examples", "tuning", "benchmarks") for path in sorted((ROOT / package).rglob("*.py"))
    ]
    with_bar = [path for path in sources if re.search(r"tqdm|Progbar|verbose=(1|2|verbose)", path.read_text())]
    assert [str(path.relative_to(ROOT)) for path in with_bar] == ["benchmarks/progress.py"]
