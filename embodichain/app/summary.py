"""`summary.json`: what a run did, as data. The schema is in docs/architecture.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from embodichain.actors.quarantine import Quarantine
from embodichain.app.archiving import cost_per_pair
from embodichain.app.config import RunConfig
from embodichain.app.folder import RunFolder, RunState
from embodichain.app.progress import heldout_summary
from embodichain.app.settings import write_json
from embodichain.app.version import code_version


def build_summary(config: RunConfig, folder: RunFolder, state: RunState, last: dict[str, Any]) -> dict[str, Any]:
    """Write `summary.json` from the run's state and its last snapshot; returns it."""
    counts, replay, learner = state.counts, last["replay"], last["learner"]
    steps = int(learner.get("step", 0))
    archived = cost_per_pair(config.source_archive)
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
        "nodes": state.nodes,
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
        "parameters": learner.get("parameters"),
        "pair_uses": learner.get("uses", 0),
        "unique_pairs": learner.get("fresh", 0),
        "experience_throughput": learner.get("fresh", 0) / steps if steps else 0.0,
        "generation_rate": generation_rate(state.checkpoints),
        "insertion_rate": counts.accepted_pairs / state.elapsed_s if state.elapsed_s else 0.0,
        "reuse": {
            "bound": None if config.replay.bound is None else float(config.replay.bound),
            "max": float(replay["reuse_max"]),
            "mean": replay["reuse_mean"],
        },
        "replay": last["shards"],
        "core_seconds": core_seconds(config, learner.get("core_s", 0.0), counts.cpu_s, counts.accepted_pairs, archived),
        "stall_fraction": last["stall_fraction"],
        "actor_idle_fraction": counts.idle_fraction,
        "heldout_error": heldout_summary(state.heldout),
        "success": success_table(state.evaluations, config.scored_domains),
        "readings": readings(config, state, archived),
        "faults": {
            kind: {"count": count, "recovery_s_p50": _median(counts.recovery_s.get(kind, []))}
            for kind, count in last["faults"].items()
        },
        "archive": state.archive,
        "mlflow_run_id": state.mlflow_run_id,
    }
    write_json(folder.summary, summary)
    return summary


def success_table(evaluations: list[dict[str, Any]], domains: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The last checkpoint's scores, each beside the first checkpoint's on the same seeds; in the order of `domains`.

    `first_rate` and `first_progress` are taken over `first_n` seeds, which are the first of the last one's;
    `paired_progress` is the last checkpoint's progress on those very seeds.
    """
    by_domain: dict[str, list[dict[str, Any]]] = {domain: [] for domain in domains}  # whichever was scored first
    for entry in evaluations:
        by_domain.setdefault(entry.get("domain", ""), []).append(entry)
    return [row for entries in by_domain.values() if entries for row in _domain_rows(entries)]


def generation_rate(checkpoints: dict[str, dict[str, float]]) -> float | None:
    """Episodes per second while the learner learned: from the first checkpoint to the last; None without two.

    What comes before and after, processes that start and the last scores, is no generation.
    """
    known = sorted((each["at_s"], each["episodes"]) for each in checkpoints.values() if "at_s" in each)
    if len(known) < 2 or known[-1][0] == known[0][0]:
        return None
    return (known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0])


def readings(config: RunConfig, state: RunState, archived: float | None) -> list[dict[str, Any]]:
    """What every checkpoint after the first had cost and was worth, by step: read-offs at parts of the budget.

    `error` (`errors`: by scored domain) and `success` (rows of all scored domains) are None and empty where a
    checkpoint was not scored; of several scores of one domain the one over most seeds counts. An error that is not
    finite is None, too, among `errors` as well.

    Args:
        config: of the run.
        state: of the run.
        archived: core-seconds that a pair of the source archive had cost; None: not known.
    """
    errors = {int(entry["step"]): entry for entry in state.heldout}
    budget = config.learner
    rows = []
    for step, spent in sorted((int(step), spent) for step, spent in state.checkpoints.items()):
        if step == 0:
            continue
        minutes = spent["elapsed_s"] / 60
        share = max(step / budget.steps, minutes / budget.minutes if budget.minutes else 0.0)
        rows.append(
            {
                "step": step,
                "share": min(1.0, share),
                "unique_pairs": spent["fresh"],
                "pair_uses": spent["uses"],
                "core_seconds": core_seconds(
                    config, spent["core_s"], spent["simulators_core_s"], spent["accepted_pairs"], archived
                ),
                "error": errors.get(step, {}).get("action"),
                "errors": errors.get(step, {}).get("by_domain", {}),
                "success": _scores_at(step, state.evaluations),
            }
        )
    return rows


def core_seconds(
    config: RunConfig, learner: float, simulators: float, pairs: float, archived: float | None
) -> dict[str, float | None]:
    """Processor time by what it was spent on; with an archive as source, what its `pairs` had cost is part of it."""
    parts: dict[str, float | None] = {"learner": learner, "simulators": simulators}
    if config.source_archive:
        parts["archived"] = None if archived is None else pairs * archived
    return parts


def _scores_at(step: int, evaluations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in (entry for entry in evaluations if entry["step"] == step):
        for score in entry["scores"]:
            key = (score["task"], score["domain"])
            if key not in rows or score["n"] >= rows[key]["n"]:
                trials = entry["results"].get(score["task"], [])
                rows[key] = {**score, "outcomes": {str(trial["seed"]): trial["success"] for trial in trials}}
    return list(rows.values())


def _domain_rows(evaluations: list[dict[str, Any]]) -> list[dict[str, Any]]:
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
