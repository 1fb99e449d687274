"""An optimizer that goes on where that of another model was."""

from collections import Counter
from collections.abc import Iterable

import keras


def carry_optimizer(old: keras.Model, new: keras.Model) -> None:
    """Gives the optimizer of `new`, compiled as `old`, the state of that of `old` where the variables are the same."""
    if not old.compiled or not old.optimizer.built:
        return
    if not new.optimizer.built:
        with new.distribute_strategy.scope():
            new.optimizer.build(new.trainable_variables)
    known = _by_name(old.optimizer.variables)
    for name, target in _by_name(new.optimizer.variables).items():
        if name in known:
            target.assign(known[name].numpy())


def _by_name(variables: Iterable[keras.Variable]) -> dict[tuple[str, int], keras.Variable]:
    """By their names, which an optimizer makes from those they belong to, and a number where those are alike."""
    seen: Counter[str] = Counter()
    found = {}
    for variable in variables:
        found[variable.name, seen[variable.name]] = variable
        seen[variable.name] += 1
    return found
