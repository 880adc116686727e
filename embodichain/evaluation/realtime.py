"""A robot that lives on while its policy computes: who waits for whom in each mode, on the logical clock of `timing`.

`Robot` executes actions in the simulator and judges; `Mind` asks the policy and counts what that takes; `live` brings
them together. `chunk` is f32[N, A], `replan` of whose actions are played before the policy is asked again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from embodichain.contracts import Observation, Policy, PolicyInput, Speculator, nothing_executed
from embodichain.encoders import Encoder
from embodichain.evaluation.timing import Stopwatch, Timing
from embodichain.rollout.episode import HOLD_STEPS
from tasks.session import TaskSession


class NotFinite(Exception):
    """The policy put out a non-finite action."""


@dataclass(kw_only=True)
class Robot:
    """The simulator from the reset on: executes, judges, films.

    Args:
        session: reset to the trial's recipe. `observation`: what the reset returned.
        limit: control steps at most.
        frames: gets a frame every `frame_every` steps, if given.

    Attributes:
        steps: control steps since the reset. `held`: those of them in which the robot waited for a chunk.
        best: the largest progress so far. `success`: the task's predicate has held for long enough.
    """

    session: TaskSession
    observation: Observation
    limit: int
    frames: list[np.ndarray] | None = None
    frame_every: int = 2
    steps: int = 0
    held: int = 0
    best: float = 0.0
    success: bool = False
    _true_for: int = 0
    _executed: list[np.ndarray] = field(default_factory=list)
    _target: np.ndarray | None = None

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.success or self.steps >= self.limit

    def play(self, actions: np.ndarray) -> None:
        """Execute f32[n, A], or as many of them as it takes to end the episode."""
        for action in actions:
            if self.over:
                return
            self._execute(action)

    def wait(self, steps: int) -> None:
        """Hold the last target; before any, the posture of the reset."""
        if self._target is None:
            self._target = self.observation.proprio.astype(np.float32)  # measured, in the layout of actions
        before = self.steps
        self.play(np.repeat(self._target[None], steps, axis=0))
        self.held += self.steps - before

    def told(self) -> np.ndarray:
        """f32[n, A], what was executed since this was last asked."""
        executed, self._executed = self._executed, []
        return np.stack(executed) if executed else nothing_executed()

    def _execute(self, action: np.ndarray) -> None:
        self.observation = self.session.step(action)
        self._target = action
        self._executed.append(np.asarray(action, dtype=np.float32))
        self.steps += 1
        if self.frames is not None and self.steps % self.frame_every == 0:
            self.frames.append(self.session.render_frame())
        status = self.session.status()
        self.best = max(self.best, status.progress)
        self._true_for = self._true_for + 1 if status.success else 0
        self.success = self._true_for >= HOLD_STEPS


class Mind:
    """The policy, and how long it takes.

    Args:
        policy: has been reset. `encoder`: makes its tokens.
        watch: counts control steps.

    Attributes:
        waits: control steps of every chunk between the observation that it was computed from and the moment at which
            it was ready, beyond any speculation. `seconds`: the same as wall time of the call.
    """

    def __init__(self, policy: Policy, encoder: Encoder, robot: Robot, watch: Stopwatch) -> None:
        self._policy, self._encoder, self._robot, self._watch = policy, encoder, robot, watch
        self._token_mask = encoder.token_mask(robot.observation)
        self.waits: list[int] = []
        self.seconds: list[float] = []

    def chunk(self, *, begun: bool = False) -> tuple[np.ndarray, int]:
        """A chunk computed from what is seen now, and the control steps that took; `begun`: it was speculated on.

        Raises:
            NotFinite: for a chunk with a non-finite entry.
        """
        seen = self._look()
        share = self._policy.work.blocking_share if begun and isinstance(self._policy, Speculator) else 1.0
        chunk, steps = self._watch.time(lambda: self._policy.step(seen), share)
        if not np.isfinite(chunk).all():
            raise NotFinite
        self.waits.append(steps)
        self.seconds.append(self._watch.seconds)
        return chunk, steps

    def speculate(self) -> int:
        """Begin the next chunk; the control steps that takes."""
        policy = self._policy
        assert isinstance(policy, Speculator)
        return self._watch.time(policy.speculate, policy.work.ahead_share)[1]

    def _look(self) -> PolicyInput:
        observation, policy = self._robot.observation, self._policy
        reads_tokens = bool(policy.encoder_id)
        if policy.needs_rgb or (reads_tokens and self._encoder.needs_rgb):
            observation = self._robot.session.observe(rgb=True)
        return PolicyInput(
            observation=observation,
            executed=self._robot.told(),
            tokens=self._encoder.encode(observation) if reads_tokens else None,
            token_mask=self._token_mask if reads_tokens else None,
        )


def live(robot: Robot, mind: Mind, replan: int, timing: Timing) -> None:
    """Let the robot do what the mind says until the episode is over.

    Raises:
        NotFinite: the policy put out a non-finite action.
    """
    if timing.mode == "naive_async":
        _live_stale(robot, mind, replan, drop_stale=timing.drop_stale)
    else:
        _live_in_turn(robot, mind, replan, speculate=timing.mode == "sai")


def _live_in_turn(robot: Robot, mind: Mind, replan: int, *, speculate: bool) -> None:
    """`sync` and `sai`: look, wait for the chunk, play it; `sai` begins the next one meanwhile."""
    chunk, steps = mind.chunk()
    robot.wait(steps)
    while not robot.over:
        ahead = mind.speculate() if speculate else 0
        robot.play(chunk[:replan])
        if robot.over:
            return
        chunk, steps = mind.chunk(begun=speculate)
        late = max(0, ahead - replan)  # the speculation itself was not finished when the observation came
        mind.waits[-1] += late
        robot.wait(steps + late)


def _live_stale(robot: Robot, mind: Mind, replan: int, *, drop_stale: bool) -> None:
    """`naive_async`: a chunk is computed from what was seen when the one before it began, so it is late when it starts.

    Until it is ready the robot plays on what it has, and holds its last target when that is used up.
    """
    chunk, steps = mind.chunk()
    robot.wait(steps)
    first = 0
    while not robot.over:
        following, steps = mind.chunk()
        lasts = max(replan, steps)
        mind.waits[-1] = lasts
        rest = chunk[first : first + lasts]
        robot.play(rest)
        robot.wait(lasts - len(rest))
        chunk, first = following, lasts if drop_stale else 0
