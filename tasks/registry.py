"""The task catalogue: an explicit table from name to task, and what other packages add to it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from tasks.base import Task, TaskInfo
from tasks.carry_basket import CarryBasket
from tasks.dual_place import DualPlace
from tasks.handover import Handover
from tasks.hang_ring import HangRing
from tasks.insert_peg import InsertPeg
from tasks.line_up_blocks import LineUpBlocks
from tasks.load_tray import LoadTray
from tasks.open_lid_place import OpenLidPlace
from tasks.pick_place import PickPlace
from tasks.pour_cup import PourCup
from tasks.push_bar import PushBar
from tasks.recall_lane import RecallLane
from tasks.stack_blocks import StackBlocks
from tasks.stow_block import StowBlock
from tasks.swap_blocks import SwapBlocks
from tasks.sweep_crumbs import SweepCrumbs
from tasks.throw_switch import ThrowSwitch
from tasks.turn_wheel import TurnWheel
from tasks.two_arm_lift import TwoArmLift
from tasks.two_robot_pick_cube import TwoRobotPickCube
from tasks.two_robot_stack_cube import TwoRobotStackCube

PLUGIN_GROUP = "embodichain.tasks"  # entry points of other packages: name -> a class that implements `Task`


@cache
def _tasks() -> dict[str, Task]:
    own: tuple[Task, ...] = (
        PickPlace(),
        Handover(),
        TwoArmLift(),
        DualPlace(),
        StackBlocks(),
        LineUpBlocks(),
        LoadTray(),
        PushBar(),
        TurnWheel(),
        StowBlock(),
        SwapBlocks(),
        CarryBasket(),
        SweepCrumbs(),
        ThrowSwitch(),
        TwoRobotPickCube(),
        TwoRobotStackCube(),
        OpenLidPlace(),
        HangRing(),
        PourCup(),
        InsertPeg(),
        RecallLane(),
    )
    tasks = {task.info.name: task for task in own}
    for entry in entry_points(group=PLUGIN_GROUP):
        task = _load(entry)
        if task.info.name in tasks:
            raise RuntimeError(f"task plug-in {entry.value}: the name {task.info.name!r} is taken")
        tasks[task.info.name] = task
    return tasks


def plugin_versions() -> list[str]:
    """`module:class=version` of every plug-in: an episode depends on its task's code too."""
    return sorted(f"{e.value}={e.dist.version if e.dist else ''}" for e in entry_points(group=PLUGIN_GROUP))


def _load(entry: EntryPoint) -> Task:
    """A plug-in's task. Raises `RuntimeError` naming the plug-in, whatever is wrong with it."""
    try:
        task: Task = entry.load()()
        checked = isinstance(task.info, TaskInfo)
    except Exception as error:  # somebody else's code: any error is theirs, and ours to name
        raise RuntimeError(f"task plug-in {entry.value}: {type(error).__name__}: {error}") from error
    if not checked:
        raise RuntimeError(f"task plug-in {entry.value}: its `info` is no TaskInfo")
    return task


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
