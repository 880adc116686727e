"""The task catalogue: an explicit table from name to task."""

from __future__ import annotations

from tasks.base import Task, TaskInfo
from tasks.handover import Handover
from tasks.pick_place import PickPlace
from tasks.two_arm_lift import TwoArmLift


def _tasks() -> dict[str, Task]:
    tasks: tuple[Task, ...] = (PickPlace(), Handover(), TwoArmLift())
    return {task.info.name: task for task in tasks}


def task_names() -> list[str]:
    """Names of all tasks, in catalogue order."""
    return list(_tasks())


def get_task(name: str) -> Task:
    """The task called `name`. Raises `KeyError` naming the valid ones."""
    tasks = _tasks()
    if name not in tasks:
        raise KeyError(f"task {name!r} is unknown, expected one of {list(tasks)}")
    return tasks[name]


def task_info(name: str) -> TaskInfo:
    """The catalogue entry of the task called `name`. Raises `KeyError` naming the valid ones."""
    return get_task(name).info
