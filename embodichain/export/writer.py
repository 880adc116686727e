"""Episodes to a LeRobotDataset v3.0 folder. Takes any iterable of `Episode`s, hands on a folder that is whole.

A row is what was seen at a control step and the target set there. Where episodes carry frames only at every `tau`-th
step, so do the rows: a row's action is then the last target before the next frame, and it is a label only if all
targets between were. Recipe, valid action dims and the observation after the last action, for which LeRobot has no
row, lie in columns of `meta/episodes`; the frame after the last action follows the episode's others in the video.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
import pyarrow as pa

from embodichain.contracts import Episode
from embodichain.export import layout
from embodichain.export.draft import draft
from embodichain.export.stats import TotalStats, image_stats, vector_stats
from embodichain.export.tables import ParquetFiles
from embodichain.export.video import VideoTrack

_COLUMN_TYPES = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}


def write(out: str | Path, episodes: Iterable[Episode], *, cameras: Sequence[str] = ("front",)) -> int:
    """Write every episode to the new folder `out`; returns how many. See `LeRobotWriter`."""
    with LeRobotWriter(out, cameras=cameras) as writer:
        for episode in episodes:
            writer.add(episode)
        return writer.episodes


class LeRobotWriter:
    """A context in which a dataset grows; `out` appears when it ends without an error.

    Args:
        out: folder to create.
        cameras: names of the views of `Episode.rgb`, in their order.
        robot_type: written to `info.json`.
        data_mb: a parquet file beyond this is followed by another.
        video_mb: likewise for videos.

    Raises:
        FileExistsError: `out` exists.
        BlockingIOError: another process is writing `out`.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        cameras: Sequence[str] = ("front",),
        robot_type: str = "dual_panda",
        data_mb: float = layout.DATA_MB,
        video_mb: float = layout.VIDEO_MB,
    ) -> None:
        self.out, self.episodes, self.rows = Path(out), 0, 0
        self._cameras, self._robot_type = tuple(cameras), robot_type
        self._data_mb, self._video_mb = data_mb, video_mb
        self._stack = ExitStack()
        self._tasks: dict[str, int] = {}
        self._total = TotalStats()
        self._kind: tuple[object, ...] = ()
        self._fps = 0
        self._tracks: dict[str, VideoTrack] = {}

    def __enter__(self) -> LeRobotWriter:
        self._root = self._stack.enter_context(draft(self.out))
        self._data = ParquetFiles(self._root, layout.DATA, self._data_mb)
        self._table = ParquetFiles(self._root, layout.EPISODES, self._data_mb)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is None:
                self._finish()
            else:
                for track in self._tracks.values():
                    track.abandon()
                self._stack.__exit__(kind, error, trace)

    def add(self, episode: Episode) -> None:
        """Append one episode.

        Raises:
            ValueError: it breaks the contract, or cannot stand beside those before it; nothing was written.
            OSError: it cannot be written.
        """
        columns, frames = self._check(episode), episode.rgb
        length, task = len(columns[layout.ACTION]), self._tasks.setdefault(episode.instruction, len(self._tasks))
        step = np.arange(length)
        columns |= {
            "next.done": step == length - 1,
            "timestamp": (step / self._fps).astype(np.float32),
            "frame_index": step,
            "episode_index": np.full(length, self.episodes),
            "index": self.rows + step,
            "task_index": np.full(length, task),
        }
        stats = {key: vector_stats(values) for key, values in columns.items()}
        place: dict[str, object] = {}
        for view, (key, track) in enumerate(self._tracks.items()):
            assert frames is not None
            pictures = frames[: length + 1, view]
            stats[key] = image_stats(pictures[:-1])
            place |= track.append(pictures)
        row = {"episode_index": self.episodes, "tasks": [episode.instruction], "length": length}
        row |= layout.indices("data", self._data.here) | layout.indices("meta/episodes", self._table.here) | place
        row |= {"dataset_from_index": self.rows, "dataset_to_index": self.rows + length}
        row |= _own(episode, length * self._stride(episode))
        row |= {f"stats/{key}/{name}": v.tolist() for key, stat in stats.items() for name, v in stat.items()}
        self._data.append(_data_table(columns))
        self._table.append(pa.table({key: pa.array([value], type=_episode_type(key)) for key, value in row.items()}))
        self._total.add(stats)
        self.episodes, self.rows = self.episodes + 1, self.rows + length

    @staticmethod
    def _stride(episode: Episode) -> int:
        return 1 if episode.rgb is None else episode.tau

    def _check(self, episode: Episode) -> dict[str, np.ndarray]:
        """The columns that the episode brings itself; the first one says what all must be."""
        episode.check()
        stride, width = self._stride(episode), len(layout.UNIFIED_NAMES)
        length = episode.pairs // stride
        if episode.proprio.shape[1] != width:
            raise ValueError(f"episode.proprio: {episode.proprio.shape[1]} numbers, expected the unified {width}")
        if not length:
            raise ValueError(f"episode.action: {episode.pairs} steps, expected at least one frame's, {stride}")
        fps = episode.control_hz / stride
        if fps != round(fps) or fps < 1:
            raise ValueError(f"episode: {fps:g} frames a second, expected a whole number (control_hz / tau)")
        self._check_frames(episode, length)
        kind = (round(fps), stride, None if episode.rgb is None else episode.rgb.shape[1:])
        if not self._kind:
            self._kind, self._fps = kind, round(fps)
            self._tracks = self._open_tracks(episode)
        if kind != self._kind:
            raise ValueError(f"episode {episode.recipe.id}: fps, tau, frame shape {kind}, expected {self._kind}")
        labels = np.ones(episode.pairs, dtype=bool) if episode.label_valid is None else episode.label_valid
        last = slice(stride - 1, length * stride, stride)
        return {
            layout.STATE: episode.proprio[: length * stride : stride],
            layout.ACTION: episode.action[last],
            layout.LABEL_VALID: np.asarray(labels[: length * stride].reshape(length, stride).all(axis=1)),
            layout.SEGMENT: episode.segment_id[last].astype(np.int64),
        }

    def _check_frames(self, episode: Episode, length: int) -> None:
        if episode.rgb is None:
            return
        wanted = (length + 1, len(self._cameras))
        if episode.rgb.dtype != np.uint8 or episode.rgb.ndim != 5 or episode.rgb.shape[:2] != wanted:
            raise ValueError(
                f"episode.rgb: {episode.rgb.dtype}{list(episode.rgb.shape)}, expected uint8[{length + 1} frames, "
                f"{len(self._cameras)} cameras ({', '.join(self._cameras)}), H, W, 3]"
            )
        height, width = episode.rgb.shape[2:4]
        if height % 2 or width % 2:
            raise ValueError(f"episode.rgb: {width} x {height} pixels, expected even numbers: H.264 halves the colours")

    def _open_tracks(self, episode: Episode) -> dict[str, VideoTrack]:
        if episode.rgb is None:
            return {}
        size = episode.rgb.shape[2:4]
        keys = [layout.image_key(camera) for camera in self._cameras]
        return {key: VideoTrack(self._root, key, self._fps, size, self._video_mb) for key in keys}

    def _finish(self) -> None:
        if not self.episodes:
            raise ValueError(f"{self.out}: no episodes, expected at least one")
        for track in self._tracks.values():
            track.close()
        self._data.close()
        self._table.close()
        # LeRobot finds tasks by the index of this table, which only pandas' own metadata can name.
        tasks = pd.DataFrame({"task_index": list(self._tasks.values())}, index=pd.Index(list(self._tasks), name="task"))
        tasks.to_parquet(self._root / layout.TASKS)
        _write_json(self._root / layout.STATS, self._total.as_lists())
        _write_json(self._root / layout.INFO, self._info())

    def _info(self) -> dict[str, object]:
        videos = {key: layout.video_feature(*track.size, self._fps) for key, track in self._tracks.items()}
        return {
            "codebase_version": layout.VERSION,
            "robot_type": self._robot_type,
            "fps": self._fps,
            "total_episodes": self.episodes,
            "total_frames": self.rows,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.CHUNK_SIZE,
            "data_files_size_in_mb": self._data_mb,
            "video_files_size_in_mb": self._video_mb,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": layout.DATA,
            "video_path": layout.VIDEO if videos else None,
            "features": {**layout.table_features(), **videos},
        }


def _own(episode: Episode, steps: int) -> dict[str, object]:
    """The columns that only this project reads; `steps` is how many control steps the rows cover."""
    return {
        layout.RECIPE: episode.recipe.to_json(),
        layout.ACTION_VALID: episode.action_valid.tolist(),
        layout.FINAL_STATE: episode.proprio[steps].tolist(),
        layout.CONTROL_HZ: float(episode.control_hz),
    }


def _episode_type(key: str) -> pa.DataType | None:
    return pa.list_(pa.float32()) if key == layout.FINAL_STATE else None


def _data_table(columns: dict[str, np.ndarray]) -> pa.Table:
    arrays = {}
    for key, feature in layout.table_features().items():
        kind = _COLUMN_TYPES[str(feature["dtype"])]
        flat = pa.array(np.ascontiguousarray(columns[key]).ravel(), type=kind)
        arrays[key] = flat if columns[key].ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, columns[key].shape[1])
    return pa.table(arrays)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
