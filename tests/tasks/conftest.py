"""What the tests of tasks share: one simulator per file, and a scene with its expert's plan."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from embodichain.contracts import Recipe, seed_range
from tasks import ExpertPlan, TaskSession


@pytest.fixture(scope="module")
def session() -> TaskSession:
    return TaskSession()


@pytest.fixture
def reset(session: TaskSession) -> Callable[..., ExpertPlan]:
    """Builds the scene of a `test` seed in the session and plans its expert."""

    def reset(task: str, index: int, domain: str = "default") -> ExpertPlan:
        session.reset(Recipe(task=task, seed=seed_range("test").at(index), domain=domain))
        return session.expert()

    return reset
