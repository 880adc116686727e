"""Settings of a policy runtime, and what they mean in network passes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embodichain.contracts import MODES, S_ACTION, S_VIDEO, Work
from learner.config import FlowConfig

OBSERVE = 1  # passes of the trunk over one frame's context: for the memory, and for both flows, that attend to it
CONDITION = 1  # over the imagined next frame, before the action flow


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

    Both times are rounded down to a step of the solver, so that the two parts together take the steps of one. The
    defaults leave one step of each flow to the real observation: with the shipped presets' 2 and 4 steps half of a
    chunk's passes. `embodichain bench latency` says what other times cost (docs/figures.md).
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

    def video_stop(self, flow: FlowConfig) -> float:
        """`s_video` on the grid of the video solver."""
        return _on_grid(self.s_video, flow.video_steps, flow.video_stop)

    def action_stop(self, flow: FlowConfig) -> float:
        """`s_action` on the grid of the action solver."""
        return _on_grid(self.s_action, flow.action_steps, flow.action_stop)

    def work(self, flow: FlowConfig) -> Work:
        """Network passes of a chunk: a whole one, those of its speculation, and those that then remain."""
        each = 2 if flow.solver == "midpoint" else 1
        video = flow.video_steps * each
        action = (flow.action_steps + (flow.action_stop < 1.0)) * each
        video_ahead = round(self.video_stop(flow) * flow.video_steps / flow.video_stop) * each
        action_ahead = round(self.action_stop(flow) * flow.action_steps / flow.action_stop) * each
        whole = OBSERVE + video + _action(action)
        if self.mode != "sai":
            return Work(whole=whole, ahead=0, blocking=whole)
        imagined = video if action_ahead else video_ahead
        rest = each if flow.video_stop < 1.0 else 0  # what was imagined is taken to its end first
        ahead = rest + OBSERVE + imagined + _action(action_ahead) if video_ahead or action_ahead else 0
        return Work(whole=whole, ahead=ahead, blocking=OBSERVE + video - video_ahead + _action(action - action_ahead))


def _action(evaluations: int) -> int:
    return CONDITION + evaluations if evaluations else 0


def _on_grid(s: float, steps: int, stop: float) -> float:
    """The last of the points k stop / steps at or before `s`."""
    return min(stop, math.floor(s * steps / stop + 1e-9) * stop / steps)
