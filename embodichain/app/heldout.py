"""Held-out action error of every checkpoint, asked of evaluator 0 behind its other work."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle

from embodichain.app.config import RunConfig
from embodichain.evaluation.planner import MAX_ATTEMPTS, EvaluationPlanner


@dataclass(frozen=True, kw_only=True)
class _Asked:
    checkpoint: str
    actor: ActorHandle
    ref: ray.ObjectRef
    attempts: int


class HeldoutTracker:
    """Held-out action error of every checkpoint, in order.

    Args:
        config: of the run.
        planner: whose evaluator 0 is asked; one that dies is replaced there, and asked again.
        sim_hash: of the simulator.
        errors: where what arrives is kept.
    """

    def __init__(
        self, config: RunConfig, planner: EvaluationPlanner, sim_hash: str, errors: list[dict[str, Any]]
    ) -> None:
        self._planner, self._config, self._sim_hash = planner, config, sim_hash
        self.errors = errors
        self._pending: deque[_Asked] = deque()
        self._owner: ActorHandle | None = None
        self._built: ray.ObjectRef | None = None

    @property
    def busy(self) -> bool:
        """Whether any checkpoint's error is still to come."""
        return bool(self._pending)

    def submit(self, checkpoint: str) -> None:
        """Queue a checkpoint behind the evaluator's present work."""
        self._ask(checkpoint, 1)

    def poll(self) -> list[dict[str, Any]]:
        """What has arrived since the last call; a value lost with its evaluator is asked for again, up to three times.

        Raises `RuntimeError` for what would go wrong again: the set cannot be made, or the checkpoint not be read.
        """
        arrived: list[dict[str, Any]] = []
        while self._pending and ray.wait([self._pending[0].ref], timeout=0)[0]:
            asked = self._pending.popleft()
            try:
                arrived.append({"step": float(step_of(asked.checkpoint)), **ray.get(asked.ref)})
            except ray.exceptions.RayTaskError as error:
                raise RuntimeError(f"held-out error of {asked.checkpoint}: {self._reason(error)}") from error
            except ray.exceptions.RayError:
                self._planner.lost(asked.actor)
                if self._planner.actors()[0] == asked.actor:  # it had a block: the planner sees that soon
                    self._pending.appendleft(asked)
                    break
                if asked.attempts < MAX_ATTEMPTS:
                    self._ask(asked.checkpoint, asked.attempts + 1)
                else:
                    self._planner.faults["heldout_error_given_up"] += 1
        self.errors.extend(arrived)
        return arrived

    def _ask(self, checkpoint: str, attempts: int) -> None:
        actor = self._planner.actors()[0]
        if actor != self._owner:  # the first time, or evaluator 0 was replaced: it needs the set again
            config = self._config
            self._built = actor.build_heldout.remote(
                sorted(config.active_tasks),
                config.scored_domains,
                config.evaluation.heldout_episodes,
                config.window,
                self._sim_hash,
                "tune" if config.evaluation.seed_range == "tune" else "heldout",
            )
            self._planner.reserve(actor, self._built)
            self._owner = actor
        ref: ray.ObjectRef = actor.heldout_error.remote(checkpoint)
        self._pending.append(_Asked(checkpoint=checkpoint, actor=actor, ref=ref, attempts=attempts))

    def _reason(self, error: ray.exceptions.RayTaskError) -> object:
        """Why no error can be told: the set's failure, if it failed, for all else follows from that."""
        assert self._built is not None
        try:
            ray.get(self._built)
        except ray.exceptions.RayTaskError as failed:
            return failed.cause
        return error.cause


def step_of(checkpoint: str) -> int:
    """N of a path that ends in `step_N`."""
    return int(checkpoint.rsplit("step_", 1)[-1])
