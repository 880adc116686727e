"""Progress where a live view cannot be drawn: in a log file a bar is nothing at all until it is over."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console


class LogLines:
    """Prints what it is told, at most one line per `seconds`; nothing on a terminal, where a live view stands."""

    def __init__(self, console: Console, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._seconds, self._clock = console, seconds, clock
        self._last = float("-inf")

    def __call__(self, text: str) -> None:
        """The latest state of affairs, which the next one may replace unsaid."""
        if self._console.is_terminal or self._clock() - self._last < self._seconds:
            return
        self._last = self._clock()
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
