"""The inside of a simulation actor: what it reports, and that handing over does not hold up the simulator."""

from __future__ import annotations

import threading

from embodichain.actors.worker import SimWorker
from embodichain.contracts import Episode, Recipe, seed_range
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions
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
