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

    The function is in `model.train_function` from `arm` to the next step, for that step. If `fit` is left in between,
    by an error or an interrupt, it stays there. So `make_train_function`, with which `fit` and `train_on_batch` begin,
    puts the plain step back first.
    """

    def __init__(self, around: Callable[[Step, Iterator], dict[str, Any]]) -> None:
        """Remembers `around(step, iterator)`, which runs the plain `step` or one of its own in place of it."""
        self._around = around
        self._plain: Step | None = None
        self._wrapped: Step | None = None
        self._make: Callable[..., Any] | None = None
        self._make_before: Callable[..., Any] | None = None

    def arm(self, model: keras.Model) -> None:
        """In `on_train_batch_begin`: the function is around the step that comes now."""
        if self._make is None or vars(model).get("make_train_function") is not self._make:
            self._watch(model)
        if model.train_function is not self._wrapped:
            if model.train_function is not self._plain:
                self._wrap(model)
            model.train_function = self._wrapped

    def remove(self, model: keras.Model) -> None:
        """In `on_train_end`: nothing is around the steps of `model` any more."""
        self._disarm(model)
        if self._make is not None and vars(model).get("make_train_function") is self._make:
            if self._make_before is None:
                del model.make_train_function
            else:
                model.make_train_function = self._make_before
        self._make = None

    def _disarm(self, model: keras.Model) -> None:
        if self._wrapped is not None and model.train_function is self._wrapped:
            model.train_function = self._plain

    def _wrap(self, model: keras.Model) -> None:
        plain = model.train_function

        def train_function(iterator: Iterator) -> dict[str, Any]:
            self._disarm(model)
            return self._around(plain, iterator)

        self._plain, self._wrapped = plain, train_function

    def _watch(self, model: keras.Model) -> None:
        def make_train_function(force: bool = False) -> Any:
            self.remove(model)
            return model.make_train_function(force=force)

        self._make_before = vars(model).get("make_train_function")
        self._make = model.make_train_function = make_train_function
