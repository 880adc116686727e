"""`summary.json`: what a run did, as data. The schema is in docs/architecture.md."""

from __future__ import annotations

import statistics
from typing import Any

from embodichain.actors.quarantine import Quarantine
from embodichain.app.config import RunConfig
from embodichain.app.folder import RunFolder, RunState, write_json
from embodichain.app.progress import heldout_summary
from embodichain.app.version import code_version


def build_summary(config: RunConfig, folder: RunFolder, state: RunState, last: dict[str, Any]) -> dict[str, Any]:
    """Write `summary.json` from the run's state and its last snapshot; returns it."""
    counts, replay, learner = state.counts, last["replay"], last["learner"]
    steps = int(learner.get("step", 0))
    summary: dict[str, Any] = {
        "name": folder.path.name,
        "config_hash": config.hash(),
        "code_version": code_version(),
        "sim_hash": state.sim_hash,
        "encoder": config.encoder.name,
        "privileged_state": config.encoder.name == "state",
        "model": config.learner.network.kind,
        "wall_seconds": state.elapsed_s,
        "status": state.status,
        "starts": state.starts,
        "episodes": {
            "generated": counts.generated,
            "accepted": counts.accepted,
            "rejected": dict(counts.rejected),
            "replay_checked": counts.replay_checked,
            "quarantined": len(Quarantine(folder.quarantine)),
        },
        "tasks": counts.tasks,
        "frames": counts.accepted_pairs,
        "learner_steps": steps,
        "learner_seconds": learner.get("elapsed_s", 0.0),
        "pair_uses": learner.get("uses", 0),
        "experience_throughput": learner.get("fresh", 0) / steps if steps else 0.0,
        "insertion_rate": counts.accepted_pairs / state.elapsed_s if state.elapsed_s else 0.0,
        "reuse": {
            "bound": None if config.replay.bound is None else float(config.replay.bound),
            "max": float(replay["reuse_max"]),
            "mean": replay["reuse_mean"],
        },
        "replay": last["shards"],
        "stall_fraction": last["stall_fraction"],
        "actor_idle_fraction": counts.idle_fraction,
        "heldout_error": heldout_summary(state.heldout),
        "success": success_table(state.evaluations),
        "faults": {
            kind: {"count": count, "recovery_s_p50": _median(counts.recovery_s.get(kind, []))}
            for kind, count in last["faults"].items()
        },
        "archive": state.archive,
        "mlflow_run_id": state.mlflow_run_id,
    }
    write_json(folder.summary, summary)
    return summary


def success_table(evaluations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last checkpoint's scores, each beside the first checkpoint's on the same seeds.

    `first_rate` and `first_progress` are taken over `first_n` seeds, which are the first of the last one's;
    `paired_progress` is the last checkpoint's progress on those very seeds.
    """
    if not evaluations:
        return []
    ordered = sorted(evaluations, key=lambda e: (e["step"], sum(s["n"] for s in e["scores"])))
    first, last = ordered[0], ordered[-1]
    rows = []
    for score in last["scores"]:
        before = first["results"].get(score["task"], [])
        seeds = {trial["seed"] for trial in before}
        same = [trial for trial in last["results"].get(score["task"], []) if trial["seed"] in seeds]
        rows.append(
            {
                **score,
                "first_n": len(before),
                "first_rate": _mean([float(trial["success"]) for trial in before]),
                "first_progress": _mean([trial["progress"] for trial in before]),
                "paired_progress": _mean([trial["progress"] for trial in same]),
            }
        )
    return rows


def _mean(values: list[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
