"""A notice board between the learner's workers and the driver: status one way, the wish to stop the other."""

from __future__ import annotations

from typing import Any

import ray


class Board:
    """Holds the latest word of each side. Restarted empty if it dies; both sides write again soon."""

    def __init__(self) -> None:
        self._status: dict[str, object] = {}
        self._metrics: list[tuple[int, dict[str, float]]] = []
        self._stop = False

    def post(self, status: dict[str, object], metrics: list[tuple[int, dict[str, float]]]) -> bool:
        """The learner's report: present status and `(step, values)` since the last; returns whether to stop."""
        self._status = status
        self._metrics.extend(metrics)
        return self._stop

    def read(self) -> tuple[dict[str, object], list[tuple[int, dict[str, float]]]]:
        """The driver's side: the latest status and the metrics not yet read."""
        metrics, self._metrics = self._metrics, []
        return self._status, metrics

    def request_stop(self) -> None:
        """Ask the learner to checkpoint and return at its next report."""
        self._stop = True


def start_board() -> Any:
    """The board as a Ray actor that is restarted whenever it dies; calls wait for it."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Board).remote()
