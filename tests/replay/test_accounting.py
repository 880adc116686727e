"""Every figure against a recount of all delivered windows, task by task and shard by shard."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field

import numpy as np
import pytest

from embodichain.contracts import Episode, WindowSpec
from embodichain.replay import AppendStatus, ReplayConfig, ReplayStats, ShardStore, fake_episode, route

TASKS = ("pick_place", "handover", "reach")
SHARDS = 3


@dataclass(kw_only=True)
class Recount:
    """What one shard delivered, kept by whoever received it."""

    inserted: dict[str, Episode] = field(default_factory=dict)
    inserted_at: dict[str, float] = field(default_factory=dict)
    delivered_before: dict[str, int] = field(default_factory=dict)  # windows, when the episode came
    available: dict[str, np.ndarray] = field(default_factory=dict)
    uses: Counter[tuple[str, int]] = field(default_factory=Counter)
    windows: list[tuple[str, float, int]] = field(default_factory=list)  # recipe, age, staleness

    def insert(self, episode: Episode, store: ShardStore, now: float) -> None:
        name = episode.recipe.id
        self.inserted[name], self.inserted_at[name] = episode, now
        self.delivered_before[name] = len(self.windows)
        self.available[name] = np.flatnonzero(store.held[name].source.label_valid)

    def deliver(self, name: str, pairs: list[int], now: float) -> list[int]:
        """Count a window; the uses that its pairs had before."""
        self.windows.append((name, now - self.inserted_at[name], len(self.windows) - self.delivered_before[name]))
        before = [self.uses[name, step] for step in pairs]
        self.uses.update((name, step) for step in pairs)
        return before

    def check(self, stats: ReplayStats) -> None:
        """Compare the shard's figures, whole and by task, with what was received."""
        tasks = {episode.recipe.task for episode in self.inserted.values()}
        assert set(stats.tasks) == tasks
        for task in tasks:
            self._check(stats.tasks[task], {name for name, e in self.inserted.items() if e.recipe.task == task})
        self._check(stats, set(self.inserted))

    def _check(self, count: object, names: set[str]) -> None:
        uses = {pair: n for pair, n in self.uses.items() if pair[0] in names}
        histogram = Counter(self.uses[name, int(step)] for name in names for step in self.available[name])
        windows = [window for window in self.windows if window[0] in names]
        whole = isinstance(count, ReplayStats)
        expected = {
            "episodes_inserted" if whole else "episodes": len(names),
            "pairs_inserted" if whole else "pairs": sum(len(self.available[name]) for name in names),
            "windows": len(windows),
            "uses": sum(uses.values()),
            "unique_pairs" if whole else "fresh": len(uses),
            "assumed_uses": 0,
            "staleness_sum": sum(staleness for _, _, staleness in windows),
        }
        assert {key: getattr(count, key) for key in expected} == expected
        assert {c: n for c, n in enumerate(count.reuse_histogram) if n} == histogram  # type: ignore[attr-defined]
        assert count.age_sum_s == pytest.approx(sum(age for _, age, _ in windows))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("mode", "changes"),
    [
        ("episode", {}),
        ("segment", {"selector": "prioritised"}),
        ("boundary", {"selector": "fifo"}),
        ("episode", {"fresh_per_step": 12.0, "step_windows": 6.0}),
        ("episode", {"samples_per_insert": 2.0, "error_buffer": 300.0, "min_size_pairs": 90}),
        ("episode", {"mode": "static"}),
    ],
)
def test_every_figure_equals_a_recount_of_all_windows(mode: str, changes: dict[str, object]) -> None:
    window = WindowSpec(frames=3, tau=4, chunk=8, burn_in=1, mode=mode)
    defaults: dict[str, object] = {"shards": SHARDS, "capacity_pairs": 1500, "min_size_pairs": 30, "max_reuse": 6}
    config, now = ReplayConfig(**(defaults | changes)), [100.0]  # type: ignore[arg-type]
    stores = [
        ShardStore(config.share(window), window, seed=5, shard=i, clock=lambda: now[0]) for i in range(config.shards)
    ]
    recounts, rng = [Recount() for _ in stores], np.random.default_rng(4)
    for step in range(250):
        now[0] += float(rng.random())
        length = int(rng.integers(10, 70))
        cuts = np.sort(rng.choice(np.arange(1, length), 2, replace=False)).tolist()
        episode = fake_episode(step, length, 2, 3, task=TASKS[step % 3], changes=cuts, mistakes=0.2 * (step % 2))
        at = route(episode.recipe.id, config.shards)
        if stores[at].append(episode) is AppendStatus.ACCEPTED:
            recounts[at].insert(episode, stores[at], now[0])
        now[0] += float(rng.random())
        for store, recount in zip(stores, recounts, strict=True):
            reply = store.sample(int(rng.integers(1, 7)))
            if reply is None:
                continue
            batch = reply.batch
            for b in range(batch.size):
                j, n = np.nonzero(batch.action_mask[b])
                pairs = sorted({int(batch.start[b] + k) for k in (j - window.burn_in) * window.tau + n})
                before = recount.deliver(batch.recipe_id[b], pairs, now[0])
                assert reply.fresh[b] == before.count(0)
                # provenance: times used before, insertion time, shard
                assert set(before) == {int(batch.pass_index[b])}
                assert batch.inserted_at[b] == recount.inserted_at[batch.recipe_id[b]]
                assert batch.shard[b] == store.shard == route(batch.recipe_id[b], config.shards)
    parts = [store.stats() for store in stores]
    for stats, recount in zip(parts, recounts, strict=True):
        recount.check(stats)
        assert stats.windows > 100
    whole = ReplayStats.merge(parts)
    assert whole.windows == sum(len(recount.windows) for recount in recounts)
    assert whole.unique_pairs == sum(len(recount.uses) for recount in recounts)
    assert whole.staleness_mean == pytest.approx(np.mean([s for r in recounts for _, _, s in r.windows]))
    for task in TASKS:
        merged = whole.tasks[task]
        assert merged.uses == sum(part.tasks[task].uses for part in parts if task in part.tasks)
        assert sum(merged.reuse_histogram) == merged.pairs
        ages = [age for r in recounts for name, age, _ in r.windows if r.inserted[name].recipe.task == task]
        assert merged.age_mean_s == pytest.approx(np.mean(ages))
    assert whole.reuse_histogram[: whole.reuse_max + 1] == [
        sum(part.reuse_histogram[c] for part in parts if c < len(part.reuse_histogram))
        for c in range(whole.reuse_max + 1)
    ]
    assert ReplayStats.from_dict(asdict(whole)) == whole
