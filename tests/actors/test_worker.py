"""The inside of a simulation actor: what it reports, and that handing over does not hold up the simulator."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from embodichain.actors.worker import SimWorker
from embodichain.contracts import Episode, Observation, Recipe, seed_range
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions
from tasks.base import ExpertPlan, PlanFailure
from tasks.session import TaskSession


def recipe(index: int) -> Recipe:
    return Recipe(task="pick_place", seed=seed_range("test").at(index))


def test_the_simulator_goes_on_while_an_episode_is_handed_over() -> None:
    """The first append waits until the second episode is handed over too: without overlap it would never end."""
    both = threading.Barrier(2, timeout=60)
    taken: list[Episode] = []

    def append(episode: Episode) -> bool:
        both.wait()
        taken.append(episode)
        return True

    worker = SimWorker(TaskSession(render=None), StateEncoder(), RolloutOptions(), append)
    reports = {}
    threads = [threading.Thread(target=lambda i=i: reports.update({i: worker.produce(recipe(i))})) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {episode.recipe.seed for episode in taken} == {recipe(i).seed for i in (0, 1)}
    assert all(report.accepted and report.busy_s > 0 and report.idle_s >= 0 for report in reports.values())


def test_a_full_replay_is_asked_again_and_counts_as_idle_time() -> None:
    answers = iter([False, False, True, True])
    worker = SimWorker(TaskSession(render=None), StateEncoder(), RolloutOptions(), lambda _: next(answers))
    first, second = worker.produce(recipe(0)), worker.produce(recipe(1))
    assert first.accepted
    assert second.accepted
    assert first.idle_s == 0.0
    assert second.idle_s >= 2 * 0.05  # two refusals, one pause each


class _Drifts(TaskSession):
    """From the second reset on, the simulator's state is another one by a rounding error."""

    resets = 0

    def reset(self, recipe: Recipe) -> Observation:
        self.resets += 1
        return super().reset(recipe)

    def sim_state(self) -> np.ndarray:
        state = super().sim_state()
        return np.nextafter(state, np.float32(np.inf)) if self.resets > 1 else state


class _LosesItsPlan(_Drifts):
    def sim_state(self) -> np.ndarray:
        return TaskSession.sim_state(self)

    def expert(self) -> ExpertPlan:
        if self.resets > 1:
            raise PlanFailure("ik_unreachable")
        return super().expert()


@pytest.mark.parametrize("broken", [_Drifts, _LosesItsPlan])
def test_an_episode_that_does_not_come_out_the_same_again_is_rejected(broken: type[_Drifts]) -> None:
    taken: list[Episode] = []

    def append(episode: Episode) -> bool:
        taken.append(episode)
        return True

    session = broken(render=None)
    worker = SimWorker(session, StateEncoder(), RolloutOptions(), append, replay_fraction=1.0)
    report = worker.produce(recipe(0))
    assert (report.accepted, report.reasons, report.replayed) == (False, ("replay_mismatch",), True)
    assert session.resets == 2
    assert not taken
    session.close()


def test_an_episode_that_comes_out_the_same_again_is_accepted() -> None:
    session = TaskSession(render=None)
    worker = SimWorker(session, StateEncoder(), RolloutOptions(), lambda _: True, replay_fraction=1.0)
    report = worker.produce(recipe(0))
    assert (report.accepted, report.reasons, report.replayed) == (True, (), True)
    session.close()


def test_without_a_replay_nothing_is_made_twice() -> None:
    session = _Drifts(render=None)
    report = SimWorker(session, StateEncoder(), RolloutOptions(), lambda _: True).produce(recipe(0))
    assert (report.accepted, report.replayed, session.resets) == (True, False, 1)
    session.close()
