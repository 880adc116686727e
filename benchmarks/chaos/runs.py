"""The main job as its user starts it, its driver killed, and the job resumed; again and again in one run."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos.line import PATIENCE_S
from benchmarks.chaos.outcome import Outcome, Tick
from benchmarks.chaos.processes import descendants
from embodichain.archive import Archive

ROOT = Path(__file__).parents[2]
CHECKPOINT_S = 3.0
SETTINGS = (
    "learner.steps=1000000",
    f"learner.checkpoint_minutes={CHECKPOINT_S / 60}",
    "evaluation.seeds_between=0",
    "replay.max_reuse=50",
)


class RunProcess:
    """`embodichain run` in a process of its own, started and resumed under the same folder."""

    def __init__(self, folder: Path, *settings: str, config: str = "configs/tiny.yaml") -> None:
        self.folder, self.run, self._said = folder, folder / "tiny", folder / "out.txt"
        self.process = self._start(str(ROOT / config), f"output={folder}", *settings)

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "embodichain", "run", *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            text=True,
            stdout=self._said.open("a"),
            stderr=subprocess.STDOUT,
        )

    def resume(self) -> None:
        """`run --resume`, of a run whose driver is gone."""
        self.process = self._start("--resume", str(self.run))

    def step(self) -> int:
        """Of the newest whole checkpoint; -1 without one."""
        names = [path.name.removeprefix("step_") for path in self.run.glob("checkpoints/step_*")]
        return max((int(name) for name in names if name.isdigit()), default=-1)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition. Raises `RuntimeError` if the run ended or took longer than `PATIENCE_S`."""
        stop = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > stop or self.process.poll() is not None:
                raise RuntimeError(f"no {what} ({PATIENCE_S:g} s, or the run ended): {self.said()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> set[int]:
        """`SIGKILL` to the driver; the process ids of everything that it had started."""
        below = set(descendants(self.process.pid))
        self.process.kill()
        self.process.wait()
        return below

    def stop(self) -> dict[str, object]:
        """Ctrl-C, and the summary that the run then writes."""
        self.process.send_signal(signal.SIGINT)
        if self.process.wait(timeout=PATIENCE_S):
            raise RuntimeError(f"exit code {self.process.returncode}: {self.said()[-2000:]}")
        return dict(json.loads((self.run / "summary.json").read_text()))

    def said(self) -> str:
        """All that it printed."""
        return self._said.read_text()

    @property
    def database(self) -> Path:
        """MLflow's."""
        return self.folder / "mlflow.db"

    def last_logged_step(self) -> int:
        """The newest learner step that reached MLflow."""
        with _reading(self.database) as database:
            return int(database.execute("select max(step) from metrics").fetchone()[0] or 0)


def driver_killed(times: int, tick: Tick) -> Outcome:
    """`SIGKILL` to the driver, `run --resume` at once. Recovered when the next checkpoint is written."""
    outcome, chance, resumed = Outcome(), random.Random(0), list[tuple[float, int]]()
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        run = RunProcess(Path(folder), *SETTINGS, f"archive.path={archive}")
        try:
            run.until(lambda: run.step() > 0 and bool(archived(archive)), "first checkpoint and archived episode")
            for _ in range(times):
                committed = archived(archive)
                outcome.recovery_s.append(_kill_and_resume(run, chance, outcome, resumed))
                outcome.lost["archive entries"] += len(committed - archived(archive))
                tick()
            summary = run.stop()
            outcome.broken += [str(problem) for problem in Archive.open(str(archive)).verify()]
            outcome.broken += gone_back(run.database, resumed)
        finally:
            run.kill()
    if outcome.lost["archive entries"]:
        outcome.broken.append("committed archive entries are gone")
    outcome.broken += _broken(summary, times)
    return outcome


def archived(path: Path) -> set[str]:
    """Recipe ids of the archive's committed entries; none before there is one."""
    return {entry.id for entry in Archive.open(str(path)).entries()} if (path / "archive.json").exists() else set()


def gone_back(mlflow: Path, resumed: list[tuple[float, int]]) -> list[str]:
    """Starts that went on from before the checkpoint that was whole at the kill: over more than one interval.

    Args:
        mlflow: the run's database.
        resumed: of every start, when nothing of the one before was alive any more, and that checkpoint's step.
    """
    ends = [since for since, _ in resumed[1:]] + [float("inf")]
    asked = "select min(step) from metrics where key like 'learner/loss%' and timestamp >= ? and timestamp < ?"
    found = []
    with _reading(mlflow) as database:
        for (since, kept), end in zip(resumed, ends, strict=True):
            (first,) = database.execute(asked, (1000 * since, 1000 * end)).fetchone()
            if first is not None and first <= kept:
                found.append(f"step {first} was made again, checkpoint {kept} was whole")
    return found


def _reading(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True)


def _kill_and_resume(
    run: RunProcess, chance: random.Random, outcome: Outcome, resumed: list[tuple[float, int]]
) -> float:
    time.sleep(chance.uniform(0.0, CHECKPOINT_S))
    left, kept, logged = run.kill(), run.step(), run.last_logged_step()
    began = time.monotonic()
    run.resume()
    # what the dead driver had started lives on for a moment, and may still write a checkpoint
    run.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), "end of the processes of the dead driver")
    outcome.lost["logged steps done again"] += max(0, logged - kept)
    resumed.append((time.time(), kept))
    kept = run.step()
    run.until(lambda: run.step() > kept, f"checkpoint beyond step {kept}")
    outcome.lost["shards' contents"] += 2
    return time.monotonic() - began


def _broken(summary: dict[str, object], times: int) -> list[str]:
    """Promises that the summary of the stopped run breaks."""
    found, reuse = [], dict(summary["reuse"])  # type: ignore[call-overload]
    if summary["starts"] != times + 1:
        found.append(f"{summary['starts']} starts, expected {times + 1}")
    if reuse["max"] > reuse["bound"]:
        found.append(f"a pair was used {reuse['max']} times, the bound is {reuse['bound']}")
    return found
