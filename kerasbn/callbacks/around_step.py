"""Something done around the training step."""

from collections.abc import Callable, Iterator
from typing import Any

import keras

Step = Callable[[Iterator], dict[str, Any]]


class AroundStep:
    """Puts a function around `model.train_function`, which `fit` calls for every batch.

    Callbacks come before and after a step in the order of their list, and none comes after a step that raises. What is
    to hold during the step, and only there, is done here: no other callback sees it, no checkpoint holds it, and
    `finally` ends it.

    The function is in force for one call after each `arm`. A `fit` that raised leaves it behind; without `arm` the next
    one runs the plain step.
    """

    def __init__(self, around: Callable[[Step, Iterator], dict[str, Any]], prepare: Callable[[], bool]) -> None:
        """Remembers `around(step, iterator)`; `prepare()` says whether it needs a step of its own, traced within it."""
        self._around, self._prepare = around, prepare
        self._armed = False
        self._plain: Step | None = None
        self._wrapped: Step | None = None

    def arm(self, model: keras.Model) -> None:
        """In `on_train_batch_begin`: the function is around the step that comes now."""
        if self._wrapped is None or model.train_function not in (self._wrapped, self._plain):
            self._wrap(model)
        model.train_function = self._wrapped
        self._armed = True

    def remove(self, model: keras.Model) -> None:
        """In `on_train_end`: the plain step is back. What was traced is kept for the next `fit`."""
        if model.train_function is self._wrapped:
            model.train_function = self._plain

    def renew(self, model: keras.Model) -> None:
        """The next step is traced anew."""
        self.remove(model)
        self._wrapped = None

    def _wrap(self, model: keras.Model) -> None:
        plain = step = model.train_function
        if self._prepare():
            model.make_train_function(force=True)
            step = model.train_function

        def train_function(iterator: Iterator) -> dict[str, Any]:
            if not self._armed:
                self.remove(model)
                return plain(iterator)
            self._armed = False
            return self._around(step, iterator)

        self._plain, self._wrapped = plain, train_function
