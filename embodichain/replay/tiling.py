"""How one pass cuts an episode into tiles. Takes (T, window, phase), hands on `[start, stop)` pairs.

A pass uses every state-action pair exactly once. The first tile ends at the phase and the last one at T, so both
may be shorter than a window; no edge of an episode is stranded.
"""

from __future__ import annotations

import numpy as np

from embodichain.contracts import WindowSpec


def tile(length: int, window: WindowSpec, phase: int) -> np.ndarray:
    """Tiles of one pass.

    Args:
        length: T >= 1, control steps of the episode.
        window: how long a full tile is (`window.pairs`).
        phase: where the second tile starts; in `[0, window.pairs)`, a multiple of `window.phase_step`.

    Returns:
        i64[n, 2]: `start, stop` of each tile, in order, disjoint, together exactly `[0, T)`.

    Raises:
        ValueError: for an empty episode or a phase outside its range.
    """
    if length < 1:
        raise ValueError(f"length={length}: expected at least one control step")
    if not 0 <= phase < window.pairs or phase % window.phase_step:
        raise ValueError(
            f"phase={phase}: expected a multiple of {window.phase_step} in [0, {window.pairs}); frames would fall "
            "between the stored ones"
        )
    cuts = np.arange(phase or window.pairs, length, window.pairs, dtype=np.int64)
    bounds = np.concatenate(([0], cuts, [length]))
    return np.stack((bounds[:-1], bounds[1:]), axis=1)


def draw_phase(window: WindowSpec, rng: np.random.Generator) -> int:
    """A phase, uniform over those that `tile` accepts."""
    return int(rng.integers(window.pairs // window.phase_step)) * window.phase_step


def check_window(window: WindowSpec, episode_tau: int) -> None:
    """Raise `ValueError` unless every frame of every tile falls on a stored token frame.

    Args:
        window: how windows are cut.
        episode_tau: control steps between the episodes' token frames, 1 for `state` tokens.
    """
    if window.pairs % window.phase_step:
        raise ValueError(
            f"window.phase_step={window.phase_step}: expected a divisor of frames * tau = {window.pairs}; later tiles "
            "of a pass would start off the grid"
        )
    for name, value in (("tau", window.tau), ("phase_step", window.phase_step)):
        if value % episode_tau:
            raise ValueError(
                f"window.{name}={value}: expected a multiple of the episodes' tau={episode_tau}; image tokens exist "
                "only there"
            )
