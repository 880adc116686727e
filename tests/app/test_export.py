"""`embodichain export lerobot`: bad arguments are one line; what it writes is what the recipes in it make again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embodichain.app.cli import main
from embodichain.contracts import Episode, seed_range
from embodichain.encoders import StateEncoder
from embodichain.export import read
from embodichain.rollout import RolloutOptions, make_episode
from tasks.registry import slots
from tasks.session import TaskSession, sim_hash


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--task", "no_such_task"], "--task=no_such_task: unknown task; expected one of"),
        (["--task", "pick_place", "--episodes", "0"], "--episodes=0: expected at least 1"),
        (["--task", "pick_place", "--size", "127"], "--size=127: expected an even number"),
        (["--task", "pick_place", "--fps", "7"], "--fps=7: expected a divisor of the control rate, 20"),
        (["--task", "pick_place", "--fps", "10", "--no-video"], "--fps=10: expected none with --no-video"),
        (["--task", "pick_place", "--seed", "190"], "seed=190: expected 0 <= seed < 190"),
        (["--task", "pick_place", "--domain", "default@scenes"], "domain=default@scenes: training never draws"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_created(arguments, match, tmp_path, capsys):
    assert main(["export", "lerobot", str(tmp_path / "set"), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert match in line
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/mine").write_text("mine")
    assert main(["export", "lerobot", str(tmp_path / "set"), "--task", "pick_place"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/set exists: expected a new name" in line
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "mine"]


def test_without_a_renderer_it_says_so_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("embodichain.doctor.renderer_available", lambda: (False, "no Vulkan"))
    assert main(["export", "lerobot", str(tmp_path / "set"), "--task", "pick_place"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "export lerobot needs a renderer" in line
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_physics_never_confirms_ends_it_with_the_reasons(monkeypatch, tmp_path, capsys):
    from tasks.base import PlanFailure
    from tasks.pick_place import PickPlace

    def refuse(*_: object) -> None:
        raise PlanFailure("ik_unreachable", "too far")

    monkeypatch.setattr(PickPlace, "plan", refuse)
    out = str(tmp_path / "set")
    assert main(["export", "lerobot", out, "--task", "pick_place", "--episodes", "1", "--no-video"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "pick_place: 0 of 1 episodes after 50 recipes; rejected: plan_ik_unreachable 50" in line
    assert list(tmp_path.iterdir()) == []


def made_again(episode: Episode) -> Episode:
    session = TaskSession(render=None)
    again, verdict, _ = make_episode(
        episode.recipe, session, StateEncoder(**slots([episode.recipe.task])), RolloutOptions()
    )
    session.close()
    assert again is not None
    assert verdict.accepted
    return again


def assert_made_by_its_recipe(episode: Episode) -> None:
    again = made_again(episode)
    for name in ("action", "proprio", "action_valid", "label_valid", "segment_id", "instruction"):
        assert np.array_equal(getattr(episode, name), getattr(again, name)), name


def test_every_episode_is_made_again_bit_for_bit_by_the_recipe_it_carries(tmp_path, capsys):
    out = tmp_path / "set"
    arguments = ["--task", "pick_place", "load_tray", "--episodes", "2", "--domain", "default+recovery", "--no-video"]
    assert main(["export", "lerobot", str(out), *arguments, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    episodes = list(read(out))
    assert (row["episodes"], row["fps"], row["rows"]) == (4, 20, sum(e.pairs for e in episodes))
    assert [e.recipe.task for e in episodes] == ["pick_place"] * 2 + ["load_tray"] * 2
    for episode in episodes:
        assert episode.recipe.seed in seed_range("train")
        assert episode.recipe.sim_hash == sim_hash()
        assert_made_by_its_recipe(episode)


@pytest.mark.render
def test_frames_are_those_of_the_simulator_and_change_nothing(monkeypatch, tmp_path: Path, capsys):
    from embodichain.doctor import renderer_available
    from envs import RenderConfig

    available, why = renderer_available()
    if not available:
        pytest.skip(why)
    monkeypatch.setattr("embodichain.doctor.renderer_available", lambda: (True, why))  # asked once is enough
    out = tmp_path / "set"
    size = ["--size", "64", "--fps", "1", "--cameras", "top", "front"]
    assert main(["export", "lerobot", str(out), "--task", "pick_place", "--episodes", "1", *size]) == 0
    assert "1 episodes, " in capsys.readouterr().out
    (episode,) = read(out)
    again = made_again(episode)
    assert (episode.control_hz, episode.pairs) == (1.0, again.pairs // 20)
    assert np.array_equal(episode.proprio, again.proprio[::20])
    assert np.array_equal(episode.action, again.action[19::20])
    session = TaskSession(render=RenderConfig(cameras=("top", "front"), width=64, height=64))
    session.reset(episode.recipe)
    assert episode.rgb is not None
    for frame in (0, 1):
        seen = session.observe(rgb=True).rgb
        assert seen is not None
        apart = np.abs(seen.astype(float) - episode.rgb[frame]).mean(axis=(1, 2, 3))
        assert (apart < 3.0).all(), apart
        assert (np.abs(seen[::-1].astype(float) - episode.rgb[frame]).mean(axis=(1, 2, 3)) > 10.0).all()
        for action in again.action[:20]:
            session.step(action)
    session.close()
