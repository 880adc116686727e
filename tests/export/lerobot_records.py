"""Records a small dataset with the real lerobot, as a robot's owner would. Run by .venv-lerobot's Python.

    .venv-lerobot/bin/python tests/export/lerobot_records.py FOLDER NUMBERS.npz

NUMBERS holds `state` and `action` f32[n, 14], `frames` u8[n, H, W, 3] and `episode` i64[n].
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from lerobot.datasets import LeRobotDataset

MOTORS = [f"{arm}_{name}" for arm in ("left", "right") for name in ("a", "b", "c", "d", "e", "f", "grip")]


def main(folder: str, numbers: str) -> None:
    """Record every episode."""
    given = np.load(numbers)
    vector = {"dtype": "float32", "shape": (14,), "names": MOTORS}
    image = {"dtype": "video", "shape": given["frames"].shape[1:], "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector, "observation.images.wrist": image}
    dataset = LeRobotDataset.create("local/recorded", fps=10, features=features, root=Path(folder), robot_type="aloha")
    episode = given["episode"]
    for index, number in enumerate(episode):
        dataset.add_frame(
            {
                "observation.state": given["state"][index],
                "action": given["action"][index],
                "observation.images.wrist": given["frames"][index],
                "task": f"task {number}",
            }
        )
        if index + 1 == len(episode) or episode[index + 1] != number:
            dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    main(*sys.argv[1:])
