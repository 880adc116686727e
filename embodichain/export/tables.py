"""A parquet table that is spread over files of limited size. Owns: which row lies in which file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embodichain.export.layout import next_file, place

_GROUP_BYTES = 8 << 20  # rows are gathered to about this much before they are written


class ParquetFiles:
    """Appends tables of one schema; a file that has grown beyond `limit_mb` is followed by another.

    Args:
        root: of the dataset.
        template: path of a file, with `chunk_index` and `file_index`.
        limit_mb: megabytes.
    """

    def __init__(self, root: Path, template: str, limit_mb: float) -> None:
        self._root, self._template, self._limit = root, template, limit_mb * 2**20
        self._chunk, self._file = 0, 0
        self._waiting: list[pa.Table] = []
        self._writer: pq.ParquetWriter | None = None

    @property
    def here(self) -> tuple[int, int]:
        """Chunk and file index of what is appended next."""
        return self._chunk, self._file

    def append(self, table: pa.Table) -> None:
        """Add rows to the file at `here`. Raises `OSError` if they cannot be written."""
        self._waiting.append(table)
        if sum(t.nbytes for t in self._waiting) < min(_GROUP_BYTES, self._limit):
            return
        self._flush()
        if self._path.stat().st_size >= self._limit:
            self.close()
            self._chunk, self._file = next_file(self._chunk, self._file)

    def close(self) -> None:
        """Finish the file. Raises `OSError` if it cannot be written."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def _path(self) -> Path:
        return place(self._root, self._template, self._chunk, self._file)

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)
        self._waiting.clear()
