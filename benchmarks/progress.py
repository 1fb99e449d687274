"""How far a command is: a bar on a terminal, a few lines in a log."""

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

#: A command that starts others sets this variable to "0" for them: it says itself how far all of them are.
VARIABLE = "KERASBN_PROGRESS"
#: How many lines there are on the way, at most.
LINES = 10


class Progress:
    """Shows on stderr how far a command is.

    On a terminal it is a bar of tqdm, if that is installed. Elsewhere a bar would be thousands of lines of a log: there
    it is a line at the start, at most ten on the way and one at the end. Each line on the way is the first note in a
    tenth of the work; where nobody knows how much work there is, it is the first note, the second, the fourth, etc.

    Args:
        title: What is done.
        total: How much work there is, in any unit; `None` if that is not known.
        done: How much of it was done before.
    """

    def __init__(self, title: str, total: float | None, done: float = 0.0) -> None:
        self._title, self._total, self._done = title, total, min(done, total or 0.0)
        self._silent = os.environ.get(VARIABLE) == "0" or (total is not None and done >= total)
        self._bar: Any = None
        self._start = time.monotonic()
        self._note, self._notes, self._lines = "", 0, 0
        self._shown = self._part()

    def __enter__(self) -> Self:
        if not self._silent:
            self._bar = _bar(self._title, self._total, self._done) if sys.stderr.isatty() else None
            if self._bar is None:
                self._line(f"resumed at {self._percent()}" if self._done else "started")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif not self._silent:
            how = "done" if kind is None else f"ended at {self._percent()}" if self._total else "ended"
            self._line(f"{how} after {self._time()}{self._note}")

    def add(self, amount: float, note: str = "", *, keep: bool = False) -> None:
        """Says that more of the work is done.

        Args:
            amount: How much more.
            note: What was found, in a few words.
            keep: Whether the note stays on a terminal, as a line of its own, when the next one comes.
        """
        self._done += amount
        if self._bar is not None:
            self._bar.update(amount)
            if note and keep:
                self._bar.write(note, file=sys.stderr)
            elif note:
                self._bar.set_postfix_str(note)
        elif note and not self._silent:
            self._note, self._notes = f": {note}", self._notes + 1
            if self._is_due():
                self._shown, self._lines = self._part(), self._lines + 1
                self._line(f"{self._percent()} after {self._time()}{self._note}")

    def say(self, text: str) -> None:
        """Prints on stdout what is to be read in any case."""
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)

    def _is_due(self) -> bool:
        """Whether a note is worth a line. That of the end of all work goes with the last line."""
        if self._total is None:
            return self._lines < LINES and self._notes.bit_count() == 1
        return self._shown < self._part() < LINES

    def _part(self) -> int:
        """How many tenths are done."""
        return int(LINES * self._done / self._total + 1e-6) if self._total else 0

    def _percent(self) -> str:
        return f"{self._notes} so far" if self._total is None else f"{self._done / self._total:.0%}"

    def _time(self) -> str:
        seconds = time.monotonic() - self._start
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

    def _line(self, text: str) -> None:
        print(f"{self._title}: {text}", file=sys.stderr, flush=True)


def _bar(title: str, total: float | None, done: float) -> Any:
    """A bar of tqdm, `None` if it is not installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    counted = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    form = counted if total is not None else "{desc}: {elapsed}{postfix}"
    return tqdm(desc=title, total=total, initial=done, bar_format=form, ascii=True)
