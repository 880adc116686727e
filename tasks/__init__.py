"""What should happen in the world: scenes, instructions, experts, success and progress."""

from tasks.base import ExpertPlan, PlanFailure, Task, TaskInfo, TaskScene, TaskStatus
from tasks.gym_env import register
from tasks.registry import get_task, task_info, task_names
from tasks.session import TaskSession, sim_hash

__all__ = [
    "ExpertPlan",
    "PlanFailure",
    "Task",
    "TaskInfo",
    "TaskScene",
    "TaskSession",
    "TaskStatus",
    "get_task",
    "register",
    "sim_hash",
    "task_info",
    "task_names",
]
