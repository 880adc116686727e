"""From episodes and tiles to a `Batch`. Owns: every index and mask of a window.

An episode is prepared once, at its append: the arrays that windows need are copied (which frees the transport's
shared memory), and actions get one zero row at their end, at which masked entries of a chunk point. A batch is then one
index computation over all windows and four copies per window, straight into the batch's arrays: fresh ones, or rows
of memory that the caller owns.

Shapes: T control steps, K = burn_in + frames, N chunk, A actions, P proprioception, L tokens, C channels, B windows.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from embodichain.contracts import ACTION_DIM, Batch, Episode, WindowSpec
from embodichain.replay.tiling import segment_changes, stretches


@dataclass(frozen=True, kw_only=True)
class Source:
    """What windows are cut from. Each padded array ends in one zero row.

    Attributes:
        recipe_id: name of the episode.
        instruction: its language instruction.
        length: T.
        label_valid: bool[T+1], which actions may be imitated.
        changes: i64[m], the steps at which another segment begins, ascending.
        tau: control steps between token frames.
        tokens: [F+1, L, C], f32 or f16.
        token_mask: bool[L].
        proprio: f32[T+2, P].
        action: f32[T+1, A].
        action_valid: bool[A].
        inserted_at: seconds since the epoch.
    """

    recipe_id: str
    instruction: str
    length: int
    tau: int
    tokens: np.ndarray
    token_mask: np.ndarray
    proprio: np.ndarray
    action: np.ndarray
    action_valid: np.ndarray
    label_valid: np.ndarray
    changes: np.ndarray
    inserted_at: float

    def labels(self, start: int = 0, stop: int | None = None) -> int:
        """How many of the actions `start <= t < stop` (default T) may be imitated: only those count as pairs."""
        counted = self._counted
        return counted[self.length if stop is None else stop] - counted[start]

    @cached_property
    def _counted(self) -> array[int]:
        """i64[T+1]: how many of the actions before each step may be imitated."""
        return array("q", np.concatenate(([0], np.cumsum(self.label_valid[: self.length]))).astype(np.int64).tobytes())

    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        arrays = (self.tokens, self.token_mask, self.proprio, self.action, self.action_valid, self.label_valid)
        return sum(array.nbytes for array in arrays)


def prepare(episode: Episode, inserted_at: float) -> Source:
    """Copy what windows need; simulator states, segments and images stay behind.

    Raises:
        ValueError: if the episode carries no tokens.
    """
    if episode.tokens is None or episode.token_mask is None:
        raise ValueError("episode.tokens: none, expected tokens of an encoder; a replay has nothing else to serve")
    labels = np.ones(episode.pairs, dtype=bool) if episode.label_valid is None else episode.label_valid
    return Source(
        recipe_id=episode.recipe.id,
        instruction=episode.instruction,
        length=episode.pairs,
        tau=episode.tau,
        tokens=_with_zero_row(episode.tokens),
        token_mask=np.array(episode.token_mask, dtype=bool),
        proprio=_with_zero_row(episode.proprio),
        action=_with_zero_row(episode.action),
        action_valid=np.array(episode.action_valid),
        label_valid=_with_zero_row(labels),
        changes=segment_changes(episode.segment_id),
        inserted_at=inserted_at,
    )


def _with_zero_row(array: np.ndarray) -> np.ndarray:
    padded = np.zeros((array.shape[0] + 1, *array.shape[1:]), dtype=array.dtype)
    padded[:-1] = array
    return padded


@dataclass(frozen=True, kw_only=True)
class Indices:
    """Where each entry of B windows lies; see `Batch` for the masks.

    Attributes:
        frame: i64[B, K+1], control step of each frame (may lie outside the episode).
        frame_mask: bool[B, K+1].
        chunk: i64[B, K, N], control step of each action.
        action_exists: bool[B, K, N].
        action_mask: bool[B, K, N].
        previous: i64[B, K, tau].
        previous_mask: bool[B, K].
        context_pairs: i64[B], distinct pairs that are read but carry no loss.
    """

    frame: np.ndarray
    frame_mask: np.ndarray
    chunk: np.ndarray
    action_exists: np.ndarray
    action_mask: np.ndarray
    previous: np.ndarray
    previous_mask: np.ndarray
    context_pairs: np.ndarray


def locate(tiles: np.ndarray, limits: np.ndarray, window: WindowSpec) -> Indices:
    """Indices and masks of B windows.

    Frame j lies at `start + (j - burn_in) * tau`, with `start` taken down to the grid of `phase_step`, and exists if
    that is in `[low, high]`, with `low` taken down likewise. A chunk step exists if its frame does and it is in
    `[low, high)`; it is under the loss if it also lies in the tile and its frame is no burn-in.
    Previous actions exist if all tau of them do.

    Args:
        tiles: i64[B, 2], `start, stop`.
        limits: i64[B, 2], `low, high`: what each window may read, `[0, T)` or a segment.
        window: how windows are cut.
    """
    count, grid = window.seen, window.phase_step
    start, stop = tiles[:, 0], tiles[:, 1]
    low, high = limits[:, :1], limits[:, 1:]
    frame = (start // grid * grid)[:, None] + (np.arange(count + 1) - window.burn_in) * window.tau
    frame_mask = (frame >= low // grid * grid) & (frame <= high)
    chunk = frame[:, :count, None] + np.arange(window.chunk)
    exists = frame_mask[:, :count, None] & (chunk >= low[..., None]) & (chunk < high[..., None])
    supervised = np.arange(count) >= window.burn_in
    previous_mask = frame_mask[:, :count] & (frame[:, :count] >= low + window.tau)
    first = np.min(np.where(frame_mask, frame, np.iinfo(np.int64).max), axis=1)
    first = np.where(first >= low[:, 0] + window.tau, first - window.tau, np.maximum(first, low[:, 0]))
    last = np.max(np.where(frame_mask[:, :count], frame[:, :count], 0), axis=1)
    read = np.minimum(last + window.chunk, high[:, 0]) - first
    return Indices(
        frame=frame,
        frame_mask=frame_mask,
        chunk=chunk,
        action_exists=exists,
        action_mask=exists & (chunk >= start[:, None, None]) & (chunk < stop[:, None, None]) & supervised[:, None],
        previous=frame[:, :count, None] + np.arange(-window.tau, 0),
        previous_mask=previous_mask,
        context_pairs=read - (stop - start),
    )


def batch_fields(window: WindowSpec, tokens: tuple[int, int], proprio: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape per window of every array of a `Batch`, for L, C = `tokens` and P = `proprio`."""
    count = window.seen
    return {
        "tokens": ("f4", (count + 1, *tokens)),
        "token_mask": ("?", (tokens[0],)),
        "frame_mask": ("?", (count + 1,)),
        "proprio": ("f4", (count + 1, proprio)),
        "action": ("f4", (count, window.chunk, ACTION_DIM)),
        "action_exists": ("?", (count, window.chunk)),
        "action_mask": ("?", (count, window.chunk)),
        "action_valid": ("?", (ACTION_DIM,)),
        "previous_action": ("f4", (count, window.tau, ACTION_DIM)),
        "previous_mask": ("?", (count,)),
        "start": ("i8", ()),
        "pass_index": ("i8", ()),
        "inserted_at": ("f8", ()),
        "shard": ("i8", ()),
        "used_per_window": ("i8", ()),
    }


