"""What runs where: every actor of a run as a demand for resources and node labels, and a plan that meets it.

Ray does the placing; the plan shows beforehand that it can, and names what is missing where it cannot. Labels are those
of `ray start --labels role=sim`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import ray
from rich.table import Table

from embodichain.app.config import ConfigError, RunConfig

SLACK = 1e-6


@dataclass(frozen=True, kw_only=True)
class Demand:
    """`count` processes of one kind, each with the same needs.

    Attributes:
        key: section of the configuration that says how many they are.
        what: what they are called.
        cpus, gpus: Ray's, of each.
        labels: of the node, label -> value; empty: any node.
    """

    key: str
    what: str
    count: int
    cpus: float
    gpus: float = 0.0
    labels: dict[str, str] = field(default_factory=dict)

    def need(self) -> str:
        """In words, of one process."""
        parts = [f"{self.cpus:g} CPU"] + ([f"{self.gpus:g} GPU"] if self.gpus else [])
        where = ", ".join(f"{name}={value}" for name, value in self.labels.items())
        return " and ".join(parts) + (f" on a node with {where}" if where else "")


@dataclass(kw_only=True)
class Node:
    """A machine of the cluster and what is left of it.

    Attributes:
        name: its address.
        labels: as given to `ray start --labels`.
        cpus, gpus: free.
        holds: how many of which were put there, by what they are called.
    """

    name: str
    cpus: float
    gpus: float = 0.0
    labels: dict[str, str] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)

    def takes(self, demand: Demand) -> bool:
        """Whether one more process of that kind fits."""
        fits = self.cpus + SLACK >= demand.cpus and self.gpus + SLACK >= demand.gpus
        return fits and self.has(demand.labels)

    def has(self, labels: dict[str, str]) -> bool:
        """Whether it carries these labels."""
        return all(self.labels.get(name) == value for name, value in labels.items())

    def put(self, demand: Demand) -> None:
        """Count one process of that kind."""
        self.cpus -= demand.cpus
        self.gpus -= demand.gpus
        self.holds[demand.what] = self.holds.get(demand.what, 0) + 1


def demands(config: RunConfig) -> list[Demand]:
    """Everything that a run starts, by kind."""
    place, learner = config.placement, config.learner
    return [
        Demand(
            key="learner",
            what="learner workers",
            count=learner.workers,
            cpus=learner.cpus,
            gpus=float(learner.gpu),
            labels=place.learner,
        ),
        Demand(
            key="encoder",
            what="encoders",
            count=config.encoder.actors,
            cpus=config.encoder.cpus,
            gpus=float(config.encoder.gpu),
            labels=place.encoders,
        ),
        Demand(key="replay", what="replay shards", count=config.replay.shards, cpus=0.0, labels=place.shard_labels()),
        Demand(
            key="evaluation",
            what="evaluators",
            count=config.evaluation.evaluators,
            cpus=config.evaluation.cpus,
            labels=place.evaluators,
        ),
        Demand(
            key="actors",
            what="simulators",
            count=config.actors.count,
            cpus=config.actors.cpus,
            labels=place.simulators,
        ),
    ]


def plan(wanted: Sequence[Demand], nodes: Sequence[Node]) -> list[str]:
    """Put every process on a node, those with the narrowest needs first; what does not fit, in words.

    A process goes to the fitting node with the most free CPUs, as Ray's spreading does.
    """
    missing = []
    for demand in sorted(wanted, key=lambda d: (-len(d.labels), -d.gpus, -d.cpus)):
        for placed in range(demand.count):
            fitting = [node for node in nodes if node.takes(demand)]
            if not fitting:
                missing.append(_missing(demand, placed, nodes))
                break
            max(fitting, key=lambda node: node.cpus).put(demand)
    return missing


def _missing(demand: Demand, placed: int, nodes: Sequence[Node]) -> str:
    labelled = [node for node in nodes if node.has(demand.labels)]
    left = "; ".join(f"{node.name} has {node.cpus:g} CPU, {node.gpus:g} GPU left" for node in labelled)
    return (
        f"{demand.key}: {demand.count - placed} of {demand.count} {demand.what} have no place, each needs "
        f"{demand.need()} ({left or 'no node carries that label'})"
    )


def cluster_nodes(config: RunConfig) -> list[Node]:
    """The machines that are there: those of the joined cluster, else this one."""
    if not ray.is_initialized():
        cpus = config.ray.cpus if config.ray.cpus is not None else float(os.cpu_count() or 1)
        return [Node(name="this machine", cpus=cpus, gpus=_own_gpus() if _wants_gpus(config) else 0.0)]
    return [
        Node(
            name=str(node["NodeManagerAddress"]),
            cpus=float(node["Resources"].get("CPU", 0.0)),
            gpus=float(node["Resources"].get("GPU", 0.0)),
            labels=dict(node["Labels"]),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _wants_gpus(config: RunConfig) -> bool:
    return any(demand.gpus for demand in demands(config))


def _own_gpus() -> float:
    import torch

    return float(torch.cuda.device_count())


def check(config: RunConfig) -> list[Node]:
    """The nodes with everything placed on them.

    Raises:
        ConfigError: something has no place; names what, and what it needs.
    """
    nodes = cluster_nodes(config)
    missing = plan(demands(config), nodes)
    if missing:
        raise ConfigError("; ".join(missing) + "; lower the counts or shares, or join a larger cluster (RAY_ADDRESS)")
    return nodes


def table(config: RunConfig, nodes: Sequence[Node]) -> Table:
    """A row per kind of process, a column per node."""
    shown = Table(title="what runs where")
    for column in ("process", "count", "each needs"):
        shown.add_column(column)
    for node in nodes:
        labels = " ".join(f"{k}={v}" for k, v in node.labels.items() if not k.startswith("ray.io/"))
        shown.add_column(f"{node.name}\n{labels}".strip(), justify="right")
    for demand in demands(config):
        if demand.count:
            cells = [str(node.holds.get(demand.what, "")) for node in nodes]
            shown.add_row(demand.what, str(demand.count), demand.need(), *cells)
    shown.add_row("left", "", "", *(f"{node.cpus:g} CPU" + (f" {node.gpus:g} GPU" * bool(node.gpus)) for node in nodes))
    return shown
