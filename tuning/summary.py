"""What a study says: a row for each trial, and two sentences."""

import statistics
from typing import Any

from kerasbn.tuner import StableRates
from tuning.results import ARMS, Study, Trial

WITHOUT = {"plain": "without batch normalization", "normalized": "with it"}


def target(study: Study) -> float | None:
    """The accuracy that steps are counted to: that of the best network without normalization."""
    best = study.best("plain")
    return best.accuracy if best else None


def names(study: Study) -> list[str]:
    """The hyperparameters that were varied, beside arm and learning rate."""
    found = dict.fromkeys(name for trial in study.trials for name in trial.values)
    rest = [name for name in found if name not in ("kerasbn/arm", "kerasbn/learning_rate_factor")]
    return [name for name in rest if len({trial.values.get(name) for trial in study.trials}) > 1]


def rows(study: Study, accuracy: float | None) -> list[dict[str, Any]]:
    """The trials of each arm by learning rate: numbers under the names of the columns.

    Args:
        study: The study.
        accuracy: What the steps are counted to, `None` for no such column.
    """
    found = []
    for trial in (trial for arm in ARMS for trial in study.of(arm)):
        row: dict[str, Any] = {"trial": trial.name, "arm": trial.arm, "learning rate": study.rate(trial)}
        row |= {name.removeprefix("kerasbn/"): trial.values.get(name) for name in names(study)}
        row |= {"accuracy": trial.accuracy, "spread": trial.spread if trial.accuracy is not None else None}
        row |= {"trainings": len(trial.executions), "diverged": len(trial.diverged)}
        row["first divergence"] = min(trial.diverged, default=None)
        if accuracy is not None:
            steps = [each for each in trial.steps_to(accuracy) if each is not None]
            row |= {"steps to target": statistics.fmean(steps) if steps else None, "reached": len(steps)}
        found.append(row)
    return found


def table(study: Study, accuracy: float | None) -> list[list[str]]:
    """The same as text for people, with a line for the names of the columns."""
    head = ["arm", "learning rate", *(name.removeprefix("kerasbn/") for name in names(study)), "accuracy at the end"]
    head += ["diverged"] + ([f"steps to {accuracy:.1%}"] if accuracy is not None else [])
    lines = [head]
    for row in rows(study, accuracy):
        line = [row["arm"], f"{row['learning rate']:.3g}"]
        line += [_short(row[name.removeprefix("kerasbn/")]) for name in names(study)]
        line.append("-" if row["accuracy"] is None else f"{row['accuracy']:.1%} ± {row['spread']:.1%}")
        diverged = f"{row['diverged']} of {row['trainings']}, first at step {row['first divergence']}"
        line.append(diverged if row["diverged"] else "")
        if accuracy is not None:
            some = row["steps to target"] is not None
            steps = f"{row['steps to target']:,.0f}" if some else "not reached"
            partly = some and row["reached"] < row["trainings"]
            line.append(steps + (f" ({row['reached']} of {row['trainings']})" if partly else ""))
        lines.append(line)
    return lines


def conclusion(study: Study) -> str:
    """Two sentences: the largest stable learning rates and the best ones, and their ratios."""
    return f"{_stable(study)} {_best(study)}"


def _stable(study: Study) -> str:
    if not study.stable:
        asked_for = study.settings.get("stable_steps")
        return f"The largest stable learning rates were not {'found yet' if asked_for else 'asked for'}."
    rates = {arm: [rate if rate is not None else float("nan") for rate in study.stable[arm]] for arm in ARMS}
    found = StableRates({}, rates)
    means = {arm: found.rate(arm).mean for arm in ARMS}
    if not all(mean > 0 for mean in means.values()):
        return "A largest stable learning rate was not found for every seed."
    ratio, seeds = found.ratio(), len(rates["plain"])
    interval = f"95 % interval {ratio.low:.2g} to {ratio.high:.2g}, {seeds} seeds" if seeds > 1 else "one seed"
    return (
        f"The largest stable learning rate is {means['plain']:.2g} without batch normalization and "
        f"{means['normalized']:.2g} with it, {ratio.mean:.2g} times as high ({interval})."
    )


def _best(study: Study) -> str:
    best = {arm: study.best(arm) for arm in ARMS}
    for arm, trial in best.items():
        if trial is None:
            return f"No network {WITHOUT[arm].replace('with it', 'with batch normalization')} was trained to the end."
    plain, normalized = (best[arm] for arm in ARMS)
    assert plain and normalized
    accuracy = target(study)
    assert accuracy is not None
    sooner = _sooner(plain, normalized, accuracy)
    return (
        f"The best one is {study.rate(plain):.2g} without it, with an accuracy of {_accuracy(plain)}, and "
        f"{study.rate(normalized):.2g} with it, with {_accuracy(normalized)}: "
        f"{study.rate(normalized) / study.rate(plain):.2g} times as high{sooner}."
    )


def _sooner(plain: Trial, normalized: Trial, accuracy: float) -> str:
    sooner, first = normalized.mean_steps_to(accuracy), plain.mean_steps_to(accuracy)
    return f", and at {accuracy:.1%} after {sooner:,} steps in place of {first:,}" if sooner and first else ""


def _accuracy(trial: Trial) -> str:
    return f"{trial.accuracy:.1%} ± {trial.spread:.1%}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
