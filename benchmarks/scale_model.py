"""A stream of many simulators and shards as queues, event by event: what is busy, and who waits for whom.

Every part that serves one thing at a time is a first-come-first-served queue with a measured service time: the driver,
the flight recorder, each shard, the learner's client, and either direction of the network card of each shard's node.
A simulator works on one recipe while the episode before is handed over, as `SimActor` does, and has one more waiting.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from embodichain.actors.pool import RECIPES_IN_FLIGHT
from embodichain.actors.worker import CALLS_AT_ONCE
from embodichain.replay.client import request_size

EPISODE_SPREAD = 0.3  # standard deviation of an episode's simulating time, as a share of its mean


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Measured on this machine; seconds, unless said otherwise.

    Attributes:
        round_trip_s: of an actor call and its answer, of no size.
        recorder_call_s: of the recorder, per call.
        driver_recipe_s: of the driver's loop, per recipe handed out and reported.
        driver_slot_s: of the driver's loop, per simulator and turn.
        append_s: of a shard, per episode.
        sample_s: of a shard, per request of a learner; `window_s` per window in it.
        client_call_s: of the learner's client, per request; `client_window_s` per window in it.
        episode_bytes: of an episode on its way to a shard.
        window_bytes: of a window on its way to a learner.
    """

    round_trip_s: float
    recorder_call_s: float
    driver_recipe_s: float
    driver_slot_s: float
    append_s: float
    sample_s: float
    window_s: float
    client_call_s: float
    client_window_s: float
    episode_bytes: float
    window_bytes: float


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What is assumed.

    Attributes:
        simulators, shards: how many.
        shards_per_node: that share a network card.
        episode_s: mean seconds of simulating an episode.
        steps_per_s, batch_windows: of the learner.
        network_bytes_s: of a node's network card, each way.
    """

    simulators: int = 1000
    shards: int = 100
    shards_per_node: int = 10
    episode_s: float = 1.0
    steps_per_s: float = 10.0
    batch_windows: int = 256
    network_bytes_s: float = 25e9 / 8


@dataclass(kw_only=True)
class Station:
    """A first-come-first-served queue; `serve` must be called in the order of arrival."""

    free_at: float = 0.0
    busy_s: float = 0.0
    waited_s: float = 0.0
    served: int = 0

    def serve(self, now: float, seconds: float) -> float:
        """When a job that arrives now and takes `seconds` is done."""
        begin = max(now, self.free_at)
        self.waited_s += begin - now
        self.busy_s += seconds
        self.served += 1
        self.free_at = begin + seconds
        return self.free_at


@dataclass(kw_only=True)
class _Simulator:
    waiting: deque[int] = field(default_factory=deque)
    calls: int = 0
    simulating: bool = False
    blocked: deque[int] = field(default_factory=deque)  # calls that wait for the simulator


class Stream:
    """One simulation of `cluster` with `costs`, for `seconds` of its time."""

    def __init__(self, cluster: Cluster, costs: Costs, seed: int = 0) -> None:
        self.cluster, self.costs = cluster, costs
        self._random = np.random.default_rng(seed)
        self._events: list[tuple[float, int, str, int]] = []
        self._count = 0
        self.driver, self.recorder, self.client = Station(), Station(), Station()
        self.shards = [Station() for _ in range(cluster.shards)]
        nodes = range(-(-cluster.shards // cluster.shards_per_node))
        self.incoming, self.outgoing = [Station() for _ in nodes], [Station() for _ in nodes]  # of the nodes' cards
        _, self.part_windows = request_size(cluster.shards, cluster.batch_windows)
        self._asked = self._ahead = 0  # requests so far; windows that came beyond the steps taken
        self.episodes = self.turns = self.steps = 0
        self.driver_look_s = costs.driver_slot_s * cluster.simulators
        self._reported: list[int] = []
        self.simulated_s = 0.0
        self._simulators = [_Simulator() for _ in range(cluster.simulators)]
        spread = np.sqrt(np.log1p(EPISODE_SPREAD**2))
        self._draw = lambda: float(self._random.lognormal(np.log(cluster.episode_s) - spread**2 / 2, spread))

    def run(self, seconds: float) -> Stream:
        """Simulate so many seconds; returns itself."""
        for simulator in range(self.cluster.simulators):
            start = float(self._random.uniform(0.0, self.cluster.episode_s))
            for _ in range(RECIPES_IN_FLIGHT):
                self._at(start, "recipe", simulator)
        self._at(0.0, "turn", 0)
        self._at(0.0, "step", 0)
        while self._events:
            now, _, kind, who = heapq.heappop(self._events)
            if now > seconds:
                break
            getattr(self, f"_{kind}")(now, who)
        return self

    def _at(self, time: float, kind: str, who: int) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, kind, who))

    def _turn(self, now: float, _: int) -> None:
        """One turn of the driver's loop: a look at every slot, and what has been reported since the last one."""
        reported, self._reported = self._reported, []
        handed = now + self.driver_look_s
        for who in reported:
            handed = self.driver.serve(handed, self.costs.driver_recipe_s)
            self._at(handed + self.costs.round_trip_s / 2, "recipe", who)
        self.turns += 1
        self._at(handed, "turn", 0)

    def _recipe(self, now: float, who: int) -> None:
        simulator = self._simulators[who]
        simulator.waiting.append(0)
        self._begin(now, who)

    def _begin(self, now: float, who: int) -> None:
        simulator = self._simulators[who]
        if simulator.calls < CALLS_AT_ONCE and simulator.waiting:
            simulator.waiting.popleft()
            simulator.calls += 1
            simulator.blocked.append(0)
        if simulator.blocked and not simulator.simulating:
            simulator.blocked.popleft()
            simulator.simulating = True
            marked = self.recorder.serve(now + self.costs.round_trip_s / 2, self.costs.recorder_call_s)
            spent = self._draw()
            self.simulated_s += spent
            self._at(marked + self.costs.round_trip_s / 2 + spent, "simulated", who)

    def _simulated(self, now: float, who: int) -> None:
        self._simulators[who].simulating = False
        self._at(now, "end_mark", who)
        shard = int(self._random.integers(self.cluster.shards))
        self._at(now + self.costs.round_trip_s / 2, "transfer", shard << 32 | who)
        self._begin(now, who)

    def _end_mark(self, now: float, _: int) -> None:
        self.recorder.serve(now, self.costs.recorder_call_s)

    def _transfer(self, now: float, both: int) -> None:
        card = self.incoming[self._node(both >> 32)]
        self._at(card.serve(now, self.costs.episode_bytes / self.cluster.network_bytes_s), "append", both)

    def _append(self, now: float, both: int) -> None:
        done = self.shards[both >> 32].serve(now, self.costs.append_s)
        self._at(done + self.costs.round_trip_s / 2, "handed", both & 0xFFFFFFFF)

    def _handed(self, now: float, who: int) -> None:
        self.episodes += 1
        self._simulators[who].calls -= 1
        self._at(now + self.costs.round_trip_s / 2, "report", who)
        self._begin(now, who)

    def _report(self, _: float, who: int) -> None:
        self._reported.append(who)

    def _step(self, now: float, _: int) -> None:
        """A learner's step: as many requests as bring a batch, of the client's size, to the shards in turn."""
        self._ahead -= self.cluster.batch_windows
        while self._ahead < 0:
            sent = self.client.serve(now, self.costs.client_call_s + self.part_windows * self.costs.client_window_s)
            self._at(sent, "sample", self._asked % self.cluster.shards)
            self._asked += 1
            self._ahead += self.part_windows
        self.steps += 1
        self._at(max(now + 1.0 / self.cluster.steps_per_s, self.client.free_at), "step", 0)

    def _sample(self, now: float, shard: int) -> None:
        part = self.part_windows
        self.shards[shard].serve(now, self.costs.sample_s + part * self.costs.window_s)
        card = self.outgoing[self._node(shard)]
        card.serve(now, part * self.costs.window_bytes / self.cluster.network_bytes_s)

    def _node(self, shard: int) -> int:
        return shard // self.cluster.shards_per_node
