"""Loads a dataset folder with the real lerobot and says what it found. Run by .venv-lerobot's Python, not by .venv's.

    .venv-lerobot/bin/python scripts/check_lerobot.py FOLDER [--rows 0 17 40 --arrays FILE.npz]

Every row is read, every frame decoded. Prints one JSON object; exits with an error where lerobot raises one. With
`--arrays`, the chosen rows' state, action and frames go to FILE for others to compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets import LeRobotDataset


def load(folder: Path, **options: Any) -> LeRobotDataset:
    """The dataset, from that folder alone: PyAV decodes, which brings its own ffmpeg."""
    return LeRobotDataset(f"local/{folder.name}", root=folder, video_backend="pyav", **options)


def exact_stats(rows: list[dict[str, Any]], key: str) -> dict[str, np.ndarray]:
    """Of one column of all rows."""
    values = np.stack([np.asarray(row[key], dtype=np.float64).reshape(-1) for row in rows])
    return {name: getattr(values, name)(axis=0) for name in ("min", "max", "mean", "std")}


def stats_difference(dataset: LeRobotDataset, rows: list[dict[str, Any]], keys: list[str]) -> float:
    """The largest difference between what `meta/stats.json` says of vectors and what the rows say."""
    worst = 0.0
    for key in keys:
        for name, exact in exact_stats(rows, key).items():
            worst = max(worst, float(np.abs(np.asarray(dataset.meta.stats[key][name]).reshape(-1) - exact).max()))
    return worst


def image_stats_difference(dataset: LeRobotDataset, rows: list[dict[str, Any]]) -> float:
    """Likewise of images, whose mean and deviation the codec moves a little."""
    worst = 0.0
    for key in dataset.meta.camera_keys:
        pixels = np.stack([row[key].numpy() for row in rows])
        for name in ("mean", "std"):
            exact = getattr(pixels, name)(axis=(0, 2, 3))
            worst = max(worst, float(np.abs(np.asarray(dataset.meta.stats[key][name]).reshape(3) - exact).max()))
    return worst


def chunks_follow(folder: Path, dataset: LeRobotDataset, rows: list[dict[str, Any]], length: int = 4) -> bool:
    """Whether action chunks, as policies read them, are the next rows' actions, padded past an episode's end."""
    times = [step / dataset.fps for step in range(length)]
    chunked = load(folder, delta_timestamps={"action": times})
    for index, row in enumerate(rows):
        chunk = chunked[index]
        for step in range(length):
            inside = index + step < len(rows) and rows[index + step]["episode_index"] == row["episode_index"]
            if bool(chunk["action_is_pad"][step]) == inside:
                return False
            if inside and not np.array_equal(chunk["action"][step], rows[index + step]["action"]):
                return False
    return True


def main() -> int:
    """Load, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[])
    parser.add_argument("--arrays", type=Path)
    arguments = parser.parse_args()
    dataset = load(arguments.folder)
    rows = [dataset[index] for index in range(len(dataset))]
    cameras = list(dataset.meta.camera_keys)
    vectors = [key for key in dataset.features if key not in cameras]
    report = {
        "rows": len(dataset),
        "episodes": dataset.num_episodes,
        "fps": dataset.fps,
        "robot_type": dataset.meta.robot_type,
        "shapes": {key: list(np.shape(value)) for key, value in rows[0].items() if not isinstance(value, str)},
        "names": dataset.features["action"]["names"],
        "tasks": [row["task"] for row in rows],
        "episode_index": [int(row["episode_index"]) for row in rows],
        "timestamp": [float(row["timestamp"]) for row in rows],
        "done": [bool(row["next.done"]) for row in rows],
        "stats_keys": {key: sorted(value) for key, value in dataset.meta.stats.items()},
        "stats_difference": stats_difference(dataset, rows, vectors),
        "image_stats_difference": image_stats_difference(dataset, rows),
        "chunks_follow": chunks_follow(arguments.folder, dataset, rows),
    }
    if arguments.arrays:
        chosen = [rows[index] for index in arguments.rows]
        keys = ["observation.state", "action", *cameras]
        np.savez(arguments.arrays, **{key: np.stack([np.asarray(row[key]) for row in chosen]) for key in keys})
    json.dump(report, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