def gather(
    sources: Sequence[Source],
    tiles: np.ndarray,
    pass_index: np.ndarray,
    window: WindowSpec,
    *,
    shard: int = 0,
    out: Mapping[str, np.ndarray] | None = None,
) -> tuple[Batch, np.ndarray]:
    """Cut one window per source and stack them.

    Args:
        sources: B episodes of one schema (repeats allowed).
        tiles: i64[B, 2], `start, stop` within each.
        pass_index: i64[B].
        window: how windows are cut; `tiling.check_window` must have passed for the sources' tau.
        shard: written into `Batch.shard`.
        out: arrays as in `batch_fields`, with at least B rows; whatever they hold in the first B is overwritten, masked
            entries with zeros. None: fresh ones.

    Returns:
        The batch, made of the first B rows of `out`, and i64[B], the pairs of each window that were read as context
        only.

    Raises:
        ValueError: if a tile leaves its episode or there are none.
    """
    lengths = np.array([source.length for source in sources], dtype=np.int64)
    _check(tiles, lengths)
    head, size = sources[0], len(sources)
    if out is None:
        expected = batch_fields(window, (head.tokens.shape[1], head.tokens.shape[2]), head.proprio.shape[1])
        out = {name: np.empty((size, *shape), dtype) for name, (dtype, shape) in expected.items()}
    rows = {name: array[:size] for name, array in out.items()}
    at = locate(tiles, _limits(sources, tiles, window), window)
    _fill(sources, at, lengths, window, rows)
    used = [source.labels(*bounds) for source, bounds in zip(sources, tiles, strict=True)]
    small: dict[str, Any] = {
        "frame_mask": at.frame_mask,
        "action_exists": at.action_exists,
        "action_mask": _supervised(sources, at),
        "previous_mask": at.previous_mask,
        "start": tiles[:, 0],
        "pass_index": pass_index,
        "inserted_at": [source.inserted_at for source in sources],
        "shard": shard,
        "used_per_window": used,
    }
    for name, value in small.items():
        rows[name][...] = value
    batch = Batch(
        **rows,
        instruction=[source.instruction for source in sources],
        recipe_id=[source.recipe_id for source in sources],
    )
    return batch, at.context_pairs + (tiles[:, 1] - tiles[:, 0] - rows["used_per_window"])


