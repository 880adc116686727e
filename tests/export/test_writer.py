"""Episodes to a dataset and back: nothing is lost but what a video loses; a dataset is whole or is not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embodichain.contracts import Episode
from embodichain.export import LeRobotReader, LeRobotWriter, read, write
from embodichain.export.stats import QUANTILES

Make = Callable[..., Episode]
EXACT = ("action", "proprio", "action_valid", "label_valid", "segment_id", "recipe", "instruction", "control_hz")
CODEC_MEAN = 3.0  # levels of 255, over a frame of conftest's


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.float64) - other).mean())


def assert_same(one: Episode, other: Episode) -> None:
    for name in EXACT:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_episodes_come_back(make: Make, tmp_path: Path) -> None:
    episodes = [make(seed, length, views=2) for seed, length in enumerate((24, 1, 40))]
    assert write(tmp_path / "set", episodes, cameras=("front", "top")) == 3
    back = list(read(tmp_path / "set"))
    assert len(back) == 3
    for one, other in zip(episodes, back, strict=True):
        other.check()
        assert_same(one, other)
        assert one.rgb is not None
        assert other.rgb is not None
        assert other.rgb.shape == one.rgb.shape
        for view in range(2):
            for step in range(one.pairs + 1):  # the last one has no row, only a frame
                here = distance(one.rgb[step, view], other.rgb[step, view])
                assert here < CODEC_MEAN
                beside = distance(one.rgb[step, view], other.rgb[max(step - 1, 0), view])
                assert step == 0 or here < beside


def test_frames_can_be_read_at_a_lower_rate_and_another_size(make: Make, tmp_path: Path) -> None:
    episodes = [make(seed, length) for seed, length in ((0, 24), (1, 21))]
    write(tmp_path / "set", episodes)
    for one, other in zip(episodes, read(tmp_path / "set", tau=8), strict=True):
        other.check()
        assert_same(one, other)
        assert one.rgb is not None
        assert other.rgb is not None
        assert (other.tau, len(other.rgb)) == (8, one.pairs // 8 + 1)
        for j, picture in enumerate(other.rgb):
            assert distance(picture, one.rgb[8 * j]) < CODEC_MEAN
    small = next(read(tmp_path / "set", size=(32, 32)))
    assert small.rgb is not None
    assert small.rgb.shape == (25, 1, 32, 32, 3)
    assert abs(distance(small.rgb, np.zeros_like(small.rgb)) - episodes[0].rgb.mean()) < 2  # type: ignore[union-attr]


def test_many_files_hold_what_one_would(make: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    episodes = [make(seed, 30 + seed) for seed in range(6)]
    noise = rng.integers(0, 256, (6, 40, 1, 64, 96, 3), dtype=np.uint8)  # large in any codec
    episodes = [replace(e, rgb=noise[i, : e.pairs + 1]) for i, e in enumerate(episodes)]
    with LeRobotWriter(tmp_path / "set", data_mb=0.01, video_mb=0.2) as writer:
        for episode in episodes:
            writer.add(episode)
    for pattern in ("data/*/*.parquet", "meta/episodes/*/*.parquet", "videos/*/*/*.mp4"):
        assert len(list((tmp_path / "set").glob(pattern))) > 1, pattern
    for index, (one, other) in enumerate(zip(episodes, LeRobotReader(tmp_path / "set"), strict=True)):
        assert_same(one, other)
        assert other.rgb is not None
        for step in (0, one.pairs):
            apart = [[distance(noise[i, t], other.rgb[step]) for t in range(40)] for i in range(6)]
            assert np.unravel_index(np.argmin(apart), (6, 40)) == (index, step)


def test_statistics_are_those_of_all_rows(make: Make, tmp_path: Path) -> None:
    episodes = [make(seed, length) for seed, length in enumerate((12, 40, 7))]
    write(tmp_path / "set", episodes)
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())
    action = np.concatenate([e.action for e in episodes]).astype(np.float64)
    pixels = np.concatenate([e.rgb[:-1, 0] for e in episodes if e.rgb is not None]) / 255.0
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(stats["action"][name], getattr(action, name)(axis=0), rtol=1e-9, atol=1e-9)
        image = np.array(stats["observation.images.front"][name])
        assert image.shape == (3, 1, 1)
        np.testing.assert_allclose(image[:, 0, 0], getattr(pixels, name)(axis=(0, 1, 2)), rtol=1e-9)
    assert stats["action"]["count"] == stats["observation.images.front"]["count"] == [59]
    (rows,) = (tmp_path / "set/meta/episodes").rglob("*.parquet")
    row = pq.read_table(rows).to_pylist()[1]
    for name, share in QUANTILES.items():
        np.testing.assert_allclose(
            row[f"stats/action/{name}"], np.quantile(episodes[1].action, share, axis=0), atol=1e-6
        )
        exact = np.quantile(episodes[1].rgb[:-1, 0] / 255.0, share, axis=(0, 1, 2), method="inverted_cdf")  # type: ignore[index]
        np.testing.assert_allclose(np.ravel(row[f"stats/observation.images.front/{name}"]), exact, atol=1e-9)


def test_rows_are_as_far_apart_as_frames(make: Make, tmp_path: Path) -> None:
    episode = make(3, 22, tau=4)
    write(tmp_path / "set", [episode])
    (back,) = read(tmp_path / "set")
    assert (back.pairs, back.control_hz) == (5, 5.0)
    assert np.array_equal(back.proprio, episode.proprio[[0, 4, 8, 12, 16, 20]])
    assert np.array_equal(back.action, episode.action[[3, 7, 11, 15, 19]])  # the last target before the next frame
    assert episode.label_valid is not None
    labels = [episode.label_valid[t : t + 4].all() for t in range(0, 20, 4)]
    assert back.label_valid is not None
    assert back.label_valid.tolist() == labels
    assert 0 < sum(labels) < 5
    assert back.recipe == episode.recipe


def test_episodes_without_frames_have_no_videos(make: Make, tmp_path: Path) -> None:
    episode = make(0, 10, video=False)
    write(tmp_path / "set", [episode])
    (back,) = read(tmp_path / "set")
    assert_same(episode, back)
    assert back.rgb is None
    assert not (tmp_path / "set/videos").exists()


def wrong_view(episode: Episode) -> Episode:
    return replace(episode, rgb=np.concatenate([episode.rgb, episode.rgb], axis=1))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda e: replace(e, rgb=e.rgb[:-1]), r"uint8\[12, 1, 64, 96, 3\], expected uint8\[13 frames"),
        (wrong_view, r"expected uint8\[13 frames, 1 cameras \(front\)"),
        (lambda e: replace(e, rgb=e.rgb[:, :, :-1]), "96 x 63 pixels, expected even"),
        (lambda e: replace(e, rgb=e.rgb[:, :, :32]), "frame shape"),
        (lambda e: replace(e, rgb=None), "frame shape"),
        (lambda e: replace(e, tau=8, rgb=e.rgb[:2]), "2.5 frames a second, expected a whole number"),
        (lambda e: replace(e, tau=20, rgb=e.rgb[:1]), "12 steps, expected at least one frame's, 20"),
        (lambda e: replace(e, proprio=e.proprio[:, :14]), "14 numbers, expected the unified 30"),
        (lambda e: replace(e, action=e.action[:, :14]), "episode.action"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_and_the_others_stay(
    make: Make, tmp_path: Path, change: Callable[[Episode], Episode], match: str
) -> None:
    with LeRobotWriter(tmp_path / "set") as writer:
        writer.add(make(0, 12))
        with pytest.raises(ValueError, match=match):
            writer.add(change(make(1, 12)))
        writer.add(make(2, 12))
    assert [e.recipe.seed for e in read(tmp_path / "set")] == [0, 2]


def test_nothing_is_ever_overwritten(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "set", [make(0, 4)])
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match="set exists"):
        write(tmp_path / "set", [make(1, 4)])
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


def test_an_error_or_no_episode_leaves_nothing(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no episodes"):
        write(tmp_path / "set", [])

    def interrupted() -> Iterator[Episode]:
        yield make(0, 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", interrupted())
    assert list(tmp_path.iterdir()) == []


CHILD = """
    import resource, sys
    sys.path[:0] = {path!r}
    from conftest import recorded
    from embodichain.export import LeRobotWriter
    if {room}:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
    with LeRobotWriter({out!r}) as writer:
        for seed in range(40):
            writer.add(recorded(seed, 40, video={video}))
            print(seed, flush=True)
            if seed == 1 and {wait}:
                sys.stdin.read()
