"""Settings of a policy runtime, and what they mean in network passes."""

from __future__ import annotations

from dataclasses import dataclass

from embodichain.contracts import MODES, S_ACTION, S_VIDEO, Work
from learner.config import FlowConfig
from learner.flow import Grid

OBSERVE = 1  # passes of the trunk over one frame's context: for the memory, and for both flows, that attend to it
CONDITION = 1  # over the imagined next frame, before the action flow
CORRECTION_STEPS = 1  # of the solver, from where speculation left a flow to its end


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How a model runs in closed loop.

    Attributes:
        mode: `sync`, `naive_async` (the same computation; when it runs is the caller's business) or `sai`, speculative
            asynchronous inference (arXiv 2604.16484).
        s_video: `sai`: flow time to which the *video* flow of the next frame is integrated ahead, on the imagined
            present; 0 leaves all of it until the real frame is there, 1 does all of it ahead.
        s_action: `sai`: the same for the *action* flow. It needs a next frame to act towards, so above 0 the next frame
            is imagined to its end ahead too; what of it is kept is decided by `s_video`.
        context_frames: frames after which the memory starts anew, 0: never; None: the model's own setting.
        seed: of the sampling noise.

    A flow that was begun ahead takes one step on the real observation to its end, from wherever it is: with the shipped
    configurations' 2 and 4 steps that is half of a chunk's passes, with one step each nothing is gained. The later that
    step begins, the more of the imagined present is left in the answer; and models are trained mostly on early times
    (`flow.noise_bias`), so that late ones need more training. `embodichain bench latency` says what other times cost
    (docs/figures.md).
    """

    mode: str = "sync"
    s_video: float = S_VIDEO
    s_action: float = S_ACTION
    context_frames: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"runtime.mode={self.mode}: expected one of {', '.join(MODES)}")
        for name in ("s_video", "s_action"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"runtime.{name}={value}: expected a number in [0, 1]")
        if self.context_frames is not None and self.context_frames < 0:
            raise ValueError(f"runtime.context_frames={self.context_frames}: expected at least 0")

    def video_ahead(self, flow: FlowConfig) -> float:
        """`s_video`, as far as that flow goes."""
        return min(self.s_video, flow.video_stop)

    def action_ahead(self, flow: FlowConfig) -> float:
        """`s_action`, as far as that flow goes before its last step."""
        return min(self.s_action, flow.action_stop)

    def work(self, flow: FlowConfig) -> Work:
        """Network passes of a chunk: a whole one, those of its speculation, and those that then remain."""
        each = flow.video_grid.evaluations_per_step
        video, action = flow.video_steps * each, (flow.action_steps + (flow.action_stop < 1.0)) * each
        whole = OBSERVE + video + _chunk(action)
        s_video, s_action = self.video_ahead(flow), self.action_ahead(flow)
        if self.mode != "sai" or not (s_video or s_action):
            return Work(whole=whole, ahead=0, blocking=whole)
        ahead = OBSERVE + _evaluations(flow.video_grid, 0.0, s_video)
        if flow.video_stop < 1.0:
            ahead += each  # what was imagined is taken to its end first
        if s_action:
            ahead += _evaluations(flow.video_grid, s_video, flow.video_stop)
            ahead += _chunk(_evaluations(flow.action_grid, 0.0, s_action))
        blocking = OBSERVE + _left(s_video, flow.video_stop, video, each)
        blocking += _chunk(_left(s_action, 1.0, action, each))
        return Work(whole=whole, ahead=ahead, blocking=blocking)


def correction_steps(s: float) -> int | None:
    """Solver steps to the end of a flow that stands at `s`; None, as many as its own grid has, where it is at noise."""
    return CORRECTION_STEPS if s else None


def _chunk(evaluations: int) -> int:
    return CONDITION + evaluations if evaluations else 0


def _left(s: float, end: float, whole: int, each: int) -> int:
    """Evaluations to the `end` of a flow that stands at `s`, `each` a step; `whole` from noise on."""
    steps = correction_steps(s)
    if steps is None:
        return whole
    return steps * each if s < end else 0


def _evaluations(grid: Grid, s0: float, s1: float) -> int:
    """Of the velocity, between two times."""
    return grid.share(s0, s1) * grid.evaluations_per_step if s0 < s1 else 0
