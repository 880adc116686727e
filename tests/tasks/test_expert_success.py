"""The claim about the experts, in full and as the catalogue measures it: 100 seeds of each task, `default` domain."""

from __future__ import annotations

from functools import cache

import pytest

from embodichain.evaluation.experts import expert_score
from tasks import TaskSession, task_names

SEEDS = 100
FLOOR, MEAN_FLOOR = 0.90, 0.95

pytestmark = pytest.mark.slow


@cache
def success_rate(task: str) -> float:
    """Share of seeds whose episode physics accepts, disturbances included; measured once for all tests."""
    session = TaskSession(render=None)
    row = expert_score(task, range(SEEDS), session)
    session.close()
    return row["success_rate"]


@pytest.mark.parametrize("task", task_names())
def test_every_expert_solves_at_least_90_of_100_seeds(task: str) -> None:
    assert success_rate(task) >= FLOOR


@pytest.mark.timeout(3600)  # measures whatever has not been yet, if run alone
def test_experts_solve_at_least_95_percent_on_average() -> None:
    rates = [success_rate(task) for task in task_names()]
    assert sum(rates) / len(rates) >= MEAN_FLOOR
