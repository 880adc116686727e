"""The task catalogue, measured: how often the expert succeeds, and that neither idling nor replaying does.

`embodichain tasks list` shows what this wrote last, and says so where the simulator has changed since.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import RESULTS
from embodichain.actors.parents import layout
from embodichain.contracts import Observation, Recipe, UnifiedAction, seed_range
from embodichain.evaluation.experts import expert_score
from embodichain.rollout import HOLD_STEPS
from tasks.base import PlanFailure
from tasks.session import TaskSession, sim_hash

LIBRARY = 500  # training scenes whose expert's actions may be replayed


def _layout(observation: Observation) -> np.ndarray:
    return layout(np.concatenate([observation.object_pose, observation.goal_pose]))


def _actions(task: str, session: TaskSession) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Layout and expert actions of training scenes."""
    for index in range(LIBRARY):
        observation = session.reset(Recipe(task=task, seed=seed_range("train").at(index)))
        try:
            yield _layout(observation), session.expert().action
        except PlanFailure:
            continue


def succeeds(session: TaskSession, action: np.ndarray, settle: int = 40) -> bool:
    """Play actions open loop, then hold the last one: whether success ever holds for the usual number of steps."""
    held = 0
    for row in (*action, *([action[-1]] * settle)):
        session.step(row)
        held = held + 1 if session.status().success else 0
        if held >= HOLD_STEPS:
            return True
    return False


def baselines(task: str, trials: int, session: TaskSession) -> dict[str, float]:
    """Success rates of doing nothing, and of replaying the actions of the training scene that looks most alike."""
    library = list(_actions(task, session))
    layouts = np.stack([where for where, _ in library])
    idle = replayed = 0
    for index in range(trials):
        recipe = Recipe(task=task, seed=seed_range("test").at(index))
        observation = session.reset(recipe)
        nearest = library[int(np.argmin(np.linalg.norm(layouts - _layout(observation), axis=1)))][1]
        replayed += succeeds(session, nearest)
        proprio = session.reset(recipe).proprio
        still = np.where(UnifiedAction.joint_control_mask(), proprio, 0.0).astype(np.float32)
        idle += succeeds(session, np.repeat(still[None], len(nearest), axis=0))
    return {"do_nothing": idle / trials, "nearest_replay": replayed / trials}


def measure(task: str, seeds: int, trials: int) -> dict[str, object]:
    """One row of the catalogue."""
    session = TaskSession(render=None)
    row = {**expert_score(task, range(seeds), session), "trials": trials, **baselines(task, trials, session)}
    session.close()
    return row


def run(tasks: list[str], seeds: int, trials: int, processes: int) -> Iterator[dict[str, object]]:
    """The rows of these tasks, each as soon as it is known, a process per task."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, maxtasksperchild=1) as pool:
        yield from pool.imap_unordered(_measure, [(task, seeds, trials) for task in tasks])


def figures(row: dict[str, Any]) -> dict[str, str]:
    """A row as people read it: the columns that `tasks list` and this benchmark print."""
    return {
        "expert": f"{row['success_rate']:.1%} [{row['low']:.0%}, {row['high']:.0%}]",
        "episodes/core-min": f"{row['episodes_per_core_minute']:.0f}",
        "idling": f"{row['do_nothing']:.0%}",
        "replaying": f"{row['nearest_replay']:.0%}",
        "rejected": ", ".join(f"{reason} {n}" for reason, n in row["rejected"].items()),
    }


def _measure(arguments: tuple[str, int, int]) -> dict[str, object]:
    return {**measure(*arguments), "sim_hash": sim_hash()}


def measured(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Task -> row of the last measurement, with its date; empty if there is none."""
    path = folder / "catalogue.json"
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    return {row["name"]: {**row, "date": content["date"]} for row in content["rows"]}
