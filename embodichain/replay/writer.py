"""The producers' end of the replay. Takes episodes, routes them to their shards; owns retrying past a dead shard."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from embodichain.contracts import Episode
from embodichain.replay.routing import route


@dataclass(frozen=True, kw_only=True)
class WriteReport:
    """What became of the episodes of one `append`.

    Attributes:
        accepted: how many entered.
        duplicate: how many were known already (a repeated append).
        full: how many a complete static set did not take.
        retry: those that did not get in before the time-out: keep them and try again.
    """

    accepted: int = 0
    duplicate: int = 0
    full: int = 0
    retry: list[Episode] = field(default_factory=list)


class ReplayWriter:
    """Appends episodes to the shards that their recipes belong to; repeats are harmless.

    Args:
        shards: actor handles, by shard index; all of them, since routing depends on their number.
        retry_s: pause before a shard that failed is asked again.
        grace_s: how much longer than its own time-out a shard may take to answer before it counts as hung.
    """

    def __init__(self, shards: Sequence[Any], *, retry_s: float = 0.5, grace_s: float = 30.0) -> None:
        if not shards:
            raise ValueError("no replay shards: expected at least one")
        self._shards = list(shards)
        self._retry_s = retry_s
        self._grace_s = grace_s
        self.faults = 0

    def append(self, episodes: Iterable[Episode], timeout_s: float = 10.0) -> WriteReport:
        """Append episodes, waiting up to `timeout_s` seconds for limiters and restarting shards.

        Raises:
            ray.exceptions.RayTaskError: caused by `ValueError`, if a shard refuses an episode.
        """
        until = time.monotonic() + timeout_s
        waiting = {episode.recipe.id: episode for episode in episodes}
        counts = {"accepted": 0, "duplicate": 0, "full": 0}
        while waiting:
            failed = self._round(waiting, counts, max(0.0, until - time.monotonic()))
            left = until - time.monotonic()
            if left <= 0:
                break
            if failed and waiting:
                time.sleep(min(self._retry_s, left))
        return WriteReport(**counts, retry=list(waiting.values()))

    def update_priorities(self, priorities: Mapping[str, float]) -> int:
        """Set the priorities of episodes by recipe id, at the shards that they belong to.

        Returns:
            How many were set: those of episodes that left, or whose shard is restarting, are not.

        Raises:
            ray.exceptions.RayTaskError: caused by `ValueError`, for a priority out of range.
        """
        parts: dict[int, dict[str, float]] = {}
        for recipe_id, priority in priorities.items():
            parts.setdefault(route(recipe_id, len(self._shards)), {})[recipe_id] = priority
        refs = [self._shards[index].update_priorities.remote(part) for index, part in parts.items()]
        known = 0
        for ref in refs:
            try:
                known += ray.get(ref, timeout=self._grace_s)
            except (RayActorError, ObjectLostError, GetTimeoutError):
                self.faults += 1
        return known

    def _round(self, waiting: dict[str, Episode], counts: dict[str, int], timeout_s: float) -> bool:
        parts: dict[int, list[Episode]] = {}
        for recipe_id, episode in waiting.items():
            parts.setdefault(route(recipe_id, len(self._shards)), []).append(episode)
        refs = [self._shards[index].append.remote(part, timeout_s) for index, part in parts.items()]
        failed = False
        for ref in refs:
            try:
                reply = ray.get(ref, timeout=timeout_s + self._grace_s)
            except (RayActorError, ObjectLostError, GetTimeoutError):
                self.faults += 1
                failed = True
                continue
            for name in counts:
                done = getattr(reply, name)
                counts[name] += len(done)
                for recipe_id in done:
                    waiting.pop(recipe_id, None)
        return failed
