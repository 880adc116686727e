"""A closed-loop policy as whoever runs it sees it: what it is shown, what it answers, how it may use the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from embodichain.contracts.action import ACTION_DIM
from embodichain.contracts.episode import Observation

MODES = ("sync", "naive_async", "sai")
S_VIDEO, S_ACTION = 0.5, 0.25  # defaults of `sai`: how far either flow is integrated ahead


def nothing_executed() -> np.ndarray:
    """f32[0, A]: no action was executed yet."""
    return np.zeros((0, ACTION_DIM), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class PolicyInput:
    """What a policy sees when it is asked for a chunk.

    Attributes:
        observation: the moment, as measured; its privileged fields are for policies that say that they use them.
        executed: f32[n, A], what the robot was told since the policy was last asked, oldest first; empty at first.
        tokens: [L, C], the encoded observation, or None for a policy that reads no tokens.
        token_mask: bool[L], which tokens exist.
    """

    observation: Observation
    executed: np.ndarray
    tokens: np.ndarray | None = None
    token_mask: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """Network passes behind a chunk, by which an injected latency is shared out.

    Attributes:
        whole: of a chunk computed in one go, after its observation has arrived.
        ahead: of the speculation, while the robot still executes the chunk before.
        blocking: of the rest, after the observation has arrived.
    """

    whole: int = 1
    ahead: int = 0
    blocking: int = 1

    @property
    def blocking_share(self) -> float:
        """Of a whole chunk's time, the part for which the robot waits."""
        return self.blocking / self.whole

    @property
    def ahead_share(self) -> float:
        """The speculation's time as a multiple of a whole chunk's."""
        return self.ahead / self.whole


class Policy(Protocol):
    """A closed-loop policy, one episode at a time. Anything that has these two methods can be scored.

    Attributes:
        replan: control steps of each chunk that are executed before `step` is asked again.
        encoder_id: the encoder whose tokens it was trained on, a mismatch is an error; empty: it reads no tokens.
        needs_rgb: whether it reads the cameras' frames themselves.
    """

    replan: int
    encoder_id: str
    needs_rgb: bool

    def reset(self, instruction: str) -> None:
        """Forget the last episode and take the instruction of the next."""
        ...

    def step(self, seen: PolicyInput) -> np.ndarray:
        """The next chunk f32[N, A], absolute targets, N >= replan."""
        ...


@runtime_checkable
class Speculator(Protocol):
    """A policy that can begin its next chunk before it sees what the present one led to.

    Attributes:
        work: how its work is split.
    """

    work: Work

    def speculate(self) -> None:
        """Work on the next chunk as if the first `replan` actions of the last one had led to what was imagined."""
        ...
