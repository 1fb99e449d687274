"""How many examples: few in every run of the tests, as many as there is time for in the long profile."""

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.database import DirectoryBasedExampleDatabase

#: Examples that ran to their end, by test. Those that hypothesis draws and discards do not count.
COUNTS: Counter[str] = Counter()

#: The name of an environment variable, of the file that counts are written to.
COUNTS_FILE = "KERASBN_FUZZ_COUNTS"

#: Of the long profile, for each example that continuous integration has.
TIMES = float(os.environ.get("KERASBN_FUZZ_TIMES", "10"))


def register() -> None:
    """Registers the profile `long`, which keeps what failed in `.hypothesis/fuzz`, to try that first the next time."""
    settings.register_profile(
        "long",
        deadline=None,
        max_examples=round(100 * TIMES),
        database=DirectoryBasedExampleDatabase(".hypothesis/fuzz"),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def is_long() -> bool:
    """Whether the long profile is on."""
    return settings.get_current_profile_name() == "long"


def fuzz(examples: int, **strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of as many examples in continuous integration, and of `TIMES` as many in the long profile."""
    number = max(1, round(examples * (TIMES if is_long() else 1)))

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @settings(max_examples=number, phases=set(Phase) - {Phase.explain})
        @given(**strategies)
        @functools.wraps(test)
        def counted(*args: Any, **kwargs: Any) -> None:
            test(*args, **kwargs)
            COUNTS[f"{test.__module__.rpartition('.')[2]}::{test.__name__}"] += 1

        return counted

    return decorate
