"""The episodes behind `bench memory --closed-loop`: made once, gone on with, and never of another simulator."""

from __future__ import annotations

import pytest

from benchmarks import memory_task
from embodichain.encoders import StateEncoder
from tasks.registry import slots
from tasks.session import TaskSession


def test_episodes_that_were_broken_off_go_on_from_the_last_seed(tmp_path, monkeypatch):
    job = memory_task.Job(kinds=("none",), folder=tmp_path, episodes=3, steps=1, windows=1, seeds=1)
    session, encoder = TaskSession(render=None), StateEncoder(**slots([memory_task.TASK]))
    tried, make_episode = list[int](), memory_task.make_episode

    def spy(recipe, *rest):
        tried.append(recipe.seed)
        return make_episode(recipe, *rest)

    def stop(text):
        if text.startswith("1 of 3"):
            raise KeyboardInterrupt

    monkeypatch.setattr(memory_task, "make_episode", spy)
    with pytest.raises(KeyboardInterrupt):
        memory_task._archive(job, session, encoder, stop)
    memory_task._archive(job, session, encoder, lambda text: None)
    assert tried == sorted(set(tried))  # none is simulated twice
    before = list(tried)
    memory_task._archive(job, session, encoder, lambda text: None)
    assert tried == before
    monkeypatch.setattr(memory_task, "sim_hash", lambda *names: "another")
    with pytest.raises(ValueError, match="made_with"):
        memory_task._archive(job, session, encoder, lambda text: None)
    session.close()
