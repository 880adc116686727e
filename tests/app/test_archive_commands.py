"""`embodichain archive ...` as its user runs it, and recipes made again by real physics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embodichain.app.cli import main
from embodichain.app.config import load_config
from embodichain.app.materialise import episode_maker
from embodichain.archive import Archive, ArchiveWriter
from embodichain.contracts import Recipe
from embodichain.replay import fake_episode
from embodichain.rollout import compare_episodes
from tasks.session import sim_hash

TINY = Path(__file__).parents[2] / "configs" / "tiny.yaml"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["archive", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_info_verify_and_compact_say_what_is_there(tmp_path, capsys):
    path, archive = str(tmp_path / "a"), Archive.create(str(tmp_path / "a"))
    for seed in range(3):
        with ArchiveWriter(archive, 0) as writer:
            writer.append(fake_episode(seed, 20, task="handover" if seed else "pick_place"))
    (archive.shard_folder(0) / "0123456789abcdef").write_files({"zarr.json": b"{}"})
    facts = json.loads(run(capsys, "info", path, "--json")[1])
    assert (facts["episodes"], facts["pairs"], facts["kind"], facts["segments"]) == (3, 60, "arrays", 3)
    nbytes = [entry.nbytes for entry in archive.entries()]
    assert facts["tasks"]["handover"] == {"episodes": 2, "pairs": 40, "bytes": sum(nbytes[1:])}
    assert facts["bytes"] == sum(nbytes)
    assert "handover" in run(capsys, "info", path)[1]
    code, out, _ = run(capsys, "verify", path)
    assert (code, out) == (0, f"{path}: 3 episodes, 0 problems, 1 never committed\n")
    assert json.loads(run(capsys, "compact", path, "--json")[1]) == {
        "dropped": 1, "segments_before": 3, "segments_after": 1, "damaged_lines": 0,
    }  # fmt: skip
    (archive.folder(archive.entries()[1]) / "tokens" / "zarr.json").remove()
    code, out, _ = run(capsys, "verify", path)
    assert code == 1
    assert "(handover, seed 1): " in out
    assert out.endswith(f"{path}: 3 episodes, 1 problems, 0 never committed\n")
    (problem,) = json.loads(run(capsys, "verify", path, "--json")[1])["problems"]
    assert problem["recipe"]["seed"] == 1
    code, _, err = run(capsys, "info", str(tmp_path / "none"))
    assert (code, err.count("\n")) == (2, 1)


def test_recipes_are_made_again_bit_for_bit_once_and_only_by_their_own_simulator(tmp_path, capsys):
    settings = load_config(TINY).made_with
    make = episode_maker(settings)
    wanted = [make(Recipe(task="pick_place", seed=seed, sim_hash=sim_hash())) for seed in (3, 4)]
    recipes = Archive.create(str(tmp_path / "r"), kind="recipes", made_with=settings)
    with ArchiveWriter(recipes, 0) as writer:
        for episode in wanted:
            assert episode is not None
            writer.append(episode)
    paths = (str(tmp_path / "r"), str(tmp_path / "a"))
    assert json.loads(run(capsys, "materialise", *paths, "--json")[1]) == {"made": 2, "there": 0, "rejected": 0}
    assert json.loads(run(capsys, "materialise", *paths, "--json")[1]) == {"made": 0, "there": 2, "rejected": 0}
    for episode, again in zip(wanted, Archive.open(paths[1]).episodes(), strict=True):
        assert episode is not None
        assert compare_episodes(episode, again) == []
        assert (again.recipe, again.draws, again.instruction) == (episode.recipe, episode.draws, episode.instruction)
    with ArchiveWriter(recipes, 0) as writer:
        writer.append(fake_episode(5))  # of no simulator
    code, _, err = run(capsys, "materialise", *paths)
    assert (code, err.count("\n")) == (2, 1)
    assert "1 of 3 recipes are of simulator" in err
    assert json.loads(run(capsys, "materialise", *paths, "--json", "--restamp")[1])["made"] == 1
