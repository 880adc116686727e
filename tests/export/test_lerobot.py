"""Datasets of others: what maps is read, what does not is refused in one line that says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embodichain.contracts import UnifiedAction
from embodichain.export import FeatureMap, LeRobotReader, read, write
from embodichain.export.video import VideoWriter

LENGTHS, FPS, HEIGHT, WIDTH = (9, 17), 10, 48, 64
MOTORS = [f"{arm}_{name}" for arm in ("left", "right") for name in ("a", "b", "c", "d", "e", "f", "grip")]
JOINTS = {f"{arm}.q{j + 1}": f"{arm}_{'abcdef'[j]}" for arm in ("left", "right") for j in range(6)}
MAPPING = {
    "action": {**JOINTS, "left.gripper": {"from": 6, "scale": 0.5, "offset": 0.5}},
    "state": {"left.q1": 0, "right.q1": "right_a"},
    "state_key": "observation.joints",
    "cameras": ["wrist"],
}


def vector(key: str) -> dict[str, object]:
    return {"dtype": "float32", "shape": [14], "names": {"motors": MOTORS}, "key": key}


@pytest.fixture
def foreign(tmp_path: Path, picture: Callable[..., np.ndarray]) -> Path:
    """Two episodes of a robot with two 6-joint arms, two cameras of different sizes; columns are plain lists."""
    root, rng, rows = tmp_path / "aloha", np.random.default_rng(0), sum(LENGTHS)
    numbers = {key: rng.normal(size=(rows, 14)).astype(np.float32) for key in ("action", "observation.joints")}
    np.savez(tmp_path / "numbers.npz", action=numbers["action"], state=numbers["observation.joints"])
    place = {f"{part}/{kind}_index": [0, 0] for part in ("data", "meta/episodes") for kind in ("chunk", "file")}
    starts = np.cumsum([0, *LENGTHS])
    episodes: dict[str, list] = {
        "episode_index": [0, 1],
        "length": list(LENGTHS),
        "tasks": [["fold"], ["pour"]],
        **place,
    }
    episodes |= {"dataset_from_index": starts[:-1].tolist(), "dataset_to_index": starts[1:].tolist()}
    for camera, height in (("wrist", HEIGHT), ("top", 2 * HEIGHT)):
        key = f"observation.images.{camera}"
        video = VideoWriter(root / f"videos/{key}/chunk-000/file-000.mp4", height=height, width=WIDTH, fps=FPS)
        for seed, length in enumerate(LENGTHS):
            video.write(np.stack([picture(seed, t, 0, height, WIDTH) for t in range(length)]))
        video.close()
        episodes |= {f"videos/{key}/{kind}_index": [0, 0] for kind in ("chunk", "file")}
        episodes |= {f"videos/{key}/from_timestamp": (starts[:-1] / FPS).tolist()}
    data = {key: [row.tolist() for row in values] for key, values in numbers.items()}
    index = [(e, t) for e, length in enumerate(LENGTHS) for t in range(length)]
    data |= {"episode_index": [e for e, _ in index], "frame_index": [t for _, t in index]}
    data |= {"task_index": [1 - e for e, _ in index]}
    save(root / "data/chunk-000/file-000.parquet", data)
    save(root / "meta/episodes/chunk-000/file-000.parquet", episodes)
    save(root / "meta/tasks.parquet", {"task_index": [0, 1], "__index_level_0__": ["pour", "fold"]})
    image = {"dtype": "video", "names": ["height", "width", "channels"]}
    features = {
        "action": vector("action"),
        "observation.joints": vector("observation.joints"),
        "observation.images.wrist": {**image, "shape": [HEIGHT, WIDTH, 3]},
        "observation.images.top": {**image, "shape": [2 * HEIGHT, WIDTH, 3]},
        "observation.images.still": {**image, "dtype": "image", "shape": [HEIGHT, WIDTH, 3]},
    }
    info = {"codebase_version": "v3.0", "fps": FPS, "features": features}
    info |= {"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}
    info |= {"video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/stats.json").write_text("{}")
    return root


def save(path: Path, columns: dict[str, list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_a_foreign_dataset_is_read_through_its_mapping(foreign: Path, picture: Callable[..., np.ndarray]) -> None:
    numbers = np.load(foreign.parent / "numbers.npz")
    episodes = list(read(foreign, mapping=FeatureMap.from_config(MAPPING), tau=4))
    assert [(e.pairs, e.instruction, e.control_hz) for e in episodes] == [(8, "fold", 10.0), (16, "pour", 10.0)]
    for index, (episode, start) in enumerate(zip(episodes, (0, 9), strict=True)):
        episode.check()
        rows = slice(start, start + episode.pairs)
        action, state = numbers["action"][rows], numbers["state"][start : start + episode.pairs + 1]
        for arm in range(2):
            joints = UnifiedAction.joints(arm)
            assert np.array_equal(episode.action[:, joints][:, :6], action[:, 7 * arm : 7 * arm + 6])
            assert episode.action_valid[joints].tolist() == [True] * 6 + [False]
            assert np.array_equal(episode.proprio[:, joints.start], state[:, 7 * arm])
        np.testing.assert_allclose(episode.action[:, 14], 0.5 * action[:, 6] + 0.5, rtol=1e-6)
        assert np.count_nonzero(episode.action_valid) == 13
        assert not episode.action[:, ~episode.action_valid].any()
        assert np.count_nonzero(episode.proprio.any(axis=0)) == 2
        assert episode.rgb is not None
        assert episode.rgb.shape == (episode.pairs // 4 + 1, 1, HEIGHT, WIDTH, 3)
        for j, frame in enumerate(episode.rgb[:, 0]):
            assert np.abs(frame.astype(float) - picture(index, 4 * j, 0, HEIGHT, WIDTH)).mean() < 4
    assert len({e.recipe.id for e in episodes}) == 2


def test_episodes_of_two_datasets_never_share_a_name(foreign: Path) -> None:
    mapping = FeatureMap.from_config(MAPPING)
    first = [e.recipe.id for e in read(foreign, mapping=mapping)]
    assert first == [e.recipe.id for e in read(foreign, mapping=mapping, tau=2)]
    (foreign / "meta/stats.json").write_text('{"other": 1}')
    assert not set(first) & {e.recipe.id for e in read(foreign, mapping=mapping)}


def edit(root: Path, change: Callable[[dict], object]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("mapping", "match"),
    [
        (None, r"mapping of left.x: action has no 'left.x'; .*needs a mapping of its own"),
        ({"action": JOINTS}, r"no feature 'observation.state'; expected one of action, observation.joints"),
        ({**MAPPING, "state": {"left.q1": 14}}, r"mapping of left.q1: observation.joints has no 14; expected an index"),
        ({**MAPPING, "action": {"left.q1": "elbow"}}, r"action has no 'elbow'; .*left_grip"),
        ({**MAPPING, "action": {"left.q8": 0}}, r"mapping.action.left.q8: expected some of left.x"),
        ({**MAPPING, "action": {"left.q1": [0]}}, r"mapping.action.left.q1=\[0\]: expected a name, an index"),
        ({**MAPPING, "camera": ["wrist"]}, r"mapping: \['camera'\]; expected action"),
        (
            {**MAPPING, "cameras": ["front"]},
            r"camera 'front': expected a video among its cameras: wrist \(video\), top",
        ),
        ({**MAPPING, "cameras": ["still"]}, r"camera 'still': expected a video .* still \(image\)"),
        ({**MAPPING, "cameras": ["wrist", "top"]}, r"sizes \[\(48, 64\), \(96, 64\)\] cannot be stacked"),
    ],
)
def test_a_mapping_that_does_not_fit_is_named(foreign: Path, mapping: dict | None, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read(foreign, mapping=None if mapping is None else FeatureMap.from_config(mapping))


def test_cameras_of_different_sizes_are_stacked_at_a_common_one(foreign: Path) -> None:
    mapping = FeatureMap.from_config({**MAPPING, "cameras": ["top", "wrist"]})
    episode = next(read(foreign, mapping=mapping, size=(32, 48)))
    assert episode.rgb is not None
    assert episode.rgb.shape == (9, 2, 32, 48, 3)
    assert np.abs(episode.rgb[:, 0].astype(float) - episode.rgb[:, 1]).mean() < 4  # both show the same, stretched


def test_what_is_no_dataset_or_another_version_is_refused(foreign: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no LeRobotDataset; expected a folder with meta/info\.json"):
        read(tmp_path / "nothing")
    edit(foreign, lambda info: info.update(codebase_version="v2.1"))
    with pytest.raises(ValueError, match=r"codebase_version=v2.1, expected v3.0"):
        read(foreign, mapping=FeatureMap.from_config(MAPPING))


def test_a_damaged_dataset_is_named_by_file(make: Callable, tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root, [make(0, 12), make(1, 12)])
    (data,) = root.glob("data/*/*.parquet")
    (video,) = root.glob("videos/*/*/*.mp4")
    whole, film = pq.read_table(data), video.read_bytes()
    video.write_bytes(film[: len(film) // 2])
    with pytest.raises(ValueError, match=r"file-000.mp4: .*expected 13"):
        LeRobotReader(root).episode(0)
    video.write_bytes(film)
    pq.write_table(whole.slice(0, 20), data)
    reader = LeRobotReader(root)
    assert reader.episode(0).pairs == 12
    with pytest.raises(ValueError, match=r"file-000.parquet: 8 rows of episode 1, expected 12"):
        reader.episode(1)
    data.write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"file-000.parquet: cannot be read"):
        LeRobotReader(root).episode(0)
