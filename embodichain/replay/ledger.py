"""The passes that were started, on disk. Owns: what keeps the reuse bound across a shard's death.

One JSON line per started pass, flushed before the batch that needed it leaves. A shard that comes back empty reads
the file and treats every started pass as used in full, so no pair is ever used more than `max_reuse` times in total,
whatever was lost; pairs of a broken pass may be used less often.

One process writes a ledger at a time: whoever opens it waits until an earlier writer is dead (`.lock` beside it). The
processes of a killed driver live on for a moment, and what they debited must be read before anything else is.

Lines are handed to the operating system, not to the disk (no fsync: it would cost every batch milliseconds). So the
promise holds for the death of the process, not of the machine: a machine that loses power or crashes may lose the
lines of its last seconds (Linux writes them back within about 30), and their passes may be started once more. Where
shards may come back on another node the file lies on storage that both see, and what that node had not written back is
lost likewise.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from io import FileIO
from pathlib import Path
from typing import TextIO

_ENCODER = json.JSONEncoder(separators=(",", ":"))
LOCK_PATIENCE_S = 60.0  # Ray has ended the processes of a dead driver long before that


class PassLedger:
    """Append-only file of `(recipe id, T, passes started)`; compacted to one line per recipe when it is opened.

    Lines: `{"id", "t", "p"}` a pass; `{"save"}` a snapshot was taken; `{"used": 1}` a sample left after it.

    Args:
        path: the file; made if missing, along with its `.lock`. None keeps the ledger in memory only (tests,
            single-process use).

    Raises:
        ValueError: for a damaged line that is not the last one. A torn last line is dropped: the pass that it
            announced was never delivered, since lines are flushed first.
        TimeoutError: another process still writes it after a minute.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.passes: dict[str, int] = {}
        self.lengths: dict[str, int] = {}
        self.last_save: str | None = None
        self._file: FileIO | None = None
        self._unwritten = bytearray()  # lines that the operating system has not taken; a buffered file may drop them
        self._lock: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path.with_suffix(".lock"))
            self._read(path)
            self._compact(path)
            self._file = path.open("ab", buffering=0)

    def started(self, recipe_id: str) -> int:
        """Passes started over an episode, by this shard or by an earlier life of it."""
        return self.passes.get(recipe_id, 0)

    def record(self, recipe_id: str, length: int, passes: int) -> None:
        """Note that pass number `passes` (1 = the first) has started. Call `flush` before delivering it."""
        self.passes[recipe_id] = passes
        self.lengths[recipe_id] = length
        self.last_save = None
        self._write(_started(recipe_id, length, passes))

    def mark_save(self, name: str) -> None:
        """Note that a snapshot called `name` holds everything up to here."""
        self.last_save = name
        self._write({"save": name})
        self.flush()

    def mark_use(self) -> None:
        """Note that a sample leaves after the last snapshot; a line is written once per snapshot only."""
        if self.last_save is not None:
            self.last_save = None
            self._write({"used": 1})

    def flush(self) -> None:
        """Hand every line to the operating system. Raises `OSError`, naming the file, where it does not take them."""
        if self._file is not None:
            try:
                while self._unwritten:  # part of them may be taken: the next flush that can goes on there
                    del self._unwritten[: self._file.write(self._unwritten)]
            except OSError as error:
                raise OSError(
                    error.errno, f"{error.strerror}; nothing is delivered while passes cannot be noted", str(self.path)
                ) from error

    def close(self) -> None:
        """Flush and close the file; idempotent."""
        if self._file is not None:
            try:
                self.flush()
            finally:
                self._file.close()
                self._file = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _write(self, entry: dict[str, object]) -> None:
        if self._file is not None:
            self._unwritten += _line(entry).encode()

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                self._apply(json.loads(line))
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                if number == len(lines):
                    return
                raise ValueError(
                    f"{path}:{number}: damaged ledger line {line!r}; without it the reuse bound cannot be kept"
                ) from error

    def _apply(self, entry: dict[str, object]) -> None:
        if "save" in entry:
            self.last_save = str(entry["save"])
            return
        self.last_save = None
        if "used" not in entry:
            name, length, passes = entry["id"], entry["t"], entry["p"]
            if not isinstance(name, str) or not isinstance(length, int) or not isinstance(passes, int):
                raise TypeError("a pass is a string and two integers")
            self.passes[name] = max(passes, self.passes.get(name, 0))
            self.lengths[name] = length

    def _compact(self, path: Path) -> None:
        temporary = path.with_suffix(path.suffix + ".tmp")
        entries = [_started(recipe, self.lengths[recipe], passes) for recipe, passes in self.passes.items()]
        if self.last_save is not None:
            entries.append({"save": self.last_save})
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(map(_line, entries))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def _line(entry: dict[str, object]) -> str:
    return _ENCODER.encode(entry) + "\n"


def _started(recipe_id: str, length: int, passes: int) -> dict[str, object]:
    return {"id": recipe_id, "t": length, "p": passes}


def _locked(path: Path) -> TextIO:
    """The file, locked for this process until it is closed or the process is dead."""
    file, until = path.open("a", encoding="utf-8"), time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except (BlockingIOError, PermissionError):  # which of them depends on the system
            if time.monotonic() > until:
                file.close()
                raise TimeoutError(
                    f"{path}: still held after {LOCK_PATIENCE_S:g} s; another process writes this ledger, and with two "
                    "the reuse bound could not be kept"
                ) from None
            time.sleep(0.05)
