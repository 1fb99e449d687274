"""A study as far as it is: what has ended of one that was interrupted, and what is missing."""

import shlex
from pathlib import Path
from typing import Any

from examples.parsed import parsed, read
from tuning import results, settings
from tuning.results import PROJECT, STABLE, ResultsMissing, Study
from tuning.settings import Settings


def find(path: Path) -> tuple[Study, list[str]]:
    """The study in a folder or in a file of results.

    Returns:
        The study and a sentence for each thing that is missing of it, the last of which says what to do.

    Raises:
        ResultsMissing: If there is none, or no trial of it has ended.
    """
    file = path / settings.FILE
    if not file.exists():
        return results.read(path), []
    try:
        asked = parsed(Settings, read(file))
    except (OSError, ValueError) as error:
        raise ResultsMissing(f"{file} cannot be read ({error}).") from error
    try:
        whole = results.read(path)
    except ResultsMissing:
        whole = None
    if whole and whole.settings == asked.content():  # it is written at the end
        return whole, []
    found, missing = _collected(path, asked)
    missing += [f"{len(found.trials)} of {asked.trials} trials have ended."]
    missing += ["The largest stable rates are missing."] * (asked.stable_steps > 0 and not found.stable)
    command = ["python", "-m", "tuning.study", f"--out={path}", *asked.options(), "--resume"]
    missing.append(f"To go on: {shlex.join(command)}")
    if not found.trials:
        raise ResultsMissing(" ".join([f"There are no results in {path}.", *missing]))
    return found, missing


def _collected(path: Path, asked: Settings) -> tuple[Study, list[str]]:
    """The trials that have ended, and a sentence for each file that cannot be read."""
    trials, unreadable = [], []
    for folder in sorted((path / PROJECT).glob("trial_*")):
        if results.ended(folder):
            try:
                trials.append(results.read_trial(folder))
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                unreadable.append(f"{folder} cannot be read ({type(error).__name__}: {error}): it is left out.")
    stable: Any = None
    if (path / STABLE).exists():
        try:
            stable = parsed(dict[str, list[float | None]], read(path / STABLE))
        except (OSError, ValueError) as error:
            unreadable.append(f"{path / STABLE} cannot be read ({error}): it is left out.")
    return Study(asked.content(), trials, stable), unreadable
