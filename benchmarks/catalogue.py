"""The task catalogue, measured: how often the expert succeeds, and that neither idling nor replaying does.

Each row is written as soon as it is known and stands until its task is measured again, so a measurement that was
broken off goes on with the tasks that lack one. `embodichain tasks list` shows the rows, and says so where the
simulator has changed since.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import RESULTS, write_result
from embodichain.actors.parents import nearest_parents
from embodichain.contracts import Recipe, UnifiedAction, seed_range
from embodichain.evaluation.experts import expert_score
from embodichain.rollout import HOLD_STEPS
from tasks.base import PlanFailure
from tasks.registry import task_names
from tasks.session import TaskSession, sim_hash

LIBRARY = 500  # training scenes whose expert's actions may be replayed
SEEDS, TRIALS = 200, 50  # fewer are not kept


def _nearest_actions(task: str, seed: int, session: TaskSession) -> np.ndarray:
    """The expert's actions f32[T, A] in the training scene that looks most like that of `seed`."""
    library = [seed_range("train").at(index) for index in range(LIBRARY)]
    for parent in nearest_parents(task, seed, "default", library):
        session.reset(Recipe(task=task, seed=parent))
        try:
            return session.expert().action
        except PlanFailure:
            continue
    raise RuntimeError(f"task={task}: the expert has no plan in any of {LIBRARY} training scenes")


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
    idle = replayed = 0
    for index in range(trials):
        recipe = Recipe(task=task, seed=seed_range("test").at(index))
        nearest = _nearest_actions(task, recipe.seed, session)
        session.reset(recipe)
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
    """A row as people read it, for `tasks list` and this benchmark; `/min`: episodes a core-minute; all shares in %."""
    low, high = 100 * row["low"], 100 * row["high"]
    return {
        "expert %": f"{100 * row['success_rate']:.3g} [{low:.0f}, {high:.0f}]",
        "/min": f"{row['episodes_per_core_minute']:.0f}",
        "idle": f"{100 * row['do_nothing']:.0f}",
        "replay": f"{100 * row['nearest_replay']:.0f}",
        "rejected": ", ".join(f"{reason} {n}" for reason, n in row["rejected"].items()),
    }


def _measure(arguments: tuple[str, int, int]) -> dict[str, object]:
    return {**measure(*arguments), "sim_hash": sim_hash(arguments[0]), "date": datetime.date.today().isoformat()}


def lacking(tasks: list[str], seeds: int, trials: int, folder: Path = RESULTS) -> list[str]:
    """The tasks that were not measured on today's simulator and task file with as many seeds and trials."""
    known = measured(folder)
    return [
        task
        for task in tasks
        if task not in known
        or known[task]["sim_hash"] != sim_hash(task)
        or known[task]["n"] < seeds
        or known[task]["trials"] < trials
    ]


def keep(row: dict[str, object], command: str, folder: Path = RESULTS) -> Path:
    """Write a row in place of its task's last one, beside those of the other tasks that there still are."""
    rows = {**measured(folder), str(row["name"]): row}
    return write_result("catalogue", command, [rows[name] for name in task_names() if name in rows], folder)


def measured(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Task -> row of the last measurement, with its date; empty if there is none."""
    path = folder / "catalogue.json"
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    return {row["name"]: {"date": content["date"], **row} for row in content["rows"]}
