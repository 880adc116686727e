from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from benchmarks.chaos.disks import small_disk
from embodichain.contracts import Batch, WindowSpec
from embodichain.replay import PassLedger, ReplayConfig, ShardStore, fake_episode
from embodichain.replay.snapshot import DamagedSnapshot, restore, save

WINDOW = WindowSpec(frames=3, tau=4, chunk=8)
BOUND = 4


def open_store(path: Path | None = None, **changes: object) -> ShardStore:
    defaults: dict[str, object] = {"shards": 1, "capacity_pairs": 10_000, "min_size_pairs": 1, "max_reuse": BOUND}
    config = ReplayConfig(**(defaults | changes))  # type: ignore[arg-type]
    return ShardStore(config.share(WINDOW), WINDOW, ledger=PassLedger(path), seed=1)


def pairs_of(batch: Batch) -> list[tuple[str, int]]:
    b, j, n = np.nonzero(batch.action_mask)
    steps = batch.start[b] + j * WINDOW.tau + n
    pairs = {(int(row), int(step)) for row, step in zip(b, steps, strict=True)}
    assert np.array_equal(np.bincount([row for row, _ in pairs], minlength=batch.size), batch.used_per_window)
    return [(batch.recipe_id[row], step) for row, step in pairs]


def use(store: ShardStore, calls: int, uses: Counter[tuple[str, int]]) -> None:
    for _ in range(calls):
        reply = store.sample(3)
        if reply is None:
            return
        uses.update(pairs_of(reply.batch))


def test_the_bound_survives_any_number_of_deaths(tmp_path: Path) -> None:
    episodes = [fake_episode(i, 20 + 7 * i, 2, 3) for i in range(6)]
    uses: Counter[tuple[str, int]] = Counter()
    path = tmp_path / "ledger.jsonl"
    for life in range(8):
        store = open_store(path)  # the one before is simply gone, unclosed, as after kill -9
        for episode in episodes:
            store.append(episode)
        if life < 2:
            assert (store.stats().assumed_uses > 0) == (life == 1)
        use(store, 6, uses)
    assert max(uses.values()) <= BOUND
    store = open_store(path)
    for episode in episodes:
        store.append(episode)
    use(store, 10_000, uses)
    assert max(uses.values()) <= BOUND
    assert store.stats().reuse_max <= BOUND
    assert set(store.ledger.passes.values()) == {BOUND}


