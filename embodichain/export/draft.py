"""A folder that appears under its name whole or not at all, whatever kills its writer."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def draft(out: Path) -> Iterator[Path]:
    """Yield `<out>.partial`, an empty folder; it becomes `out` if the block ends well and is removed if it raises.

    What a killed writer left behind is removed by the next one. Raises `FileExistsError` if `out` exists, and
    `BlockingIOError` if another process is writing it.
    """
    refuse_existing(out)
    partial = out.with_name(out.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        _lock(handle, partial)
        refuse_existing(out)
        for left in partial.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield partial
            _sync(partial)
            os.rename(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def refuse_existing(out: Path) -> None:
    """Raise `FileExistsError` naming `out` if there is anything."""
    if out.exists():
        raise FileExistsError(f"{out} exists: expected a new name; nothing is ever overwritten")


def _lock(handle: int, partial: Path) -> None:
    """The kernel drops this lock with its process, so that one left behind stops nobody."""
    busy = BlockingIOError(f"{partial} is being written by another process: expected another name, or wait for it")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    # Its last owner may have renamed or removed it between our opening and our locking it.
    if not partial.exists() or partial.stat().st_ino != os.fstat(handle).st_ino:
        raise busy


def _sync(folder: Path) -> None:
    """On disk before the name is."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
