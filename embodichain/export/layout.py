"""Where everything lies in a LeRobotDataset v3.0. Owns: paths, feature names, and what this project adds to them.

The facts are those of LeRobot 0.6.1, `lerobot/datasets/{utils,dataset_metadata,dataset_writer}.py`. Many episodes share
a file: rows of a parquet table, a stretch of a video. `meta/episodes` says for each episode which files, which rows
and from which second on. What LeRobot does not know lies in columns `embodichain/*` of that table, which it ignores.
"""

from __future__ import annotations

from pathlib import Path

from embodichain.contracts import ARMS

VERSION = "v3.0"
INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNK_SIZE = 1000  # files per chunk folder
DATA_MB = 100  # a parquet file that has grown beyond this is followed by another
VIDEO_MB = 200

STATE = "observation.state"
ACTION = "action"
LABEL_VALID = "label_valid"
SEGMENT = "segment_id"

OWN = "embodichain/"
RECIPE = OWN + "recipe"
ACTION_VALID = OWN + "action_valid"
FINAL_STATE = OWN + "final_state"
CONTROL_HZ = OWN + "control_hz"

UNIFIED_NAMES: tuple[str, ...] = tuple(
    f"{arm}.{dim}"
    for arm in ARMS
    for dim in ("x", "y", "z", "qw", "qx", "qy", "qz", *(f"q{joint}" for joint in range(1, 8)), "gripper")
)
"""Names of the unified vector's 30 numbers, in their order (`contracts.action`)."""

_BOOKKEEPING = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def image_key(camera: str) -> str:
    """The feature of one camera's video."""
    return f"observation.images.{camera}"


def table_features() -> dict[str, dict[str, object]]:
    """`info.json`'s entries of every feature that is a column of the data table."""
    vector: dict[str, object] = {"dtype": "float32", "shape": [len(UNIFIED_NAMES)], "names": list(UNIFIED_NAMES)}
    scalars = {"next.done": "bool", LABEL_VALID: "bool", SEGMENT: "int64", **_BOOKKEEPING}
    return {
        STATE: vector,
        ACTION: vector,
        **{key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in scalars.items()},
    }


def video_feature(height: int, width: int, fps: int) -> dict[str, object]:
    """`info.json`'s entry of one camera."""
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }


def next_file(chunk: int, file: int) -> tuple[int, int]:
    """Indices of the file after this one."""
    return (chunk, file + 1) if file + 1 < CHUNK_SIZE else (chunk + 1, 0)


def indices(prefix: str, here: tuple[int, int]) -> dict[str, object]:
    """The columns of `meta/episodes` that name a file."""
    return {f"{prefix}/chunk_index": here[0], f"{prefix}/file_index": here[1]}


def place(root: Path, template: str, chunk: int, file: int, video_key: str = "") -> Path:
    """A file's path under `root`."""
    return root / template.format(chunk_index=chunk, file_index=file, video_key=video_key)
