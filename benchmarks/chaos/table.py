"""Every fault by name, and the table of all of them."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ray

from benchmarks.chaos import disks, learner, nodes, runs, services, shards, simulators
from benchmarks.chaos.outcome import Outcome, Tick


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`inject(times, tick)` does it, `enough` times make a row; `own_ray`: it starts what it needs of Ray itself."""

    inject: Callable[[int, Tick], Outcome]
    what: str
    own_ray: bool = False
    enough: int = 20


FAULTS = {
    "simulator": Fault(inject=simulators.killed, what="kill -9 of a simulator in mid-episode"),
    "hung": Fault(inject=simulators.hung, what="a simulator that never answers again (SIGSTOP)"),
    "shard": Fault(inject=shards.killed, what="kill -9 of a replay shard"),
    "evaluator": Fault(inject=services.evaluator_killed, what="kill -9 of an evaluator"),
    "logger": Fault(inject=services.logger_killed, what="kill -9 of the logger"),
    "learner": Fault(inject=learner.killed, what="kill -9 of one of two learner ranks"),
    "node": Fault(inject=nodes.killed, what="kill -9 of everything on a node", own_ray=True),
    "host": Fault(inject=nodes.cut_off, what="one of three hosts (network namespaces) cut off", own_ray=True, enough=1),
    "disk": Fault(inject=disks.full, what="a disk that fills up under an archive", own_ray=True),
    "chunk": Fault(inject=disks.corrupted, what="a corrupted or cut file of an archive", own_ray=True),
    "driver": Fault(inject=runs.driver_killed, what="kill -9 of the driver, then run --resume", own_ray=True),
}


def run(names: list[str], times: int, tick: Tick) -> Iterator[dict[str, object]]:
    """A row per fault."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in names:
        fault = FAULTS[name]
        if not fault.own_ray:
            ray.init(
                address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
        try:
            row = fault.inject(times, tick).row(name)
        finally:
            ray.shutdown()
        yield {**row, "what": fault.what, "date": datetime.date.today().isoformat()}
