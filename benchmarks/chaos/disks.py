"""The disk under an archive: full while a shard archives what it takes, or with a chunk that rots afterwards."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.chaos.outcome import Outcome, Tick
from benchmarks.reuse import WINDOW, make_episode
from embodichain.archive import Archive, ArchiveWriter, Entry
from embodichain.replay.config import ReplayConfig
from embodichain.replay.shard import ReplayShard

DISK_KB = 512
EPISODES = 12  # of an archive that rots
MOST = 1000  # episodes that fill any such disk


def full(times: int, tick: Tick) -> Outcome:
    """A small file system of its own fills up, with whatever fraction of it taken before.

    Recovered when the shard has taken the next episode and delivered a window: archiving has ended by then.
    """
    outcome, chance = Outcome(), random.Random(0)
    for _ in range(times):
        with small_disk() as disk:
            (disk / "taken").write_bytes(bytes(chance.randrange(DISK_KB * 1024 // 2)))
            outcome.recovery_s.append(_fill(disk, outcome))
        tick()
    return outcome


@contextmanager
def small_disk() -> Iterator[Path]:
    """A tmpfs of `DISK_KB`, mounted for a while. Raises `RuntimeError` if this process may not mount."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KB}k", "tmpfs", folder]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"a file system of its own cannot be mounted here: {done.stderr.strip()}; run as root")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def _fill(disk: Path, outcome: Outcome) -> float:
    archive = Archive.create(str(disk / "archive"))
    config = ReplayConfig(shards=1, capacity_pairs=10**6, min_size_pairs=1, max_reuse=1000)
    shard: Any = ReplayShard(0, config, WINDOW, archive=archive)  # a plain object; its methods' types are Ray's
    taken, began = 0, time.monotonic()
    while not shard.archived().error:
        if taken == MOST:
            raise RuntimeError(f"{MOST} episodes did not fill {DISK_KB} KB")
        began = time.monotonic()
        taken += len(shard.append([make_episode(taken)]).accepted)
    after = shard.append([make_episode(taken)])
    if not after.accepted or shard.sample(4) is None:
        outcome.broken.append("the stream stopped with the disk")
    recovery_s = time.monotonic() - began
    kept = archive.entries()
    outcome.lost["committed entries"] += (taken - 1) - len(kept)
    outcome.broken += [f"{problem.where} {problem.what}" for problem in archive.verify()]
    if [entry.recipe.seed for entry in kept] != list(range(taken - 1)):
        outcome.broken.append(f"{len(kept)} entries, expected all but the last of {taken}")
    if os.strerror(28) not in shard.archived().error:  # ENOSPC
        outcome.broken.append(f"the reason said was {shard.archived().error!r}")
    return recovery_s


def corrupted(times: int, tick: Tick) -> Outcome:
    """One bit of a random file of an archive flips, or the file loses its end.

    Recovered, if that is the word, when everything else was read and the damage named.
    """
    outcome, chance = Outcome(), random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        archive = Archive.create(f"{folder}/archive")
        with ArchiveWriter(archive, 0) as writer:
            for seed in range(EPISODES):
                writer.append(make_episode(seed))
        for _ in range(times):
            victim = chance.choice(archive.entries())
            files = [path for path in (Path(folder) / "archive").glob(f"episodes/*/{victim.id}/**/*") if path.is_file()]
            path = chance.choice([path for path in files if path.stat().st_size])
            whole = path.read_bytes()
            path.write_bytes(_rotten(whole, chance))
            outcome.recovery_s.append(_read_all(archive, victim, outcome))
            path.write_bytes(whole)
            tick()
        outcome.broken += [f"{p.where} {p.what}, and it was put back" for p in archive.verify()]
    return outcome


def _rotten(whole: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return whole[: chance.randrange(len(whole))]
    at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
    return whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]


def _read_all(archive: Archive, victim: Entry, outcome: Outcome) -> float:
    began = time.monotonic()
    named: list[str] = []
    whole = [e.recipe.id for e in archive.episodes(on_damage=lambda entry, error: named.append(entry.id))]
    recovery_s = time.monotonic() - began
    outcome.lost["episodes"] += EPISODES - len(whole)
    if victim.id in whole or len(whole) != EPISODES - 1:
        outcome.broken.append(f"{len(whole)} of {EPISODES} episodes were read, the damaged one among them or not")
    if named != [victim.id] or [p.recipe for p in archive.verify()] != [victim.recipe]:
        outcome.broken.append(f"the damaged episode is {victim.id}; named were {named}")
    return recovery_s
