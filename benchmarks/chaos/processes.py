"""Processes below one of ours, found by parentage, so that nobody else's are ever touched."""

from __future__ import annotations

import subprocess


def descendants(root: int) -> dict[int, str]:
    """Process id -> command line of everything below process `root`."""
    table = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in table.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, _ in rows}

    def below(pid: int) -> bool:
        while pid in parents and pid != root:
            pid = parents[pid]
        return pid == root

    return {int(pid): args for pid, _, args in rows if int(pid) != root and below(int(pid))}


def learner_workers(root: int) -> list[int]:
    """Process ids of the learner's ranks below process `root`."""
    return sorted(pid for pid, args in descendants(root).items() if "RayTrainWorker" in args)
