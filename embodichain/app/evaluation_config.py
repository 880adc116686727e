"""The settings of closed-loop and held-out evaluation: how many seeds, and when chunks are computed and played."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embodichain.app.settings import ConfigError
from embodichain.contracts import MODES, S_ACTION, S_VIDEO, SCORING


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Closed-loop and held-out evaluation.

    Attributes:
        evaluators: evaluator processes.
        cpus: Ray CPUs each.
        seed_range: `eval`; or `tune` while settings are being chosen, so that reported scores stay unseen. The held-out
            set is then made of `tune` seeds as well.
        domains: domains that checkpoints are scored in, by success and by held-out error, held-out sides included; what
            is said of a run in one number is said of the first one. Empty: the run's own.
        seeds: held-out seeds per task for the last checkpoint.
        seeds_between: seeds per task for every checkpoint before it; 0 skips them.
        heldout_episodes: episodes per task and domain in the fixed set for held-out action error.
        step_limit_ratio: step limit as a multiple of the expert's length on the same seed.
        replan: control steps executed per chunk.
        mode: `sync`, `naive_async` or `sai`: when chunks are computed (`evaluation/timing.py`).
        latency_steps: control steps that a whole chunk takes to compute, on a logical clock; null: measured.
        s_video, s_action: `sai`: how far either flow is integrated on the imagined frame (`learner/runtime/config.py`).
        context_frames: frames after which a policy's memory starts anew, 0: never; null: as the checkpoint says.
        videos: seeds per task filmed with the last checkpoint.
        video_every: control steps between video frames.
        niceness: added to the evaluators' scheduling niceness, so that learner and actors go first.
    """

    evaluators: int = 1
    cpus: float = 0.5
    seed_range: str = "eval"
    domains: tuple[str, ...] = ()
    seeds: int = 30
    seeds_between: int = 5
    heldout_episodes: int = 8
    step_limit_ratio: float = 2.0
    replan: int = 8
    mode: str = "sync"
    latency_steps: float | None = 0.0
    s_video: float = S_VIDEO
    s_action: float = S_ACTION
    context_frames: int | None = None
    videos: int = 1
    video_every: int = 3
    niceness: int = 4

    def __post_init__(self) -> None:
        least = {"seeds_between": 0, "videos": 0}
        for key in ("evaluators", "seeds", "seeds_between", "heldout_episodes", "replan", "videos", "video_every"):
            if getattr(self, key) < least.get(key, 1):
                raise ConfigError(f"evaluation.{key}={getattr(self, key)}: expected at least {least.get(key, 1)}")
        if self.cpus <= 0:
            raise ConfigError(f"evaluation.cpus={self.cpus}: expected more than 0")
        if self.seed_range not in SCORING:
            raise ConfigError(f"evaluation.seed_range={self.seed_range}: expected {' or '.join(SCORING)}")
        if self.step_limit_ratio < 1:
            raise ConfigError(f"evaluation.step_limit_ratio={self.step_limit_ratio}: expected at least 1")
        if self.mode not in MODES:
            raise ConfigError(f"evaluation.mode={self.mode}: expected one of {', '.join(MODES)}")
        if self.latency_steps is not None and not 0 <= self.latency_steps < math.inf:
            raise ConfigError(f"evaluation.latency_steps={self.latency_steps}: expected at least 0, finite; or null")
        if self.context_frames is not None and self.context_frames < 0:
            raise ConfigError(f"evaluation.context_frames={self.context_frames}: expected at least 0, or null")
        for key in ("s_video", "s_action"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"evaluation.{key}={getattr(self, key)}: expected a number in [0, 1]")
