"""Puts the files of Keras Tuner in order before a study goes on: what was killed may have left them in any state.

Keras Tuner writes `trial.json` of a trial, `oracle.json` and a file of each tuner one after the other, and goes on from
what it finds without comparing: a trial that ended just before the kill would be run again, one that had just begun
would never be. What these files hold is Keras Tuner's own affair; that it is as written here is tested.
"""

import json
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from benchmarks.report import write_whole
from examples.parsed import parsed
from tuning.results import read_trial

ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


def mend(project: Path, oracle: Any, set_aside: Path) -> list[str]:
    """Makes `oracle.json` say what the trials say, and sets aside files that cannot be read.

    Trials that ended are kept, all others are run again, with the values that they had. Where these cannot be read, a
    trial of the same number takes the place, with values drawn at random.

    Args:
        project: The directory of the project.
        oracle: A new oracle with the settings of the study.
        set_aside: Directory that unreadable files are moved to.

    Returns:
        A sentence for each file that was set aside.
    """
    if not (project / "oracle.json").exists() and not list(project.glob("trial_*")):
        return []
    said = []
    state = oracle.get_state()
    try:
        state |= parsed(dict[str, Any], json.loads((project / "oracle.json").read_text()))
        for name in ("start_order", "end_order"):
            for each in parsed(list[str], state[name], name):
                _number(each, oracle.max_trials)
        keras_tuner.HyperParameters.from_config(state["hyperparameters"])
    except FileNotFoundError:
        pass
    except Exception as error:  # anything may be in a broken file, and Keras Tuner raises what it meets
        state = oracle.get_state()
        said.append(_move(project / "oracle.json", set_aside, error))
    statuses: dict[str, str] = {}
    for folder in sorted(project.glob("trial_*")):
        name = folder.name.removeprefix("trial_")
        try:
            trial = Trial.load(str(folder / "trial.json"))
            if trial.trial_id != name:
                raise ValueError(f"it is of trial {trial.trial_id}")
            _number(name, oracle.max_trials)
            if trial.status == TrialStatus.COMPLETED:
                read_trial(folder)
            state["hyperparameters"] = _merged(state["hyperparameters"], trial.hyperparameters)
            statuses[name] = trial.status
        except Exception as error:
            said.append(_move(folder, set_aside, error))
    known = {*statuses, *state["start_order"], *state["end_order"]}
    for number in range(max(map(int, known), default=-1) + 1):
        if number not in map(int, statuses):  # Keras Tuner numbers trials by how many there are: no gap may be left.
            name = f"{number:0{len(str(oracle.max_trials))}d}"
            _stand_in(project, name, state["hyperparameters"])
            statuses[name] = TrialStatus.RUNNING
    ended = [name for name, status in statuses.items() if status in ENDED]
    in_order = [name for name in state["end_order"] if name in ended]
    state["start_order"] = sorted(statuses, key=int)
    state["end_order"] = in_order + [name for name in ended if name not in in_order]
    state["retry_queue"] = sorted(set(statuses) - set(ended), reverse=True)  # it is taken from at its end
    state["ongoing_trials"] = {}
    state["run_times"] = {name: 1 for name in ended}
    write_whole(project / "oracle.json", json.dumps(state).encode())
    # A tuner has no state, but goes on only if its file is there.
    for tuner in {project / "tuner0.json", *project.glob("*.json")} - {project / "oracle.json"}:
        write_whole(tuner, b"{}")
    return said


def _number(name: str, trials: int) -> int:
    """The number of a trial. Gaps below it are filled, so it must be one of the study."""
    if not (name.isascii() and name.isdigit() and int(name) < trials):
        raise ValueError(f"there is no trial {name!r} in a study of {trials}")
    return int(name)


def _merged(config: dict[str, Any], found: Any) -> dict[str, Any]:
    space = keras_tuner.HyperParameters.from_config(config)
    space.merge(found)
    return space.get_config()


def _stand_in(project: Path, name: str, space: dict[str, Any]) -> None:
    hyperparameters = keras_tuner.HyperParameters.from_config(space)
    hyperparameters.values = {each.name: each.random_sample(int(name) + 1) for each in hyperparameters.space}
    folder = project / f"trial_{name}"
    folder.mkdir(exist_ok=True)
    Trial(hyperparameters, trial_id=name, status=TrialStatus.RUNNING).save(str(folder / "trial.json"))


def _move(path: Path, set_aside: Path, error: Exception) -> str:
    number = 1
    while (target := set_aside / f"{path.name}.{number}").exists():
        number += 1
    set_aside.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    what = f"{path.name}/trial.json" if target.is_dir() else path.name
    return f"{what} cannot be read ({type(error).__name__}: {error}): set aside as {target}."
