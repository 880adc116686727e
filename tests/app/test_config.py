"""Every mistake in a configuration ends at launch with one line that names the key."""

from pathlib import Path

import pytest

from embodichain.app.config import ConfigError, load_config, save_config
from embodichain.archive import Archive, ArchiveWriter
from embodichain.contracts import seed_range
from embodichain.replay import fake_episode

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.mark.parametrize("path", sorted(QUICKSTART.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_loads(path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert load_config(path).active_tasks


def test_a_saved_configuration_reads_back_equal(tmp_path):
    config = load_config(QUICKSTART, ["learner.minutes=0.5", "evaluation.seeds=3"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_the_hash_ignores_the_name_and_sees_everything_else():
    assert load_config(QUICKSTART, ["name=a"]).hash() == load_config(QUICKSTART, ["name=b"]).hash()
    assert load_config(QUICKSTART, ["seed=1"]).hash() != load_config(QUICKSTART, ["seed=2"]).hash()


def test_a_share_of_zero_leaves_a_task_out():
    assert "handover" not in load_config(QUICKSTART, ["tasks.handover=0"]).active_tasks


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("learner.widht=3", "learner.widht: unknown key; expected one of control, workers, "),
        ("tasks=[pick_place,handover]", "a list stands where keys are expected"),
        ("learner.steps=[1", r"^override 'learner.steps=\[1': not valid YAML"),
        ("learner.minutes=nan", "learner.minutes=nan: expected a finite number"),
        ("learner.train.lr=.inf", "learner.train.lr=inf: expected a finite number"),
        ("evaluation.video_every=0", "evaluation.video_every=0: expected at least 1"),
        ("evaluation.videos=-1", "evaluation.videos=-1: expected at least 0"),
        ("evaluation.cpus=0", "evaluation.cpus=0.0: expected more than 0"),
        ("ray.cpus=-1", "ray.cpus=-1.0: expected more than 0"),
        ("ray.object_store_mb=1", "ray.object_store_mb=1: expected at least 100"),
        ("learner.steps=many", "learner.steps: .*many"),
        ("learner.steps=0", "learner.steps=0: expected at least 1"),
        ("learner.network.heads=7", "^learner.network.heads=7: expected a divisor of learner.network.width="),
        ("learner.network.flow.floor=2", "^learner.network.flow.floor=2"),
        ("learner.train.ema=2", "^learner.train.ema=2"),
        ("evaluation.mode=later", "evaluation.mode=later: expected one of sync"),
        ("evaluation.latency_steps=-1", "evaluation.latency_steps=-1"),
        ("evaluation.context_frames=-1", "evaluation.context_frames=-1: expected at least 0, or null"),
        ("learner.network.memory.context_frames=-1", "memory.context_frames=-1"),
        ("evaluation.seed_range=train", "evaluation.seed_range=train: expected eval or tune"),
        ("evaluation.domains=[defualt]", "evaluation.domains=defualt: domain=defualt: expected one of"),
        ("learner.checkpoint_steps=0", "learner.checkpoint_steps=0: expected at least 1"),
        ("window.frames=200", "window.frames=200: a window of .* longer than any episode"),
        ("replay.max_reuse=0", "replay.max_reuse=0: expected"),
        ("replay.selector=heap", r"replay\.selector='heap': expected one of uniform, fifo"),
        ("window.mode=frame", r"window\.mode='frame': expected one of episode, segment"),
        (
            "replay.fresh_per_step=10 replay.samples_per_insert=null",
            r"replay\.fresh_per_step=10\.0: expected [\d.]+ to \d+; a learner step uses",
        ),
        (
            "replay.fresh_per_step=64 replay.step_windows=1 replay.samples_per_insert=null",
            r"replay\.step_windows=1\.0: expected null, or learner",
        ),
        (
            "replay.fresh_per_step=64 replay.mode=static replay.samples_per_insert=null",
            r"expected none with replay\.mode=static",
        ),
        ("replay.samples_per_insert=4 replay.error_buffer=5", r"replay\.error_buffer=5\.0: .*deadlock"),
        ("actors.count=0", "actors.count=0: expected at least 1"),
        ("tasks.fold_towel=1", "tasks.fold_towel: unknown task"),
        ("encoder.name=vae", "encoder.name=vae: expected one of"),
        ("domain=wild", "domain=wild: expected one of"),
        ("output=/dev/null/runs", "output=/dev/null/runs: /dev/null is not a writable folder"),
        ("learner", "override 'learner': expected key=value"),
        ("learner.batch_windows=7 learner.workers=2", "learner.batch_windows=7: expected a multiple"),
        (
            "learner.batch_windows=8 learner.workers=2 learner.train.accumulate=3",
            "learner.workers=2 times learner.train.accumulate=3",
        ),
        ("learner.parallel=zero", "learner.parallel=zero: expected one of ddp, fsdp2"),
        ("learner.network.memory.kind=lstm", "^learner.network.memory.kind='lstm': expected one of ttt, kv"),
        (
            "learner.network.flow.action_guidance=3",
            r"learner\.network\.flow\.action_guidance=3.*learner\.network\.condition\.text_drop=0",
        ),
        (
            "learner.network.flow.video_stop=0.2",
            "^learner.network.flow.video_stop=0.2: expected at least",
        ),
        (
            "encoder.name=dinov3 window.phase_step=8 learner.network.frame_mode=grouped learner.network.frame_tokens=7",
            r"learner\.network\.frame_tokens=7: expected a divisor of the \d+ patches that 1 cameras",
        ),
        ("encoder.supersample=5", "^encoder.supersample=5: expected 1 to 4"),
        ("evaluation.replan=99", "evaluation.replan=99: expected at most window.chunk"),
        ("archive.kind=films", "archive.kind=films: expected one of arrays, recipes"),
        ("archive.path=nosuch://x", "path=nosuch://x: .*expected a local path"),
        ("archive.path=/dev/null/a", "archive.path=/dev/null/a: /dev/null is not a writable folder"),
        ("storage=/dev/null/a", "storage=/dev/null/a: /dev/null is not a writable folder"),
        ("episodes=films", "episodes=films: expected simulators or archive:PATH"),
        ("episodes=archive:/nowhere", "archive /nowhere: no archive.json there"),
        ("seed=190", "seed=190: expected 0 <= seed"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(override, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(QUICKSTART, override.split())
    assert "\n" not in str(caught.value)


def test_frames_rendered_larger_make_other_tokens_and_all_else_is_as_archives_of_before_know_it():
    words = ["encoder.name=dinov3", "window.phase_step=8"]
    plain, larger = (load_config(QUICKSTART, [*words, f"encoder.supersample={n}"]).encoder.tokens for n in (1, 2))
    assert plain.keys() == {"name", "weights", "width", "height", "cameras"}
    assert larger == plain | {"supersample": 2}


def test_an_archive_of_something_else_is_refused_at_launch(tmp_path):
    config = load_config(QUICKSTART)
    made = Archive.create(str(tmp_path / "a"), made_with=config.made_with)
    assert load_config(QUICKSTART, [f"archive.path={tmp_path / 'a'}"]).archive.path
    for overrides, expected in [
        ([f"archive.path={tmp_path / 'a'}", "archive.kind=recipes"], "holds kind=arrays, expected recipes"),
        ([f"archive.path={tmp_path / 'a'}", "tasks.handover=0"], "holds made_with="),
        ([f"episodes=archive:{tmp_path / 'a'}"], "it holds no episodes"),
    ]:
        with pytest.raises(ConfigError, match=expected):
            load_config(QUICKSTART, overrides)
    with ArchiveWriter(made, 0) as writer:
        writer.append(fake_episode(seed_range("train").at(0)))
    source = f"episodes=archive:{tmp_path / 'a'}"
    assert load_config(QUICKSTART, [source]).source_archive == str(tmp_path / "a")
    for override, expected in [
        ("tasks.push_bar=1", "tasks.push_bar: archive:.* has no episodes of it"),
        ("encoder.name=dinov3 window.phase_step=8", "made with encoder"),
        (f"archive.path={tmp_path / 'a'}", "episodes come from there"),
    ]:
        with pytest.raises(ConfigError, match=expected):
            load_config(QUICKSTART, [source, *override.split()])


def test_an_archive_with_episodes_that_are_kept_for_evaluation_is_refused_at_launch(tmp_path):
    """Whichever task they are of: one that this run would not draw, too."""
    archive = Archive.create(str(tmp_path / "a"), made_with=load_config(QUICKSTART).made_with)
    source = f"episodes=archive:{tmp_path / 'a'}"
    with ArchiveWriter(archive, 0) as writer:
        writer.append(fake_episode(seed_range("train").at(0)))
        assert load_config(QUICKSTART, [source]).source_archive
        writer.append(fake_episode(seed_range("train").at(1), task="pour_cup"))
        writer.append(fake_episode(seed_range("tune").at(0)))
    with pytest.raises(ConfigError) as caught:
        load_config(QUICKSTART, [source])
    assert str(caught.value) == (
        f"{source}: 2 of 3 recipes are not for training, first task=pour_cup, seed=100000001, domain=default: training "
        "never draws it; expected a task of split 'train'"
    )


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"config=nowhere\.yaml: no such file"):
        load_config("nowhere.yaml")


def test_nothing_is_created_by_a_refused_configuration(tmp_path, monkeypatch, capsys):
    from embodichain.app.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["run", str(QUICKSTART), "learner.steps=0"]) == 2
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err.count("\n") == 1


def test_a_preset_is_a_size_that_later_keys_change():
    large = load_config(QUICKSTART, ["learner.network.preset=large"]).learner.network
    assert (large.width, large.depth, large.heads, large.memory.layers) == (1024, 24, 16, (1, 9, 17))
    assert large.flow == load_config(QUICKSTART).learner.network.flow  # a size changes nothing else
    narrow = load_config(QUICKSTART, ["learner.network.width=512", "learner.network.preset=large"]).learner.network
    assert (narrow.width, narrow.depth) == (512, 24)
    policy = load_config(QUICKSTART, ["learner.network.preset=tiny", "learner.network.kind=flow_policy"])
    assert (policy.learner.network.kind, policy.learner.network.width) == ("flow_policy", 128)
    with pytest.raises(ConfigError, match=r"learner\.network\.preset='huge' for .*: expected one of base, laptop"):
        load_config(QUICKSTART, ["learner.network.preset=huge"])


def test_a_preset_in_a_file_gives_way_to_the_command_line(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("{tasks: {pick_place: 1}, learner: {network: {preset: base, depth: 3, memory: {layers: [1]}}}}")
    assert load_config(path).learner.network.width == 512
    assert load_config(path, ["learner.network.preset=tiny"]).learner.network.depth == 2
    save_config(load_config(path), tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == load_config(path)
