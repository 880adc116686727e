"""The task catalogue: an explicit table from name to task."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.base import Task, TaskInfo
from tasks.dual_place import DualPlace
from tasks.handover import Handover
from tasks.line_up_blocks import LineUpBlocks
from tasks.load_tray import LoadTray
from tasks.pick_place import PickPlace
from tasks.push_bar import PushBar
from tasks.stack_blocks import StackBlocks
from tasks.two_arm_lift import TwoArmLift


def _tasks() -> dict[str, Task]:
    tasks: tuple[Task, ...] = (
        PickPlace(),
        Handover(),
        TwoArmLift(),
        DualPlace(),
        StackBlocks(),
        LineUpBlocks(),
        LoadTray(),
        PushBar(),
    )
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


def slots(names: Iterable[str]) -> dict[str, int]:
    """The most objects and goals that any of these tasks has, as `StateEncoder` takes them.

    Raises `KeyError` naming the valid tasks.
    """
    infos = [task_info(name) for name in names]
    return {"max_objects": max(i.objects for i in infos), "max_goals": max(i.goals for i in infos)}


def task_info(name: str) -> TaskInfo:
    """The catalogue entry of the task called `name`. Raises `KeyError` naming the valid ones."""
    return get_task(name).info