def test_a_torn_last_line_is_dropped_and_others_are_not(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = PassLedger(path)
    ledger.record("aa", 10, 1)
    ledger.record("aa", 10, 2)
    ledger.record("bb", 20, 1)
    ledger.close()
    path.write_text(path.read_text() + '{"id":"cc","t":3')
    again = PassLedger(path)
    assert again.passes == {"aa": 2, "bb": 1}
    again.record("cc", 30, 1)
    again.close()
    assert PassLedger(path).passes == {"aa": 2, "bb": 1, "cc": 1}
    assert path.read_text().count("\n") == 3
    path.write_text('{"id":"aa"\n' + path.read_text())
    with pytest.raises(ValueError, match=r"ledger\.jsonl:1: damaged"):
        PassLedger(path)


def test_a_clean_restore_goes_on_bit_for_bit(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a.jsonl", capacity_pairs=300)
    for seed in range(12):
        store.append(fake_episode(seed, 25 + 3 * seed, 2, 3))
        store.sample(3)
    save(store, tmp_path / "shard.npz")
    other = open_store(tmp_path / "a.jsonl", capacity_pairs=300)
    assert restore(other, tmp_path / "shard.npz")
    assert other.stats() == store.stats()
    other._clock = store._clock = lambda: 1.0
    for seed in range(40):
        for each in (store, other):
            each.append(fake_episode(100 + seed, 40, 2, 3))
        one, two = store.sample(5), other.sample(5)
        assert one is not None
        assert two is not None
        for item in fields(Batch):
            np.testing.assert_array_equal(getattr(one.batch, item.name), getattr(two.batch, item.name))
        np.testing.assert_array_equal(one.fresh, two.fresh)
    assert other.stats() == store.stats()


def test_a_restore_after_a_crash_keeps_the_bound(tmp_path: Path) -> None:
    episodes = [fake_episode(i, 30 + 5 * i, 2, 3, mistakes=0.1 * i) for i in range(6)]
    for after in (0, 1, 4, 15):
        uses: Counter[tuple[str, int]] = Counter()
        path = tmp_path / f"{after}.jsonl"
        store = open_store(path)
        for episode in episodes:
            store.append(episode)
        use(store, 7, uses)
        save(store, tmp_path / "shard.npz")
        use(store, after, uses)
        restored = open_store(path)
        assert restore(restored, tmp_path / "shard.npz") is (after == 0)
        use(restored, 10_000, uses)
        assert max(uses.values()) <= BOUND
        assert restored.stats().reuse_max == BOUND
        assert restored.stats().episodes_held == 0
        if after == 0:
            assert set(uses.values()) == {BOUND}


def test_a_restore_refuses_what_would_not_mean_the_same(tmp_path: Path) -> None:
    store = open_store()
    store.append(fake_episode(0, 30))
    save(store, tmp_path / "shard.npz")
    with pytest.raises(ValueError, match="saved with max_reuse=4, expected 5"):
        restore(open_store(max_reuse=5), tmp_path / "shard.npz")
    with pytest.raises(ValueError, match="holds 1 episodes already"):
        restore(store, tmp_path / "shard.npz")


def test_a_shard_that_lost_its_part_of_a_fixed_set_does_not_replace_its_snapshot(tmp_path: Path) -> None:
    path, store = tmp_path / "shard.npz", open_store(mode="static", capacity_pairs=200)
    while not store.complete:
        store.append(fake_episode(len(store.held), 30, 2, 3))
    save(store, path)
    empty = open_store(mode="static", capacity_pairs=200)
    with pytest.raises(FileExistsError, match=r"shard.npz: holds 6 episodes of the fixed set, .* the shard's 0"):
        save(empty, path)
    assert restore(empty, path)
    assert (len(empty.held), empty.complete) == (6, True)
    assert empty.sample(4) is not None
    save(empty, path)
    path.write_bytes(b"torn")
    save(empty, path)
    assert restore(open_store(mode="static", capacity_pairs=200), path)


def test_a_snapshot_goes_to_any_fsspec_path_and_may_leave_the_arrays_out() -> None:
    episodes = {episode.recipe.id: episode for episode in (fake_episode(i, 30 + 3 * i, 2, 3) for i in range(6))}
    store = open_store()
    for episode in episodes.values():
        store.append(episode)
    store.sample(5)
    place = f"memory://{uuid.uuid4().hex}"
    save(store, f"{place}/whole.npz")
    save(store, f"{place}/lean.npz", contents=False)
    whole, lean = open_store(), open_store()
    assert restore(whole, f"{place}/whole.npz")
    assert restore(lean, f"{place}/lean.npz", episode_of=episodes.__getitem__)
    while (expected := store.sample(7)) is not None:
        for other in (whole, lean):
            reply = other.sample(7)
            assert reply is not None
            for item in fields(Batch):
                np.testing.assert_array_equal(getattr(reply.batch, item.name), getattr(expected.batch, item.name))


def test_a_ledger_has_one_writer_and_the_next_waits_until_that_one_is_dead(tmp_path, monkeypatch):
    """A shard of a killed driver lives on for a moment; what it debits then must be known to its successor."""
    path = tmp_path / "shard-0.ledger.jsonl"
    code = (
        "import sys, time; from pathlib import Path; from embodichain.replay.ledger import PassLedger\n"
        "ledger = PassLedger(Path(sys.argv[1])); print('open', flush=True); time.sleep(1.0)\n"
        "ledger.record('late', 10, 3); ledger.flush(); time.sleep(0.5); import os; os._exit(1)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"open\n"
        with monkeypatch.context() as patch:
            patch.setattr("embodichain.replay.ledger.LOCK_PATIENCE_S", 0.1)
            with pytest.raises(TimeoutError, match="another process writes this ledger"):
                PassLedger(path)
        assert PassLedger(path).started("late") == 3


def test_a_damaged_snapshot_is_refused_whole(tmp_path: Path) -> None:
    """Whatever became of the file, it is named, and the store that was to be filled is still empty."""
    store = open_store()
    for seed in range(4):
        store.append(fake_episode(seed, 40, 2, 3))
    use(store, 3, Counter())
    save(store, tmp_path / "shard.npz")
    whole = (tmp_path / "shard.npz").read_bytes()
    middle = len(whole) // 2
    damaged = (whole[:middle], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], b"", b"text")
    for content in damaged:
        (tmp_path / "shard.npz").write_bytes(content)
        other = open_store()
        with pytest.raises(DamagedSnapshot, match=r"shard\.npz: no whole snapshot"):
            restore(other, tmp_path / "shard.npz")
        assert (other.stats().episodes_held, other.stats().windows, other.ledger.passes) == (0, 0, {})


def _use_up(store: ShardStore) -> None:
    while True:
        store.sample(1)
        store.ledger.record("x" * 1000, 10, 1)


def test_no_pass_is_forgotten_however_many_are_noted_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far more than a buffered file holds, and a disk that takes half a line before it is full again."""
    path = tmp_path / "shard-0.ledger.jsonl"
    ledger = PassLedger(path)
    disk, room = ledger._file, [7]

    class Full:
        def write(self, data: bytearray) -> int:
            taken = min(len(data), room[0])
            room[0] -= taken
            if not taken:
                raise OSError(28, "No space left on device")
            assert disk is not None
            return disk.write(bytes(data[:taken]))

        def close(self) -> None:
            assert disk is not None
            disk.close()

    monkeypatch.setattr(ledger, "_file", Full())
    for number in range(1000):
        ledger.record(f"recipe-{number:04d}", 40, 1 + number % 3)
        with pytest.raises(OSError, match=r"No space left.*nothing is delivered"):
            ledger.flush()
    room[0] = 10**9
    ledger.flush()
    ledger.close()
    again = PassLedger(path)
    assert again.passes == ledger.passes
    again.close()


def test_a_ledger_on_a_full_disk_stops_delivery_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    try:
        with small_disk() as disk:
            path = disk / "shard-0.ledger.jsonl"
            store = open_store(path, max_reuse=10**6)
            store.append(fake_episode(0, 40, 2, 3))
            (disk / "rest").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))
            with pytest.raises(OSError, match=r"No space left.*nothing is delivered.*shard-0\.ledger"):
                _use_up(store)
            (disk / "rest").unlink()
            assert store.sample(1) is not None
            started = dict(store.ledger.passes)
            store.ledger.close()
            again = PassLedger(path)
            assert again.passes == started
            again.close()
    except RuntimeError as error:
        pytest.skip(str(error))
