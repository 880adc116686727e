"""Settings of the simulation actors. Owns: their validation; needs neither Ray nor a simulator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Settings of the simulation actors.

    Attributes:
        count: processes, >= 1.
        cpus: Ray CPUs each, fractional allowed.
        episodes_per_process: a process is replaced after this many episodes.
        hang_timeout_s: a process that finishes nothing for this long (while the replay takes episodes)
            is killed and replaced.
        start_timeout_s: how long a new process may take until its simulator is up.
        max_start_failures: consecutive failures to start after which the run gives up.
        replay_fraction: share of accepted recipes whose exact replay is checked.
        niceness: added to the process's scheduling niceness: where cores are few, actors take what the learner
            leaves.
    """

    count: int = 2
    cpus: float = 0.5
    episodes_per_process: int = 1000
    hang_timeout_s: float = 60.0
    start_timeout_s: float = 180.0
    max_start_failures: int = 5
    replay_fraction: float = 0.01
    niceness: int = 4

    def __post_init__(self) -> None:
        for name, low in (("count", 1), ("episodes_per_process", 1), ("max_start_failures", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"actors.{name}={getattr(self, name)}: expected at least {low}")
        for name in ("cpus", "hang_timeout_s", "start_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"actors.{name}={getattr(self, name)}: expected more than 0")
        if not 0 <= self.replay_fraction <= 1:
            raise ValueError(f"actors.replay_fraction={self.replay_fraction}: expected 0 to 1")
