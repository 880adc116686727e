"""How one pass cuts an episode into tiles. Takes (T, segment changes, window, phase), hands on `[start, stop)` pairs.

A pass uses every available state-action pair exactly once (`contracts.window` says which are available in which
mode). The first tile of a stretch ends at the phase and the last one at the stretch's end, so both may be shorter than
a window; no edge is stranded.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

from embodichain.contracts import WindowSpec


def segment_changes(segment_id: np.ndarray) -> np.ndarray:
    """i64[m]: the steps, ascending and never 0, whose action belongs to another segment than the one before."""
    return np.flatnonzero(np.diff(segment_id)) + 1


def stretches(length: int, changes: np.ndarray, window: WindowSpec) -> np.ndarray:
    """i64[n, 2]: `start, stop` of what windows may read: the segments in mode `segment`, else the whole episode."""
    if window.mode != "segment":
        return np.array([[0, length]], dtype=np.int64)
    bounds = np.concatenate(([0], changes, [length])).astype(np.int64)
    return np.stack((bounds[:-1], bounds[1:]), axis=1)


def draw_pass(length: int, changes: np.ndarray, window: WindowSpec, rng: np.random.Generator) -> list[tuple[int, int]]:
    """`start, stop` of the tiles of one pass, in order, disjoint; together exactly the pairs that `available` names."""
    if window.mode == "boundary":
        return [(start, stop) for start, stop in boundary_tiles(length, changes, window).tolist()]
    if window.mode != "segment":
        return list(_tile(0, length, window, draw_phase(window, rng)))
    bounds = stretches(length, changes, window).tolist()
    return [tile for start, stop in bounds for tile in _tile(start, stop, window, draw_phase(window, rng))]


def available(length: int, changes: np.ndarray, window: WindowSpec) -> np.ndarray:
    """bool[T]: the pairs that a pass uses, if they may be imitated."""
    if window.mode != "boundary":
        return np.ones(length, dtype=bool)
    inside = np.zeros(length, dtype=bool)
    for start, stop in boundary_tiles(length, changes, window):
        inside[start:stop] = True
    return inside


def boundary_tiles(length: int, changes: np.ndarray, window: WindowSpec) -> np.ndarray:
    """i64[n, 2]: full windows around segment changes, in order and disjoint; each change lies in exactly one.

    A tile holds a change if it holds the first pair of the new segment. Tiles start on the grid of `phase_step` and
    end at T at the latest; there are none where the segment never changes.
    """
    pairs, grid, end = window.pairs, window.phase_step, 0
    tiles: list[tuple[int, int]] = []
    for change in changes.tolist():
        if change < end:
            continue
        centred = (change - pairs // 2) // grid * grid
        earliest = (change - pairs) // grid * grid + grid  # starting before it, a window would end before the change
        start = max(end, centred, earliest, 0)
        end = min(start + pairs, length)
        tiles.append((start, end))
    return np.array(tiles, dtype=np.int64).reshape(-1, 2)


def tile(length: int, window: WindowSpec, phase: int) -> np.ndarray:
    """Tiles of one pass over an undivided episode.

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
    return np.array(_tile(0, length, window, phase), dtype=np.int64)


@lru_cache(maxsize=4096)  # an episode's passes have few phases, and episodes few lengths
def _tile(start: int, stop: int, window: WindowSpec, phase: int) -> tuple[tuple[int, int], ...]:
    first = start // window.phase_step * window.phase_step  # where the first tile's first frame lies
    cuts = [start, *range(first + (phase or window.pairs), stop, window.pairs), stop]
    return tuple(pairwise(cuts))


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
