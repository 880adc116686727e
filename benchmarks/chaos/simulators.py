"""Simulators killed, or stopped for ever, in the middle of an episode, while a learner samples."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path

from benchmarks.chaos.line import Line, line_config
from benchmarks.chaos.outcome import Outcome, Tick

HANG_TIMEOUT_S = 10.0
AUDITED = 12  # delivered episodes that are made again and compared


def killed(times: int, tick: Tick) -> Outcome:
    """`SIGKILL` while an episode is being simulated."""
    return _strike(times, tick, signal.SIGKILL, "actor_died")


def hung(times: int, tick: Tick) -> Outcome:
    """`SIGSTOP` while an episode is being simulated: the process is there and never answers again."""
    return _strike(times, tick, signal.SIGSTOP, "actor_hung", hang_timeout_s=HANG_TIMEOUT_S)


def _strike(times: int, tick: Tick, with_signal: signal.Signals, fault: str, **settings: float) -> Outcome:
    outcome, chance = Outcome(), random.Random(0)
    with tempfile.TemporaryDirectory() as folder, Line(line_config(**settings), Path(folder)) as line:
        line.until(lambda: line.pool.counts.generated >= 2 and bool(line.witness.recipes), "first batch")
        for count in range(1, times + 1):
            pid = _wait_for_mid_episode(line, chance)
            os.kill(pid, with_signal)
            struck = time.monotonic()
            line.until(lambda at=count: line.pool.counts.faults[fault] >= at, f"fault {fault}")  # type: ignore[misc]
            line.until(lambda: bool(line.turn()), "report of the process that took its place")
            outcome.recovery_s.append(time.monotonic() - struck)
            tick()
        line.until(lambda: not line.turn(), "quiet moment")
        counts = line.pool.counts
        outcome.lost["recipes quarantined"] = len(line.quarantine)
        outcome.lost["simulated episodes"] = (
            line.stream.drawn - counts.generated - len(line.quarantine) - len(line.pool.outstanding())
        )
        outcome.broken += line.broken(AUDITED)
        if counts.faults != {fault: times}:
            outcome.broken.append(f"counted faults {dict(counts.faults)}, injected {times}")
        if len(line.quarantine) > times:
            outcome.broken.append(f"{len(line.quarantine)} recipes in quarantine after {times} faults")
    return outcome


def _wait_for_mid_episode(line: Line, chance: random.Random) -> int:
    """The pid of the only simulator, at a random moment of a simulation."""
    while True:
        line.until(lambda: bool(line.simulating()), "simulation")
        before = line.simulating()
        time.sleep(chance.uniform(0.0, line.mean_episode_s()))
        if before and line.simulating() == before:
            return line.pid(line.pool.actors()[0])
