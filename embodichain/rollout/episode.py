"""Recipe -> scene -> expert plan -> rollout -> verify -> encode: one pure function.

Takes a simulator session and an encoder, hands on an `Episode` and physics' `Verdict` on it. What it
returns depends on the recipe alone, whatever the session did before.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from embodichain.contracts import Episode, Observation, Recipe, UnifiedAction, Verdict
from embodichain.encoders import Encoder
from embodichain.rollout.checks import PhysicsChecks
from tasks.base import PlanFailure
from tasks.course import Course
from tasks.session import MAX_SETTLE_STEPS, TaskSession

HOLD_STEPS = 10  # success must hold at rest for this many control steps


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """How an episode is recorded.

    Attributes:
        tau: control steps between image frames; T is padded to a multiple of it by holding still.
        keep_rgb: store rendered frames in the episode besides their tokens.
    """

    tau: int = 8
    keep_rgb: bool = False


@dataclass(frozen=True, kw_only=True)
class RolloutReport:
    """Where the time of one rollout went, seconds; `encode_s` includes rendering."""

    reset_s: float = 0.0
    plan_s: float = 0.0
    simulate_s: float = 0.0
    encode_s: float = 0.0


class _Recorder:
    """Grows the per-step lists of one rollout; what the encoder will see is encoded at the end, all at once."""

    def __init__(self, session: TaskSession, encoder: Encoder, options: RolloutOptions) -> None:
        self._session, self._encoder, self._options = session, encoder, options
        self.proprio: list[np.ndarray] = []
        self.sim_state: list[np.ndarray] = []
        self._seen: list[Observation] = []
        self.rgb: list[np.ndarray] = []
        self.render_s = 0.0

    def see(self, observation: Observation) -> None:
        """Record observation t; render it where the encoder wants a frame."""
        step = len(self.proprio)
        self.proprio.append(observation.proprio)
        self.sim_state.append(self._session.sim_state())
        if self._encoder.needs_rgb and step % self._options.tau:
            return
        started = time.perf_counter()
        if self._encoder.needs_rgb:
            observation = self._session.observe(rgb=True)
            if self._options.keep_rgb and observation.rgb is not None:
                self.rgb.append(observation.rgb)
        self._seen.append(observation)
        self.render_s += time.perf_counter() - started

    def tokens(self) -> np.ndarray:
        """What was seen, `[F, L, C]`."""
        return self._encoder.encode_all(self._seen).astype(self._encoder.dtype)


def make_episode(
    recipe: Recipe, session: TaskSession, encoder: Encoder, options: RolloutOptions
) -> tuple[Episode | None, Verdict, RolloutReport]:
    """Make the episode that `recipe` describes.

    Returns:
        The episode (None if the expert found no plan), the verdict with every failed check by name, and
        the time spent. Only an episode with `verdict.accepted` may enter a replay.

    Raises:
        KeyError: the recipe names an unknown task.
        ValueError: the recipe names an unknown domain.
    """
    clock = [time.perf_counter()]
    observation = session.reset(recipe)
    clock.append(time.perf_counter())
    try:
        plan = session.expert()
    except PlanFailure as failure:
        report = RolloutReport(reset_s=clock[1] - clock[0], plan_s=time.perf_counter() - clock[1])
        return None, Verdict(accepted=False, reasons=(f"plan_{failure.reason}",)), report
    clock.append(time.perf_counter())
    recorder = _Recorder(session, encoder, options)
    recorder.see(observation)
    token_mask = encoder.token_mask(observation)
    checks, course = PhysicsChecks(session), Course(recipe, session, plan)
    success = _execute(session, course, recorder, checks, options.tau)
    clock.append(time.perf_counter())
    tokens = recorder.tokens()
    encode_s = time.perf_counter() - clock[3] + recorder.render_s
    episode = Episode(
        recipe=recipe,
        instruction=session.instruction,
        action=course.stored(),
        action_valid=UnifiedAction.joint_control_mask() | np.any(plan.action != 0, axis=0),
        proprio=np.stack(recorder.proprio).astype(np.float32),
        sim_state=np.stack(recorder.sim_state).astype(np.float32),
        segment_id=np.asarray(course.segment, dtype=np.int16),
        control_hz=session.control_hz,
        success=success,
        label_valid=np.asarray(course.label_valid),
        tokens=tokens,
        token_mask=token_mask,
        tau=options.tau if encoder.needs_rgb else 1,
        encoder_id=encoder.id,
        rgb=np.stack(recorder.rgb) if recorder.rgb else None,
        draws=session.draws | course.draws(),
    )
    report = RolloutReport(
        reset_s=clock[1] - clock[0],
        plan_s=clock[2] - clock[1],
        simulate_s=clock[3] - clock[2] - recorder.render_s,
        encode_s=encode_s,
    )
    reasons = checks.failed(episode)
    if course.gave_up and not episode.success:
        reasons = (*reasons, "not_recoverable")
    return episode, Verdict(accepted=not reasons, reasons=reasons), report


def _execute(session: TaskSession, course: Course, recorder: _Recorder, checks: PhysicsChecks, tau: int) -> bool:
    """Follow the course, then hold its last action until T is a multiple of tau and success has held, or will not."""
    held = 0
    while True:
        observation = session.step(course.next())
        checks.update()
        recorder.see(observation)
        held = held + 1 if session.status().success else 0
        course.look()
        late = course.over > MAX_SETTLE_STEPS
        if late and held < HOLD_STEPS and course.not_done():
            continue
        settled = course.over >= 0 and (held >= HOLD_STEPS or late)
        if (settled or course.stuck) and len(course.target) % tau == 0:
            return held >= HOLD_STEPS
