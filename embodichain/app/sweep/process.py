"""One cell as a process of its own: started, watched, asked to stop. Owns: what its end means."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PR_SET_PDEATHSIG = 1
REASON_LENGTH = 300


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        reason: why it failed; empty: its process ended well.
        seconds: that the process took.
        lost: the machine under it went away; nothing is known against the cell itself.
    """

    reason: str = ""
    seconds: float = 0.0
    lost: bool = False


class Attempt(Protocol):
    """A cell that is running."""

    def poll(self) -> Outcome | None:
        """How it ended; None while it runs."""
        ...

    def interrupt(self) -> None:
        """Ask it to stop cleanly."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a runner is given.

    Attributes:
        name: of the cell.
        arguments: of `embodichain`.
        log: where its output goes.
        cpus, gpus: what its processes take together.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    cpus: float = 1.0
    gpus: float = 0.0


class ProcessAttempt:
    """A cell's process on this machine. It dies with the process that made it, however that one ends."""

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        self._log, self._since = job.log, time.monotonic()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "embodichain", *job.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,  # the terminal's Ctrl-C is for the sweep, which passes it on
                preexec_fn=_die_with_parent,
            )

    def poll(self) -> Outcome | None:
        """See `Attempt`."""
        code = self._process.poll()
        return None if code is None else outcome_of(code, self._log, time.monotonic() - self._since)

    def interrupt(self) -> None:
        """See `Attempt`."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """See `Attempt`."""
        self._process.kill()
        self._process.wait()


class LocalRunner:
    """Cells on this machine, `slots` at a time, each with the environment of this process."""

    def __init__(self, slots: int = 1) -> None:
        self.slots = self.width = slots

    def start(self, job: Job) -> Attempt:
        """Start a cell's process."""
        return ProcessAttempt(job, os.environ)


def outcome_of(code: int, log: Path, seconds: float) -> Outcome:
    """What an exit code means, with the last line that the process printed."""
    if code == 0:
        return Outcome(seconds=seconds)
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return Outcome(reason=f"{how}: {last_line(log)}"[:REASON_LENGTH], seconds=seconds)


def last_line(log: Path) -> str:
    """The last line of a file that says something."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    said: Sequence[str] = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else "it printed nothing"


def _die_with_parent() -> None:
    """In the child, before it becomes the cell: the kernel kills it when its parent is gone (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
