"""Windows: what leaves the replay, and how an episode is cut into them.

A window covers `frames * tau` state-action pairs. Its K = burn_in + frames frames lie tau control
steps apart; frame j is followed by an action chunk of N steps that starts at it. Windows tile an
episode from a random phase; one tiling is one pass, so a pass uses every pair exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


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
    """

    frames: int = 4
    tau: int = 8
    chunk: int = 16
    burn_in: int = 0
    phase_step: int = 1

    def __post_init__(self) -> None:
        for name, low in (("frames", 1), ("tau", 1), ("chunk", self.tau), ("burn_in", 0), ("phase_step", 1)):
            value = getattr(self, name)
            if value < low:
                raise ValueError(f"window.{name}={value}: expected at least {low}")

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
        frame_mask: bool[B, K+1], frames that exist in the episode.
        proprio: f32[B, K+1, P], at the frames.
        action: f32[B, K, N, A], absolute targets of the chunk that starts at each frame.
        action_exists: bool[B, K, N], steps that lie inside the episode (context; no padding).
        action_mask: bool[B, K, N], steps under the action loss; a subset of `action_exists` without the
            actions of mistakes (`Episode.label_valid`).
        action_valid: bool[B, A].
        previous_action: f32[B, K, tau, A], the tau actions executed just before each frame.
        previous_mask: bool[B, K], whether those existed.
        instruction: B strings.
        recipe_id: B strings; with `start`, names the window's provenance.
        start: i64[B], control step of the tile's first pair.
        pass_index: i64[B], which pass over the episode this window belongs to (0 = first use).
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
