"""`python -m tuning.study`: what it writes, that no kill costs a finished trial, that several processes share it."""

import argparse
import csv
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

pytest.importorskip("keras_tuner")
pytest.importorskip("tensorboard")
pytest.importorskip("matplotlib")

from benchmarks.progress import Progress
from tuning import report, results, run, settings, study, summary
from tuning.cluster import finished
from tuning.settings import chosen

ROOT = Path(__file__).parents[1]
SMALL = ["--trials", "4", "--seeds", "2", "--steps", "12", "--stable-steps", "0", "--factors", "0.1", "1e9"]
FILES = ["curves.png", "parallel.png", "rates.png", "report.html", "trials.csv"]
PREPARED = ROOT.parent / "shared" / "tensorflow_datasets"


def start(out, *arguments):
    command = [sys.executable, "-u", "-m", "tuning.study", *SMALL, "--out", str(out), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def curves(out):
    """Arm, rate and curves of all trainings of a study."""
    return [
        (trial.values, [execution.curves for execution in trial.executions], trial.diverged)
        for trial in results.read(out).trials
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "uninterrupted"
    assert study.main([*SMALL, "--out", str(out)]) == 0
    return out


def test_what_it_writes(uninterrupted):
    assert sorted(path.name for path in uninterrupted.iterdir()) == ["report", "results.json", "study.json", "trials"]
    assert sorted(path.name for path in (uninterrupted / "report").iterdir()) == FILES
    assert not list(uninterrupted.rglob("*.h5"))  # HDF5 ends the process where a disk is full
    found = results.read(uninterrupted)
    assert [(trial.arm, len(trial.executions)) for trial in found.trials] == [("plain", 2), ("normalized", 2)] * 2
    plain, normalized = ([found.rate(trial) for trial in found.of(arm)] for arm in results.ARMS)
    # Both arms have the same rates: the lowest, and the one in the middle of the logarithmic scale.
    assert plain == normalized == [pytest.approx(0.001), pytest.approx(0.01 * 1e4)]
    healthy, dead = found.of("plain")
    assert dead.diverged and dead.accuracy is None and not healthy.diverged and 0 < healthy.accuracy < 1
    assert healthy.executions[0].curves != healthy.executions[1].curves  # two seeds
    for execution in healthy.executions:
        assert execution.curves["steps"] == [2, 4, 6, 8, 10, 12]


@pytest.mark.slow
def test_largest_stable_rates_come_with_it(tmp_path, capsys):
    arguments = ["--trials", "2", "--seeds", "1", "--steps", "12", "--stable-steps", "40", "--out", str(tmp_path)]
    assert study.main(arguments) == 0
    printed = capsys.readouterr().out
    ratio = re.search(r"largest stable learning rate is (\S+) without .* and (\S+) with it, (\S+) times", printed)
    plain, normalized, times = map(float, ratio.groups())
    assert 0 < plain < normalized and times == pytest.approx(normalized / plain, rel=0.1)
    assert "(one seed)" in printed and "The best one is" in printed
    before = (tmp_path / "stable.json").read_bytes()
    assert study.main([*arguments, "--resume"]) == 0  # which has nothing to do
    assert capsys.readouterr().out.split("arm ")[1] == printed.split("arm ")[1]
    assert (tmp_path / "stable.json").read_bytes() == before


@pytest.mark.slow
def test_killed_and_resumed_it_is_the_same_study(uninterrupted, tmp_path):
    """SIGKILL, once in the second trial and once after the third; the last time it may end."""
    killed = []
    for trials in (1, 3):
        with start(tmp_path, *(["--resume"] if killed else [])) as process:
            deadline = time.monotonic() + 100
            while len(finished(tmp_path)) < trials and time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.02)
            process.kill()
        assert process.returncode == -signal.SIGKILL, process.stderr.read()
        killed.append({name: stat(tmp_path, name) for name in finished(tmp_path)})
    with start(tmp_path, "--resume") as process:
        _, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    assert len(finished(tmp_path)) == 4 and len(killed[0]) >= 1 and len(killed[1]) >= 3
    for before in killed:
        assert before == {name: stat(tmp_path, name) for name in before}  # none was run again
    assert len(set(re.findall(r": trial (\d) ", error))) == 4 - len(killed[1])
    for (values, mine, diverged), (expected, others, diverge) in zip(
        curves(tmp_path), curves(uninterrupted), strict=True
    ):
        assert values == expected and diverged == diverge
        for curve, other in zip(mine, others, strict=True):
            assert {name: numbers(values) for name, values in curve.items()} == {
                name: pytest.approx(numbers(values), rel=1e-3) for name, values in other.items()
            }


def numbers(values):
    return [-1.0 if value is None else value for value in values]


def stat(out, name):
    return [(out / "trials" / f"trial_{name}" / file).stat().st_mtime_ns for file in ("trial.json", "executions.json")]


@pytest.mark.slow
def test_an_interrupt_says_how_to_go_on(tmp_path):
    with start(tmp_path) as process:
        for line in process.stderr:
            if ": trial " in line:
                break
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume goes on" in error and "Traceback" not in error
    assert len(finished(tmp_path)) in (1, 2)


def test_a_log_is_short(tmp_path, monkeypatch, capsys):
    """Two hundred trials and hundreds of rates are a dozen lines."""
    asked = chosen(study.parser().parse_args(["--trials", "200", "--seeds", "3", "--stable-steps", "8"]))

    def search(out, settings, data, on_trial, progress):
        for trial in range(200):
            for _ in range(3 * 100):
                progress.add(1 / 300)
            on_trial(str(trial))

    def stable_rates(out, settings, data, on_training):
        for arm in results.ARMS:
            for seed in range(3):
                for rate in range(100):
                    on_training(None, arm, seed, float(rate), rate < 50)

    monkeypatch.setattr(run, "search", search)
    monkeypatch.setattr(run, "stable_rates", stable_rates)
    monkeypatch.setattr(run, "_line", lambda out, name, asked: f"trial {name}  plain")
    with run._progress(tmp_path, asked) as progress:
        run._search(tmp_path, asked, None, progress)
        run._stable(tmp_path, asked, None, progress)
    first, *way, last = capsys.readouterr().err.splitlines()
    assert first == "study: started" and len(way) == 9 and last.startswith("study: done after")
    assert all("% after" in line and ": trial " in line for line in way)
    assert last.endswith("largest stable rate, normalized, seed 2: 99 is not stable")


def partial(uninterrupted, out, trials):
    """The folder of a study that was killed after some of its trials."""
    shutil.copytree(uninterrupted, out)
    (out / "results.json").unlink()
    shutil.rmtree(out / "report")
    for folder in (out / "trials").glob("trial_*"):
        if folder.name.removeprefix("trial_") not in trials:
            content = json.loads((folder / "trial.json").read_text())
            content |= {"status": "RUNNING", "score": None, "metrics": {"metrics": {}}}
            (folder / "trial.json").write_text(json.dumps(content))
    return out


@pytest.mark.parametrize("trials", ["012", "0", "2", "1"])  # trial 2 and 3 diverge
def test_a_study_that_was_killed_has_a_report(trials, uninterrupted, tmp_path, capsys):
    """Before, it was sent to `python -m tuning.study`, which refused it without `--resume`."""
    out = partial(uninterrupted, tmp_path / "out", trials)
    assert report.main([str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"\n{len(trials)} of 4 trials have ended.\n" in printed and "arm " in printed
    assert sorted(path.name for path in (out / "report").iterdir()) == FILES
    (advice,) = re.findall(r"To go on: python -m tuning.study (.*)", printed)
    options = study.parser().parse_args(shlex.split(advice))
    assert options.resume and options.out == out
    settings.check(out, chosen(options), resume=True)  # which refuses other settings


def test_what_is_missing_of_a_study(uninterrupted, tmp_path, capsys):
    out = partial(uninterrupted, tmp_path / "out", "01")
    content = json.loads((out / "study.json").read_text()) | {"stable_steps": 8}
    (out / "study.json").write_text(json.dumps(content))
    (out / "trials" / "trial_1" / "executions.json").write_text("[")
    assert report.main([str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1 of 4 trials have ended." in printed and "The largest stable rates are missing." in printed
    assert re.search(r"trial_1 cannot be read \(JSONDecodeError.*it is left out", printed)
    assert "The largest stable learning rates were not found yet." in printed
    (out / "stable.json").write_text("{")
    assert report.main([str(out)]) == 0 and "stable.json cannot be read" in capsys.readouterr().out

    out = partial(uninterrupted, tmp_path / "none", "")
    assert report.main([str(out)]) == 2
    said = capsys.readouterr().err
    assert "There are no results in" in said and "0 of 4 trials" in said and said.rstrip().endswith("--resume")
    (out / "study.json").write_text("{")
    assert report.main([str(out)]) == 2 and "study.json cannot be read" in capsys.readouterr().err


def test_a_study_that_was_extended_and_interrupted(uninterrupted, tmp_path, capsys):
    """Its `results.json` is that of before: the trials that came since are shown, too."""
    out = shutil.copytree(uninterrupted, tmp_path / "out")
    content = json.loads((out / "study.json").read_text()) | {"trials": 6}
    (out / "study.json").write_text(json.dumps(content))
    assert report.main([str(out)]) == 0 and "4 of 6 trials have ended." in capsys.readouterr().out


def fails(error):
    def fail(*_, **__):
        raise error

    return fail


FULL = OSError(errno.ENOSPC, "No space left on device", "out/file")


def test_a_report_that_cannot_be_written_is_printed(uninterrupted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Path, "write_bytes", fails(FULL))
    assert report.main([str(uninterrupted), "--out", str(tmp_path / "out")]) == 2
    output = capsys.readouterr()
    assert "arm " in output.out and "Report" not in output.out
    assert output.err.endswith("rates.png: No space left on device. Make room, or name another folder with `--out`.\n")


def test_a_disk_that_is_full_at_the_end_of_a_study(uninterrupted, tmp_path, monkeypatch, capsys):
    out = partial(uninterrupted, tmp_path / "out", "0123")
    with monkeypatch.context() as patch:
        patch.setattr(results, "write", fails(FULL))
        assert study.main([*SMALL, "--out", str(out), "--resume"]) == 2
    output = capsys.readouterr()
    assert "arm " in output.out and "The best one is" in output.out and "Results" not in output.out
    assert (
        "out/file: No space left on device. Make room. Finished trials are kept: the same command with --resume"
        in output.err
    )
    assert study.main([*SMALL, "--out", str(out), "--resume"]) == 0 and (out / "results.json").exists()


def test_a_disk_that_is_full_in_a_trial_is_no_fault_of_the_trial(uninterrupted, tmp_path, monkeypatch, capsys):
    """Resumed, the study runs it again."""
    out = partial(uninterrupted, tmp_path / "out", "012")
    with monkeypatch.context() as patch:
        patch.setattr("kerasbn.tuner.tuners.whole", fails(FULL))
        assert study.main([*SMALL, "--out", str(out), "--resume"]) == 2
    assert "out/file: No space left on device. Make room." in capsys.readouterr().err
    assert finished(out) == ["0", "1", "2"]
    assert study.main([*SMALL, "--out", str(out), "--resume"]) == 0 and finished(out) == ["0", "1", "2", "3"]


def trial_files(out):
    return {path: path.read_bytes() for path in sorted((out / "trials").glob("trial_*/*.json"))}


def broken(what, out):
    """Breaks a finished study; the trials that are to be run again."""
    trials = out / "trials"
    state = json.loads((trials / "oracle.json").read_text())
    if what == "trial.json":
        (trials / "trial_2" / "trial.json").write_text('{"trial_id": "2", "hyperpar')
        return {"2"}
    if what == "executions.json":
        (trials / "trial_1" / "executions.json").write_text("")
        return {"1"}
    if what == "oracle.json":
        (trials / "oracle.json").write_text('{"ongoing_trials": {')
        return set()
    if what == "tuner0.json":
        (trials / "tuner0.json").write_text("")
        return set()
    if what == "no tuner0.json":  # killed between the end of the first trial and the tuner's file
        (trials / "tuner0.json").unlink()
        return set()
    if what == "ended, but said to be ongoing":
        state["ongoing_trials"] = {"tuner0": "3"}
        state["end_order"].remove("3")
    if what == "begun, but not said to be":
        content = json.loads((trials / "trial_3" / "trial.json").read_text())
        content |= {"status": "RUNNING", "score": None, "metrics": {"metrics": {}}}
        (trials / "trial_3" / "trial.json").write_text(json.dumps(content))
        state["start_order"].remove("3")
        state["end_order"].remove("3")
    (trials / "oracle.json").write_text(json.dumps(state))
    return {"3"} if what.startswith("begun") else set()


@pytest.mark.parametrize(
    "what",
    [
        "trial.json",
        "executions.json",
        "oracle.json",
        "tuner0.json",
        "no tuner0.json",
        "ended, but said to be ongoing",
        "begun, but not said to be",
    ],
)
def test_whatever_state_the_files_are_in(what, uninterrupted, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(uninterrupted, out)
    again = broken(what, out)
    before = trial_files(out)
    assert study.main([*SMALL, "--out", str(out), "--resume"]) == 0
    error = capsys.readouterr().err
    assert sorted(set(re.findall(r": trial (\d) ", error))) == sorted(again)
    assert finished(out) == ["0", "1", "2", "3"]
    after = trial_files(out)
    for path, content in before.items():
        if path.parent.name.removeprefix("trial_") not in again:
            assert after[path] == content
    if what in ("trial.json", "executions.json", "oracle.json"):
        (aside,) = (out / "set_aside").iterdir()
        name = "oracle.json" if what == "oracle.json" else f"trial_{again.pop()}/trial.json"
        assert f"{name} cannot be read" in error and str(aside) in error
    else:
        assert not (out / "set_aside").exists() and "cannot be read" not in error
    if what == "begun, but not said to be":
        assert curves(out)[3][0] == curves(uninterrupted)[3][0]  # with the values that it had


@pytest.mark.slow
def test_more_trials_may_be_asked_for(uninterrupted, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(uninterrupted, out)
    before = trial_files(out)
    assert study.main([*SMALL, "--out", str(out), "--resume", "--trials", "10"]) == 0
    assert len(finished(out)) == 10 and all(path.read_bytes() == content for path, content in before.items())
    assert len({(trial.arm, results.read(out).rate(trial)) for trial in results.read(out).trials}) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "There is a study in .* already.*--resume"),
        (["--resume", "--seeds", "3"], "other settings: seeds 2, now 3. Nothing was changed"),
        (["--resume", "--trials", "2"], "other settings: trials 4, now 2"),
        (["--factors", "10", "1"], "--factors must be the smallest and the largest"),
        (["--stable-steps", "2"], "--stable-steps must be 0 or at least 4"),
        (["--chief", "localhost"], "--chief HOST:PORT and --worker-id go together"),
        (["--worker-id", "worker0"], "--chief HOST:PORT and --worker-id go together"),
    ],
)
def test_what_cannot_be_run_changes_nothing(arguments, message, uninterrupted, capsys):
    before = {path: path.read_bytes() for path in uninterrupted.rglob("*") if path.is_file()}
    assert study.main([*SMALL, "--out", str(uninterrupted), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert {path: path.read_bytes() for path in uninterrupted.rglob("*") if path.is_file()} == before


def test_folders_that_are_no_study(tmp_path, capsys):
    assert study.main([*SMALL, "--out", str(tmp_path / "none"), "--resume"]) == 2
    assert "There is no study in" in capsys.readouterr().err and not (tmp_path / "none").exists()
    (tmp_path / "study.json").write_text('{"dataset": 1}')
    assert study.main([*SMALL, "--out", str(tmp_path), "--resume"]) == 2
    assert "study.json cannot be read" in capsys.readouterr().err
    (tmp_path / "study.json").unlink()
    (tmp_path / "trials").mkdir()
    assert study.main([*SMALL, "--out", str(tmp_path)]) == 2
    assert "has trials but no study.json" in capsys.readouterr().err
    assert report.main([str(tmp_path)]) == 2
    assert "There are no results in" in capsys.readouterr().err
    (tmp_path / "results.json").write_text('{"trials": [{"name": "0"}]}')
    assert report.main([str(tmp_path)]) == 2
    assert "is not the result of a study" in capsys.readouterr().err


def test_a_data_set_that_is_missing(tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    out = tmp_path / "out"
    assert study.main([*SMALL, "--dataset", "mnist", "--data-dir", str(tmp_path), "--out", str(out)]) == 2
    assert re.search("'mnist' is not in .*tuning.study --dataset mnist .*--download", capsys.readouterr().err)
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The optimal value found")  # by scikit-learn, for the few trials of Bayes
@pytest.mark.parametrize("oracle", ["random", "bayesian"])
def test_other_oracles_and_hyperparameters(oracle, tmp_path):
    arguments = ["--trials", "4", "--seeds", "1", "--steps", "6", "--stable-steps", "0", "--oracle", oracle]
    assert study.main([*arguments, "--out", str(tmp_path), "--vary", *study.VARIED, "--objective", "area"]) == 0
    found = results.read(tmp_path)
    assert len({json.dumps(trial.values) for trial in found.trials}) == 4
    assert set(summary.names(found)) <= found.trials[0].values.keys() and len(found.trials[0].values) == 10
    sizes = {trial.values["batch_size"] for trial in found.trials}
    assert sizes <= {16, 32, 128}


def test_steps_to_a_target_as_objective(tmp_path):
    arguments = ["--objective", "steps", "--target", "0.2", "--factors", "1", "10", "--out", str(tmp_path)]
    assert study.main([*SMALL, *arguments, "--seeds", "1"]) == 0
    for folder in (tmp_path / "trials").glob("trial_*"):
        trial = results.read_trial(folder)
        score = json.loads((folder / "trial.json").read_text())["score"]
        assert score == (trial.steps_to(0.2)[0] or 12)


def processes(output):
    return {name: int(pid) for name, pid in re.findall(r"(chief|worker\d) (\d+)", output)}


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_three_workers_one_of_which_is_killed(uninterrupted, tmp_path):
    """It is started again, and gets the trial that it had. What comes out is what one process finds."""
    with start(tmp_path, "--workers", "3", "--timeout", "240", "--seeds", "2") as process:
        output, pids = "", {}
        for line in process.stdout:
            output += line
            pids = pids or processes(line)
            if pids:
                break
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:  # until one of them works on a trial
            ongoing = (
                json.loads((tmp_path / "trials" / "oracle.json").read_text())["ongoing_trials"]
                if (tmp_path / "trials" / "oracle.json").exists()
                else {}
            )
            if ongoing:
                break
            time.sleep(0.05)
        victim, trial = next(iter(ongoing.items()))
        os.kill(pids[victim], signal.SIGKILL)
        rest, error = process.communicate(timeout=240)
    output += rest
    assert process.returncode == 0, error
    assert f"{victim} was ended by SIGKILL. It is started again, with trial {trial}." in output
    assert len(pids) == 4 and all(gone(pid) for pid in pids.values())
    assert finished(tmp_path) == ["0", "1", "2", "3"] and len(results.read(tmp_path).trials) == 4
    for mine, expected in zip(curves(tmp_path), curves(uninterrupted), strict=True):
        assert mine[0] == expected[0] and bool(mine[2]) == bool(expected[2])
        if not mine[2]:
            assert mine[1][0]["val_accuracy"] == pytest.approx(expected[1][0]["val_accuracy"], abs=0.02)


@pytest.mark.slow  # tests/test_lifeline.py guards it with processes that start at once
def test_a_study_of_several_processes_is_killed_and_resumed(tmp_path):
    """SIGKILL of the command alone. Before, its processes went on, and held the folder against `--resume`."""
    with start(tmp_path, "--workers", "2", "--seeds", "1", "--timeout", "200") as process:
        pids = {}
        for line in process.stdout:
            if pids := processes(line):
                break
        deadline = time.monotonic() + 100
        while not finished(tmp_path) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.kill()
    deadline = time.monotonic() + 30
    while not all(gone(pid) for pid in pids.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 3 and all(gone(pid) for pid in pids.values()) and finished(tmp_path)
    assert study.main([*SMALL, "--seeds", "1", "--out", str(tmp_path), "--resume"]) == 0
    assert len(results.read(tmp_path).trials) == 4


@pytest.mark.slow
def test_a_worker_that_dies_for_good_ends_the_study(tmp_path):
    with start(tmp_path, "--workers", "2", "--restarts", "0", "--timeout", "120") as process:
        pids = {}
        for line in process.stdout:
            if pids := processes(line):
                break
        os.kill(pids["worker1"], signal.SIGKILL)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and "worker1 was ended by SIGKILL, with " in error and "--resume goes on" in error
    assert all(gone(pid) for pid in pids.values())


def test_the_command_of_the_workers_is_that_of_the_study(monkeypatch, tmp_path):
    """Each option that a result depends on reaches the workers."""
    options = "--dataset=mnist --trials=7 --seeds=3 --steps=50 --oracle=random --objective=steps --target=0.7"
    options += " --learning-rate=0.3 --factors 0.5 7 --vary dropout momentum --stable-steps=9 --workers=2"
    asked = study.parser().parse_args(options.split())
    given = []

    class Cluster:
        processes = types.MappingProxyType({})

        def __init__(self, out, command, workers, restarts):
            given.append(command)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def wait(self, timeout, on_tick, say):
            pass

    monkeypatch.setattr(run, "Cluster", Cluster)
    run._search_together(tmp_path, chosen(asked), asked, Progress("trials", total=None))
    assert chosen(study.parser().parse_args(given[0])) == chosen(asked)


def test_the_report_is_made_again_from_the_json(uninterrupted, tmp_path, capsys):
    shutil.copy(uninterrupted / "results.json", tmp_path)
    assert report.main([str(tmp_path)]) == 0
    first = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == FILES
    for name in FILES:
        assert (tmp_path / "report" / name).read_bytes() == (uninterrupted / "report" / name).read_bytes(), name
    assert report.main([str(tmp_path / "results.json"), "--out", str(tmp_path / "other"), "--target", "0.05"]) == 0
    assert "steps to 5.0%" in capsys.readouterr().out and "diverged in" not in first and "first at step" in first

    with open(tmp_path / "report" / "trials.csv") as file:
        rows = list(csv.DictReader(file))
    found = results.read(tmp_path)
    assert [float(row["learning rate"]) for row in rows] == [
        found.rate(t) for arm in results.ARMS for t in found.of(arm)
    ]
    assert [row["diverged"] for row in rows[:2]] == ["0", "2"]


def test_the_page_needs_nothing_else(uninterrupted):
    page = (uninterrupted / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and page.count("alt=") == 3
    sources = re.findall(r'(?:src|href)="([^"]*)', page)
    assert len(sources) == 3 and all(source.startswith("data:") for source in sources)
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page)


def test_what_is_in_a_page_is_text():
    from tuning.page import page

    made = page("<script>alert(1)</script>", "a & b", [], [["<b>"], ["x"]], {"<i>": '"'})
    assert "<script" not in made and "&lt;script&gt;" in made and "a &amp; b" in made and "<b>" not in made


def browser():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.mark.skipif(browser() is None, reason="no Chromium is installed")
def test_in_a_browser(uninterrupted, tmp_path):
    """Without network it shows three pictures of their full size and a row for each trial."""
    page = (uninterrupted / "report" / "report.html").read_text()
    script = (
        "<script>addEventListener('load', () => document.title = [...document.images].filter(i => i.naturalWidth > 500)"
        ".length + ' ' + document.querySelectorAll('tbody')[0].rows.length)</script></body>"
    )
    (tmp_path / "page.html").write_text(page.replace("</body>", script))
    done = subprocess.run(
        [
            *(browser(), "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *("--virtual-time-budget=5000", "--dump-dom", (tmp_path / "page.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "<title>3 4</title>" in done.stdout, done.stderr


def test_tensorboard_shows_the_same_trials(uninterrupted, tmp_path):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
    from tensorboard.plugins.hparams import metadata
    from tensorboard.util.tensor_util import make_ndarray

    assert report.main([str(uninterrupted), "--out", str(tmp_path / "out"), "--tensorboard", str(tmp_path / "tb")]) == 0
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "tb"))
    multiplexer.Reload()
    found = results.read(uninterrupted)
    for trial in found.trials:
        for seed in range(2):
            name = f"trial_{trial.name}/seed_{seed}"
            content = multiplexer.SummaryMetadata(name, metadata.SESSION_START_INFO_TAG).plugin_data.content
            hparams = metadata.parse_session_start_info_plugin_data(content).hparams
            assert hparams["learning_rate"].number_value == pytest.approx(found.rate(trial))
            assert hparams["arm"].string_value == trial.arm
            (diverged,) = multiplexer.Tensors(name, "diverged")
            assert make_ndarray(diverged.tensor_proto) == (trial.executions[seed].diverged_at is not None)


def test_help_has_every_option(capsys):
    with pytest.raises(SystemExit):
        study.main(["--help"])
    printed = capsys.readouterr().out
    options = [action for action in study.parser()._actions if not isinstance(action, argparse._HelpAction)]
    assert (
        all(action.help and action.option_strings[0] in printed for action in options)
        and "no authentication" in printed
    )


@pytest.mark.skipif(not (PREPARED / "mnist").exists(), reason="MNIST is not prepared beside the project")
def test_mnist(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    arguments = ["--dataset", "mnist", "--data-dir", str(PREPARED), "--trials", "2", "--seeds", "1", "--steps", "20"]
    assert study.main([*arguments, "--stable-steps", "0", "--out", str(tmp_path)]) == 0
    assert [trial.arm for trial in results.read(tmp_path).trials] == ["plain", "normalized"]
