"""Archives: bytes per episode of both kinds, writing and reading against the zarr library on the same arrays."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from embodichain.archive import Archive, ArchiveWriter
from embodichain.archive.codec import ARRAYS
from embodichain.contracts import Episode, Recipe, seed_range
from embodichain.encoders import StateEncoder
from embodichain.replay import fake_episode
from embodichain.rollout import RolloutOptions, make_episode
from tasks.registry import slots
from tasks.session import TaskSession, sim_hash

TASKS = ("pick_place", "handover", "two_arm_lift")
DISTINCT = 12  # episodes that are simulated; the others are these under other seeds


def state_episodes(tasks: Sequence[str], count: int) -> list[Episode]:
    """`count` episodes of the `state` encoder, lean as a run archives them; `DISTINCT` of them are simulated."""
    session, encoder = TaskSession(render=None), StateEncoder(**slots(list(tasks)))
    made: list[Episode] = []
    seed = 0
    while len(made) < min(count, DISTINCT):
        recipe = Recipe(task=tasks[seed % len(tasks)], seed=seed_range("test").at(seed), sim_hash=sim_hash())
        episode, verdict, _ = make_episode(recipe, session, encoder, RolloutOptions())
        if episode is not None and verdict.accepted:
            made.append(replace(episode, sim_state=episode.sim_state[:, :0]))
        seed += 1
    session.close()
    return _copies(made, count)


def image_episodes(count: int) -> list[Episode]:
    """`count` episodes of 152 random steps with 64 tokens of 384 channels every 8, as of one 128-pixel camera."""
    made = [fake_episode(seed, 152, 64, 384, tau=8) for seed in range(min(count, DISTINCT))]
    return _copies([replace(e, sim_state=e.sim_state[:, :0]) for e in made], count)


def _copies(made: Sequence[Episode], count: int) -> list[Episode]:
    return [
        replace(made[i % len(made)], recipe=replace(made[i % len(made)].recipe, seed=100_000_000 + i))
        for i in range(count)
    ]


def run(tasks: Sequence[str], episodes: int, folder: Path) -> list[dict[str, object]]:
    """A row for each kind of archive and of episode, and for the zarr library.

    Args:
        tasks: of the state episodes.
        episodes: of each kind.
        folder: on the disk to measure; filled, and left to the caller to remove.
    """
    rows = []
    state = state_episodes(tasks, episodes)
    for name, made in (("state", state), ("image", image_episodes(episodes))):
        rows.append(_archive(folder / name, made, "arrays", name))
        rows.append(_zarr(folder / f"zarr_{name}", made, name))
    rows.append(_archive(folder / "recipes", state, "recipes", "state"))
    return rows


def _archive(place: Path, made: Sequence[Episode], kind: str, name: str) -> dict[str, object]:
    archive = Archive.create(str(place), kind=kind)
    with ArchiveWriter(archive, 0) as writer:
        writes = _times(writer.append, made)
    entries = archive.entries()
    reads = _times(archive.read, entries) if kind == "arrays" else []
    return _row(f"{kind}, fsync'ed, checksums", name, made, place, writes, reads)


def _zarr(place: Path, made: Sequence[Episode], name: str) -> dict[str, object]:
    """The same arrays through the library: a group an episode, one uncompressed chunk an array, nothing fsync'ed."""
    import zarr

    root = zarr.open_group(place, mode="w")

    def write(episode: Episode) -> None:
        group = root.create_group(episode.recipe.id)
        for key in ARRAYS:
            array = getattr(episode, key)
            if array is not None and array.size:
                group.create_array(key, data=array, chunks=array.shape, compressors=None)

    def read(episode: Episode) -> None:
        group = zarr.open_group(place / episode.recipe.id, mode="r")
        for _, array in group.arrays():
            np.asarray(array[...])

    return _row("zarr library", name, made, place, _times(write, made), _times(read, made))


def _times(call: Callable[..., object], items: Sequence[object]) -> list[float]:
    seconds = []
    for item in items:
        began = time.perf_counter()
        call(item)
        seconds.append(time.perf_counter() - began)
    return seconds


def _row(
    what: str, tokens: str, made: Sequence[Episode], place: Path, writes: list[float], reads: list[float]
) -> dict[str, object]:
    files = [path for path in place.rglob("*") if path.is_file()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    row: dict[str, object] = {
        "what": what,
        "tokens": tokens,
        "episodes": len(made),
        "bytes_per_episode": round(1e6 * megabytes / len(made)),
        "disk_bytes_per_episode": round(sum(path.stat().st_blocks for path in files) * 512 / len(made)),
        "write_ms_p50": 1e3 * statistics.median(writes),
        "write_mb_per_s": megabytes / sum(writes),
    }
    if reads:
        row |= {"read_ms_p50": 1e3 * statistics.median(reads), "read_mb_per_s": megabytes / sum(reads)}
    return row
