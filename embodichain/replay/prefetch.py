"""The next item, made in a thread while the present one is used. Knows neither batches nor devices."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_S = 0.2  # how soon the thread hears that it is to stop


class Prefetcher(Generic[T]):
    """Calls `make` in a thread of its own and keeps up to `depth` items ready.

    Args:
        make: the next item, or None where the seconds it is given did not bring one. Called in that thread alone.
        depth: items made ahead, >= 1, beside the one that is being made.
    """

    def __init__(self, make: Callable[[float], T | None], depth: int = 1) -> None:
        if depth < 1:
            raise ValueError(f"depth={depth}: expected at least 1")
        self._make = make
        self._items: queue.Queue[T] = queue.Queue(depth)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def next(self, timeout_s: float) -> T | None:
        """The next item; None if `timeout_s` seconds did not bring one.

        Raises:
            BaseException: what `make` raised, once the items made before it are gone.
        """
        with suppress(queue.Empty):
            return self._items.get(timeout=0 if self._error is not None else timeout_s)
        if self._error is not None:
            raise self._error
        return None

    def close(self) -> None:
        """Stop the thread; items that were not taken are dropped."""
        self._stop.set()
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._items.get_nowait()
            self._thread.join(_POLL_S / 10)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                item = self._make(_POLL_S)
                while item is not None and not self._stop.is_set():
                    with suppress(queue.Full):
                        self._items.put(item, timeout=_POLL_S)
                        item = None
        except BaseException as error:  # the thread's edge: `next` raises it where it is heard
            self._error = error