def _check(tiles: np.ndarray, lengths: np.ndarray) -> None:
    count = len(lengths)
    if not count or tiles.shape != (count, 2):
        raise ValueError(f"tiles{list(tiles.shape)}: expected [{count}, 2] for {count} sources, at least 1")
    if np.any(tiles[:, 0] < 0) or np.any(tiles[:, 1] > lengths) or np.any(tiles[:, 0] >= tiles[:, 1]):
        raise ValueError("tiles: expected 0 <= start < stop <= T for every window")


def _fill(
    sources: Sequence[Source], at: Indices, lengths: np.ndarray, window: WindowSpec, rows: Mapping[str, np.ndarray]
) -> None:
    """Tokens, proprioception and actions of every window, each copied once; what does not exist becomes zero.

    The frames of a window that exist are consecutive, so they are one strided slice of their episode, and the actions
    before consecutive frames lie one behind the other. Chunks overlap and are taken by index.
    """
    tau, stride = window.tau, window.tau // sources[0].tau
    frames, before, actions = window.seen + 1, window.seen * tau, rows["action"]
    action_rows = np.where(at.action_exists, at.chunk, lengths[:, None, None])
    tokens, proprio = (_Rows(rows[name].reshape(-1, *rows[name].shape[2:])) for name in ("tokens", "proprio"))
    previous = _Rows(rows["previous_action"].reshape(-1, ACTION_DIM))
    spans = zip(_spans(at.frame_mask, at.frame), _spans(at.previous_mask, at.previous[:, :, 0]), strict=True)
    for b, (source, ((low, high, frame), (since, until, step))) in enumerate(zip(sources, spans, strict=True)):
        first, count = frame // source.tau, high - low
        tokens.add(source.tokens[first : first + count * stride : stride], low, frames - high)
        proprio.add(source.proprio[frame : frame + count * tau : tau], low, frames - high)
        previous.add(source.action[step : step + (until - since) * tau], since * tau, before - until * tau)
        source.action.take(action_rows[b], axis=0, out=actions[b], mode="clip")
    for each in (tokens, proprio, previous):
        each.copy()
    np.concatenate([source.token_mask for source in sources], out=rows["token_mask"].reshape(-1))
    np.concatenate([source.action_valid for source in sources], out=rows["action_valid"].reshape(-1))


def _spans(mask: np.ndarray, at: np.ndarray) -> list[list[int]]:
    """For every row of bool[B, n], whose true entries are consecutive: from where to where, and i64[B, n] there."""
    low = np.argmax(mask, axis=1)
    return np.stack((low, low + mask.sum(axis=1), at[np.arange(len(at)), low]), axis=1).tolist()


class _Rows:
    """Slices of episodes, and zeros between them, that one copy lays one behind the other."""

    def __init__(self, out: np.ndarray) -> None:
        self._out = out
        self._zeros = np.broadcast_to(out.dtype.type(0), self._out.shape)
        self._parts: list[np.ndarray] = []

    def add(self, rows: np.ndarray, before: int, behind: int) -> None:
        """So many zero rows, the rows, so many zero rows."""
        if before:
            self._parts.append(self._zeros[:before])
        self._parts.append(rows)
        if behind:
            self._parts.append(self._zeros[:behind])

    def copy(self) -> None:
        """Do it."""
        np.concatenate(self._parts, out=self._out)


def _limits(sources: Sequence[Source], tiles: np.ndarray, window: WindowSpec) -> np.ndarray:
    """i64[B, 2]: the stretch of its episode that holds each tile and that its window may read."""
    if window.mode != "segment":
        return np.array([(0, source.length) for source in sources], dtype=np.int64)
    limits = np.empty_like(tiles)
    for b, source in enumerate(sources):
        bounds = stretches(source.length, source.changes, window)
        limits[b] = bounds[np.searchsorted(bounds[:, 0], tiles[b, 0], side="right") - 1]
        if tiles[b, 1] > limits[b, 1]:
            raise ValueError(f"tiles[{b}]={tiles[b].tolist()}: expected within one segment, {limits[b].tolist()}")
    return limits


def _supervised(sources: Sequence[Source], at: Indices) -> np.ndarray:
    """bool[B, K, N]: the actions under the loss, without those that may not be imitated."""
    mask = at.action_mask
    for b, source in enumerate(sources):
        if source.labels() < source.length:
            mask[b] &= source.label_valid.take(at.chunk[b], mode="clip")
    return mask


def concatenate(batches: Sequence[Batch]) -> Batch:
    """One batch of all windows, in order; arrays are fresh and writable. Raises `ValueError` for none."""
    if not batches:
        raise ValueError("no batches to concatenate, expected at least one")
    merged: dict[str, Any] = {}
    for field in fields(Batch):
        parts = [getattr(batch, field.name) for batch in batches]
        merged[field.name] = (
            np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [item for part in parts for item in part]
        )
    return Batch(**merged)


def cut(batch: Batch, start: int, stop: int) -> Batch:
    """Windows `start <= b < stop` of a batch, as views."""
    return Batch(**{field.name: getattr(batch, field.name)[start:stop] for field in fields(Batch)})
