"""LeRobotDataset v3.0 folders to episodes. Takes a folder that this project or another wrote, hands on `Episode`s.

Datasets of this project come back as they were, recipe and all, but for what a video loses; simulator states are not
in them and have width 0. Other datasets need a `FeatureMap`. Their last action has no observation after it and is left
out; their recipes name dataset and episode and can simulate nothing; every episode counts as a success, as
demonstrations do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embodichain.contracts import IMPORTED, Episode, Recipe
from embodichain.export import layout
from embodichain.export.mapping import Columns, FeatureMap
from embodichain.export.video import read_frames


def read(
    path: str | Path,
    *,
    tau: int = 1,
    size: tuple[int, int] | None = None,
    mapping: FeatureMap | None = None,
    videos: bool = True,
) -> Iterator[Episode]:
    """Every episode of a dataset, in order. See `LeRobotReader`."""
    return iter(LeRobotReader(path, tau=tau, size=size, mapping=mapping, videos=videos))


class LeRobotReader:
    """A dataset as a sequence of episodes without tokens.

    Args:
        path: folder with `meta/info.json`.
        tau: rows between the frames of `Episode.rgb`, >= 1.
        size: height, width that frames are stretched to, pixels; None: as they are.
        mapping: how its vectors become the unified one; None: they are unified already.
        videos: False leaves frames out.

    Raises:
        ValueError: no dataset, another version, or features that the mapping does not fit; one line says which.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tau: int = 1,
        size: tuple[int, int] | None = None,
        mapping: FeatureMap | None = None,
        videos: bool = True,
    ) -> None:
        if tau < 1:
            raise ValueError(f"tau={tau}: expected at least 1")
        self.path, self.tau = Path(path), tau
        self.info = _info(self.path)
        features, self._map = self.info["features"], mapping or FeatureMap()
        self._action = self._columns("action", features)
        self._state = self._columns("state", features)
        self.cameras = self._cameras(features) if videos else ()
        self._size = size or self._own_size(features)
        self._episodes = _episode_table(self.path)
        self.own = layout.RECIPE in self._episodes.column_names
        self._tasks = _tasks(self.path)
        self._fingerprint = hashlib.blake2b((self.path / layout.INFO).read_bytes(), digest_size=6)
        self._fingerprint.update((self.path / layout.STATS).read_bytes())
        self._cached: tuple[Path, pa.Table] | None = None

    def __len__(self) -> int:
        return int(self._episodes.num_rows)

    def __iter__(self) -> Iterator[Episode]:
        return (self.episode(index) for index in range(len(self)))

    @property
    def fps(self) -> float:
        """Rows per second."""
        return float(self.info["fps"])

    @property
    def control_hz(self) -> float | None:
        """Control steps per second of our own episodes; None for anybody else's, or if there is none."""
        return float(self._row(0)[layout.CONTROL_HZ]) if self.own and len(self) else None

    def recipe(self, index: int) -> Recipe:
        """The recipe of episode number `index`; nothing else of it is read."""
        return self._recipe(self._row(index))

    def episode(self, index: int) -> Episode:
        """Episode number `index`. Raises `ValueError` naming the file if its files do not hold what they should."""
        row = self._row(index)
        table, length = self._rows(row), int(row["length"])
        state = self._state.unified(_matrix(table, self._map.state_key))
        action = self._action.unified(_matrix(table, self._map.action_key))
        valid = self._action.valid
        if self.own:
            valid = valid & np.array(row[layout.ACTION_VALID], dtype=bool)
            state = np.concatenate([state, np.array([row[layout.FINAL_STATE]], dtype=np.float32)])
        pairs = len(state) - 1
        if pairs < 1:
            raise ValueError(f"{self.path}: episode {row['episode_index']} has {length} rows, expected at least 2")
        return Episode(
            recipe=self._recipe(row),
            instruction=self._tasks[int(table["task_index"][0].as_py())],
            action=action[:pairs],
            action_valid=valid,
            proprio=state,
            sim_state=np.zeros((pairs + 1, 0), dtype=np.float32),
            segment_id=_column(table, layout.SEGMENT, 0).astype(np.int16)[:pairs],
            control_hz=self.fps,
            success=True,
            label_valid=_column(table, layout.LABEL_VALID, True).astype(bool)[:pairs],
            tau=self.tau if self.cameras else 1,
            rgb=self._rgb(row, pairs),
        )

    def _columns(self, part: str, features: dict[str, Any]) -> Columns:
        key = getattr(self._map, f"{part}_key")
        if key not in features:
            raise ValueError(f"{self.path}: no feature {key!r}; expected one of {', '.join(features)}")
        try:
            return Columns(getattr(self._map, part), key, features[key])
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None

    def _cameras(self, features: dict[str, Any]) -> tuple[str, ...]:
        """Feature keys of the cameras that are read."""
        prefix = layout.image_key("")
        there = {key.removeprefix(prefix): value["dtype"] for key, value in features.items() if key.startswith(prefix)}
        cameras = self._map.cameras or tuple(there)
        for camera in cameras:
            if there.get(camera) != "video":
                found = ", ".join(f"{name} ({kind})" for name, kind in there.items()) or "none"
                raise ValueError(f"{self.path}: camera {camera!r}: expected a video among its cameras: {found}")
        return tuple(layout.image_key(camera) for camera in cameras)

    def _own_size(self, features: dict[str, Any]) -> tuple[int, int]:
        sizes = {_height_width(features[key]) for key in self.cameras}
        if len(sizes) > 1:
            raise ValueError(
                f"{self.path}: cameras of sizes {sorted(sizes)} cannot be stacked; expected a size to make them"
            )
        return sizes.pop() if sizes else (0, 0)

    def _row(self, index: int) -> dict[str, Any]:
        return dict(self._episodes.slice(index, 1).to_pylist()[0])

    def _recipe(self, row: dict[str, Any]) -> Recipe:
        if self.own:
            return Recipe.from_json(row[layout.RECIPE])
        name, domain = f"{IMPORTED}{self.path.name}", f"dataset-{self._fingerprint.hexdigest()}"
        return Recipe(task=name, seed=int(row["episode_index"]), domain=domain)

    def _rows(self, row: dict[str, Any]) -> pa.Table:
        """The episode's rows of the data table, in order."""
        template, index = self.info["data_path"], int(row["episode_index"])
        path = layout.place(self.path, template, row["data/chunk_index"], row["data/file_index"])
        if self._cached is None or self._cached[0] != path:
            wanted = {self._map.state_key, self._map.action_key, layout.SEGMENT, layout.LABEL_VALID}
            wanted |= {"episode_index", "frame_index", "task_index"}
            self._cached = path, _read_table(path, lambda name: name in wanted)
        table = self._cached[1]
        mine = table.filter(pc.equal(table["episode_index"], index))
        if not np.array_equal(mine["frame_index"].to_numpy(), np.arange(row["length"])):
            raise ValueError(f"{path}: {mine.num_rows} rows of episode {index}, expected {row['length']} in order")
        return mine

    def _rgb(self, row: dict[str, Any], pairs: int) -> np.ndarray | None:
        """u8[F, V, H, W, 3]."""
        if not self.cameras:
            return None
        views = []
        for key in self.cameras:
            where = (row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"])
            path = layout.place(self.path, self.info["video_path"], *where, key)
            start, frames = row[f"videos/{key}/from_timestamp"], pairs // self.tau + 1
            views.append(read_frames(path, start_s=start, frames=frames, every=self.tau, fps=self.fps, size=self._size))
        return np.stack(views, axis=1)


def _info(path: Path) -> dict[str, Any]:
    file = path / layout.INFO
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no LeRobotDataset; expected a folder with {layout.INFO} ({error})") from None
    if not version.startswith("v3."):
        raise ValueError(
            f"{file}: codebase_version={version}, expected {layout.VERSION}; LeRobot's own converter makes it"
        )
    return info


def _read_table(path: Path, wanted: Any) -> pa.Table:
    try:
        names = [name for name in pq.read_schema(path).names if wanted(name)]
        return pq.read_table(path, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None


def _episode_table(path: Path) -> pa.Table:
    folder = (path / layout.EPISODES).parent.parent
    files = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not files:
        raise ValueError(f"{folder}: no episodes, expected parquet files")
    tables = [_read_table(file, lambda name: not name.startswith("stats/")) for file in files]
    return pa.concat_tables(tables, promote_options="default")


def _tasks(path: Path) -> dict[int, str]:
    """Task index -> instruction: the column beside `task_index`, whatever pandas called it."""
    table = _read_table(path / layout.TASKS, lambda name: True)
    texts = [name for name in table.column_names if name != "task_index"]
    return dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))


def _matrix(table: pa.Table, key: str) -> np.ndarray:
    """f32[n, d] of a column of lists, or of numbers."""
    column = table[key].combine_chunks()
    flat = column if pa.types.is_primitive(column.type) else column.flatten()
    return flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(table.num_rows, -1)


def _column(table: pa.Table, key: str, default: object) -> np.ndarray:
    return table[key].to_numpy() if key in table.column_names else np.full(table.num_rows, default)


def _height_width(feature: dict[str, Any]) -> tuple[int, int]:
    shape, names = feature["shape"], feature.get("names") or ["height", "width", "channels"]
    return int(shape[names.index("height")]), int(shape[names.index("width")])
