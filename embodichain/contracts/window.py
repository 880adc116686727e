"""Windows: what leaves the replay, and how an episode is cut into them.

A window covers `frames * tau` state-action pairs. Its K = burn_in + frames frames lie tau control
steps apart; frame j is followed by an action chunk of N steps that starts at it. The mode says which
pairs a pass over an episode uses, and each of those it uses exactly once:

- `episode`: all of them; windows tile the episode from a random phase.
- `segment`: all of them; windows tile every skill segment by itself, each from a random phase of its own. What lies
  beyond a segment's borders is padding to its windows: masked, zero, neither label nor context. One exception is the
  first frame where frames are stored every tau steps only: it may lie up to `phase_step - 1` steps before the border.
- `boundary`: those in windows around segment changes. A window is laid with its middle at each change that no window
  before it holds, moved to the right where it would reach into that one. There is no random phase: the windows of
  every pass are the same. The other pairs are context, and no figure counts them as available.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

WINDOW_MODES = ("episode", "segment", "boundary")


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """How windows are cut.

    Attributes:
        frames: supervised frames per window, >= 1.
        tau: control steps between frames, >= 1.
        chunk: N, actions predicted from each frame, >= tau. Where a chunk reaches past the tile's end,
            its tail is masked out of the loss: those pairs belong to the next window.
        burn_in: frames before the tile that are read as context and carry no loss.
        phase_step: the phase is a multiple of this (tau for image tokens, 1 for `state`).
        mode: `episode`, `segment` or `boundary`: see the module.
    """

    frames: int = 4
    tau: int = 8
    chunk: int = 16
    burn_in: int = 0
    phase_step: int = 1
    mode: str = "episode"

    def __post_init__(self) -> None:
        for name, low in (("frames", 1), ("tau", 1), ("chunk", self.tau), ("burn_in", 0), ("phase_step", 1)):
            value = getattr(self, name)
            if value < low:
                raise ValueError(f"window.{name}={value}: expected at least {low}")
        if self.mode not in WINDOW_MODES:
            raise ValueError(f"window.mode={self.mode!r}: expected one of {', '.join(WINDOW_MODES)}")

    @property
    def seen(self) -> int:
        """Frames of a window that a model sees, those of the burn-in included."""
        return self.burn_in + self.frames

    @property
    def pairs(self) -> int:
        """State-action pairs of a full window."""
        return self.frames * self.tau


@dataclass(kw_only=True)
class Batch:
    """B windows, stacked. Masked entries are zero and must not reach a loss.

    Attributes:
        tokens: f32[B, K+1, L, C]; entry K is the frame after the last chunk (a target only).
        token_mask: bool[B, L].
        frame_mask: bool[B, K+1], frames that exist in the episode (mode `segment`: in the segment).
        proprio: f32[B, K+1, P], at the frames.
        action: f32[B, K, N, A], absolute targets of the chunk that starts at each frame.
        action_exists: bool[B, K, N], steps that lie inside the episode or segment (context; no padding).
        action_mask: bool[B, K, N], steps under the action loss; a subset of `action_exists` without the
            actions of mistakes (`Episode.label_valid`).
        action_valid: bool[B, A].
        previous_action: f32[B, K, tau, A], the tau actions executed just before each frame.
        previous_mask: bool[B, K], whether those existed.
        instruction: B strings.
        recipe_id: B strings; with `start`, names the window's provenance.
        start: i64[B], control step of the tile's first pair.
        pass_index: i64[B], which pass over the episode this window belongs to (0 = first use): so many times each of
            its pairs was used before, uses that a restarted shard had to assume included.
        inserted_at: f64[B], seconds since the epoch when the episode entered the replay.
        shard: i64[B].
        used_per_window: i64[B], distinct state-action pairs that the action loss of each window touches
            (with chunk > tau a pair may lie in two chunks of one window; it is still one use).
    """

    tokens: np.ndarray
    token_mask: np.ndarray
    frame_mask: np.ndarray
    proprio: np.ndarray
    action: np.ndarray
    action_exists: np.ndarray
    action_mask: np.ndarray
    action_valid: np.ndarray
    previous_action: np.ndarray
    previous_mask: np.ndarray
    instruction: list[str]
    recipe_id: list[str]
    start: np.ndarray
    pass_index: np.ndarray
    inserted_at: np.ndarray
    shard: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    used_per_window: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def size(self) -> int:
        """B."""
        return int(self.tokens.shape[0])

    @property
    def pair_uses(self) -> int:
        """Uses of state-action pairs in the whole batch."""
        return int(np.sum(self.used_per_window))
