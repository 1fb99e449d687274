"""Which of all combinations run without `--slow`: every value, but not every pair."""

import itertools
from collections.abc import Collection, Iterable

import pytest


def crossed(first: Iterable, *others: Iterable, core: Collection | None = None) -> list:
    """Arguments for `parametrize`: all combinations, most of them marked slow.

    Each value of `first` is quick with one combination of the others, in turn: so each value of every argument is, as
    long as `first` has no fewer values than there are combinations of the others. With `core`, the values of `first`
    that are not in it are slow throughout.
    """
    combinations = list(itertools.product(*others))
    arguments, turn = [], 0
    for value in first:
        is_core = core is None or value in core
        for place, combination in enumerate(combinations):
            quick = is_core and turn % len(combinations) == place
            name = "-".join(getattr(each, "__name__", str(each)) for each in (value, *combination))
            arguments.append(pytest.param(value, *combination, id=name, marks=() if quick else pytest.mark.slow))
        turn += is_core
    return arguments


def first_of(values: Iterable) -> list:
    """Arguments for `parametrize`: the first value, and the others marked slow."""
    first, *others = values
    return [first, *(pytest.param(value, marks=pytest.mark.slow) for value in others)]