"""


def child(out: Path, *, video: bool = False, room: int = 0, wait: bool = False) -> subprocess.Popen[str]:
    """A process that writes to `out`: until a file has reached `room` bytes, or waiting after two episodes."""
    path = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    code = textwrap.dedent(CHILD.format(path=path, out=str(out), video=video, room=room, wait=wait))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)  # type: ignore[call-overload]


@pytest.mark.parametrize(("video", "room"), [(False, 200_000), (True, 60_000)])
def test_no_room_left_half_way(tmp_path: Path, video: bool, room: int) -> None:
    """Writes really fail: the kernel allows no file beyond `room` bytes, as a full disk allows none."""
    process = child(tmp_path / "set", video=video, room=room)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out.splitlines()[:2] == ["0", "1"]  # it began well
    assert "OSError" in said.strip().splitlines()[-1]
    assert ("front" in said.strip().splitlines()[-1]) is video
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_stops_nobody_and_a_living_one_is_not_disturbed(make: Make, tmp_path: Path) -> None:
    process = child(tmp_path / "set", wait=True)
    assert process.stdout is not None
    assert [process.stdout.readline().strip() for _ in range(2)] == ["0", "1"]
    with pytest.raises(BlockingIOError, match="another process"):
        write(tmp_path / "set", [make(7, 4)])
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["set.partial"]
    write(tmp_path / "set", [make(7, 4)])
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert [e.recipe.seed for e in read(tmp_path / "set")] == [7]
