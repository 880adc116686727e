"""Facts about this machine that the operating system's files tell: cores, memory, disk, installed packages.

Limits of a container (cgroup v2) count: they are what a run gets, whatever the host has.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

_GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run can use.

    Attributes:
        cores: Usable CPU cores; a fraction under a container's quota.
        memory_gib: Memory, GiB.
        memory_free_gib: Memory that is available now, GiB.
        shm_free_gib: Free in /dev/shm, GiB; 0 without one.
        runs_folder: Where runs are written.
        runs_writable: Whether that is allowed.
        disk_free_gib: Free there, GiB.
        has_nvidia_device: Whether the NVIDIA driver's device file is there.
    """

    cores: float
    memory_gib: float
    memory_free_gib: float
    shm_free_gib: float
    runs_folder: str
    runs_writable: bool
    disk_free_gib: float
    has_nvidia_device: bool


def look_at_machine(runs: Path) -> Machine:
    """Reads the facts; `runs` need not exist yet."""
    existing = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.exists())
    shm = Path("/dev/shm")
    memory, memory_free = _memory_bytes()
    return Machine(
        cores=_cores(),
        memory_gib=memory / _GIB,
        memory_free_gib=memory_free / _GIB,
        shm_free_gib=shutil.disk_usage(shm).free / _GIB if shm.is_dir() else 0.0,
        runs_folder=str(runs),
        runs_writable=os.access(existing, os.W_OK | os.X_OK) and existing.is_dir(),
        disk_free_gib=shutil.disk_usage(existing).free / _GIB,
        has_nvidia_device=Path("/dev/nvidiactl").exists(),
    )


def _cores() -> float:
    cores = float(len(os.sched_getaffinity(0)))
    words = _read(_CGROUP / "cpu.max").split()
    if len(words) == 2 and words[0] != "max":
        cores = min(cores, int(words[0]) / int(words[1]))
    return cores


def _memory_bytes() -> tuple[int, int]:
    """Total and available memory, bytes."""
    lines = dict(line.split(":", 1) for line in _read(Path("/proc/meminfo")).splitlines() if ":" in line)
    total, free = (int(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    limit, used = (_read(_CGROUP / name).strip() for name in ("memory.max", "memory.current"))
    if limit.isdigit() and used.isdigit():
        total = min(total, int(limit))
        free = min(free, int(limit) - int(used))
    return total, free


def _read(path: Path) -> str:
    """The file's text; empty where this system has no such file."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def installed_packages() -> dict[str, str]:
    """Version by normalised name (PEP 503) of every installed distribution."""
    return {normalise(d.metadata["Name"]): d.version for d in distributions() if d.metadata["Name"]}


def pinned_packages(constraints: Path) -> dict[str, str]:
    """Version by normalised name, from a constraints file; empty if there is none."""
    pins = (line.split("#")[0].strip().partition("==") for line in _read(constraints).splitlines())
    return {normalise(name): version.strip() for name, _, version in pins if version}


def normalise(name: str) -> str:
    """`Farama_Notifications` -> `farama-notifications`."""
    return re.sub(r"[-_.]+", "-", name).lower()
