"""The claim about the experts, in full: 100 seeds of each task under the `default` domain."""

from __future__ import annotations

import pytest

from embodichain.contracts import Recipe, seed_range
from tasks import TaskSession, task_info, task_names

SEEDS, FLOOR, HOLD = 100, 95, 10


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names())
def test_experts_solve_at_least_95_of_100_seeds(task: str) -> None:
    """Success = the predicate held for 10 consecutive steps while the last action was held."""
    session, solved = TaskSession(), 0
    for index in range(SEEDS):
        session.reset(Recipe(task=task, seed=seed_range("test").at(index)))
        plan = session.expert()
        assert len(plan.action) <= task_info(task).horizon
        for row in plan.action:
            session.step(row)
        held = 0
        for _ in range(30):
            held = held + 1 if session.status().success else 0
            if held == HOLD:
                break
            session.step(plan.action[-1])
        solved += held == HOLD and session.limits_ok()
    assert solved >= FLOOR
