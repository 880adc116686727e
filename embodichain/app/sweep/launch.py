"""From a checked sweep to a finished one: what `embodichain sweep` does, stage after stage.

First come the archives, then the trials, then the cells; then the report. Everything that is finished stays finished:
`--resume` begins at the first run that has no result.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from embodichain.app.config import RunConfig, load_config
from embodichain.app.launch import check_mlflow
from embodichain.app.placement import demands
from embodichain.app.settings import ConfigError, check_writable
from embodichain.app.sweep import report
from embodichain.app.sweep.cells import Cell, Planner, SweepPlan, as_overrides
from embodichain.app.sweep.cluster import check_output, make_runner
from embodichain.app.sweep.config import SweepConfig, beside, load_sweep
from embodichain.app.sweep.expect import check_supply, expectation, table
from embodichain.app.sweep.folder import SweepFolder
from embodichain.app.sweep.process import Job
from embodichain.app.sweep.record import SweepRecord
from embodichain.app.sweep.schedule import Event, Item, Runner, Schedule, side_by_side
from embodichain.app.sweep.show import SweepView, duration
from embodichain.app.sweep.tune import choose

INTERRUPTED = 130
WIDE = 120  # of a table that goes to a file or a pipe


def launch(path: str, overrides: Sequence[str], *, dry_run: bool) -> int:
    """Start a new sweep, or say what it would be; the exit code. Raises `ConfigError` before anything starts."""
    config = load_sweep(path, overrides)
    base = beside(path, config.base)
    archives = {name: SweepFolder(Path(config.output) / config.name).archive(name) for name in config.prepare}
    plan = Planner(config, base, archives).plan()
    check_supply(plan.cells, {name: each.pairs for name, each in config.prepare.items()}, config.expect)
    if dry_run:
        return _show(config, plan)
    if config.plan:
        report.check_plan(beside(path, config.plan))
        if config.plan_committed:
            check_committed(beside(path, config.plan))
    check_writable("output", config.output)
    check_output(config.output)
    check_mlflow(replace(common(config, base), output=config.output))
    runner = make_runner(config, _largest(plan))
    folder = SweepFolder.create(config, Path(path))
    return Sweep(folder, load_sweep(folder.sweep), runner).execute()


def resume(name: str, *, retry_failed: bool) -> int:
    """Go on with a sweep; returns the exit code. Raises `ConfigError` if there is none, or another process has it."""
    folder, config = SweepFolder.open(name)
    planner = Planner(config, folder.base, {each: folder.archive(each) for each in config.prepare})
    check_mlflow(replace(common(config, folder.base), output=str(folder.path.parent)))
    runner = make_runner(config, _largest(planner.plan()))
    return Sweep(folder, config, runner, retry_failed=retry_failed).execute()


def common(config: SweepConfig, base: Path) -> RunConfig:
    """The base run with the record that `set` gives all cells: the parent's is the same."""
    return load_config(
        base, as_overrides({key: value for key, value in config.set.items() if key.startswith("mlflow.")})
    )


def check_committed(plan: Path) -> None:
    """An analysis plan must be committed as it stands, where there is a repository. Raises `ConfigError`."""
    git = ["git", "-C", str(plan.parent)]
    inside = subprocess.run([*git, "rev-parse"], capture_output=True, check=False)
    if inside.returncode:
        return  # in the working directory of a cluster's job there is none; the plan's hash is kept all the same
    tracked = subprocess.run([*git, "ls-files", "--error-unmatch", plan.name], capture_output=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", plan.name], capture_output=True, text=True, check=False)
    if tracked.returncode or changed.stdout.strip():
        raise ConfigError(
            f"plan={plan}: not committed as it stands; expected the analysis plan in the history before the first run "
            "(git commit it, or plan_committed=false for a try)"
        )


def shown_path(path: Path) -> str:
    """Relative to the working directory if it lies there; a job's is deleted, so what lies elsewhere is named whole."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _largest(plan: SweepPlan) -> Job:
    jobs = [
        Job(name=cell.name, arguments=(), log=Path(), **_size(cell.config))
        for cell in (*plan.prepare, *plan.trials, *plan.cells)
    ]
    return max(jobs, key=lambda job: (job.gpus, job.cpus))


def _size(config: RunConfig) -> dict[str, float]:
    """CPUs and GPUs that a run's processes take together."""
    wanted = demands(config)
    return {"cpus": sum(d.count * d.cpus for d in wanted), "gpus": sum(d.count * d.gpus for d in wanted)}


def _show(config: SweepConfig, plan: SweepPlan) -> int:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    total, together = 0.0, config.parallel or 1
    for cells, title in (
        (plan.prepare, "made first"),
        (plan.trials, "trials"),
        (plan.cells, f"cells of {config.name}"),
    ):
        if cells:
            console.print(table(cells, config.expect, title))
            total += side_by_side([expectation(cell, config.expect).minutes for cell in cells], together)
    how = "one after the other" if together == 1 else f"{together} at a time"
    console.print(
        f"{len(plan.prepare) + len(plan.trials) + len(plan.cells)} runs, about {duration(60 * total)} {how} "
        "at the rates under `expect`; nothing was started"
    )
    return 0


class Sweep:
    """One start of one sweep.

    Args:
        folder, config: the sweep.
        runner: where its runs go.
        retry_failed: run failed cells again.
    """

    def __init__(self, folder: SweepFolder, config: SweepConfig, runner: Runner, *, retry_failed: bool = False) -> None:
        folder.hold()
        self.folder, self.config, self.runner = folder, config, runner
        self.planner = Planner(config, folder.base, {name: folder.archive(name) for name in config.prepare})
        self.journal = folder.journal()
        self.plan_hash = folder.plan_hash(config)
        self.view = SweepView(Console())
        self.stop_requested = False
        self._interrupts = 0
        self._cells: dict[str, Cell] = {}
        if retry_failed:
            for entry in self.journal.entries.values():
                entry.anew, entry.failed = bool(entry.failed), ""
        place = (str(folder.path.parent), folder.path.name)
        try:
            self.record = SweepRecord(
                common(config, folder.base).mlflow, *place, self.journal.mlflow_run_id, self._params()
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.journal.mlflow_run_id = self.record.run_id

    def execute(self) -> int:
        """All stages; returns the exit code: 0 all finished, 1 something failed, 130 interrupted."""
        handlers = {each: signal.signal(each, self._on_signal) for each in (signal.SIGINT, signal.SIGTERM)}
        self._started, self._before = time.monotonic(), self.journal.wall_seconds
        self.journal.starts += 1
        self.folder.write_journal(self.journal)
        try:
            with self.view:
                status = self._stages()
        except BaseException:
            self.record.finish("failed")
            raise
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)
            self._write_journal()
        if status == "stopped":
            self.record.finish("stopped")
            shown = shown_path(self.folder.path)
            self.view.console.print(f"\nstopped. Go on with:  [bold]embodichain sweep --resume {shown}[/bold]")
            return INTERRUPTED
        return self._finish()

    def _stages(self) -> str:
        """Preparations, trials, cells; `done`, or `stopped` if it was interrupted."""
        plan = self.planner.plan()
        if not self._stage("episodes made first", plan.prepare):
            return "stopped"
        self._check_prepared(plan)
        if not self._stage("trials", [self.planner.checked(cell) for cell in plan.trials]):
            return "stopped"
        kept = {cell.group for cell in plan.cells if self._result(cell)}  # a trial that is repeated changes no result
        self.journal.choices = {
            group: self.journal.choices.get(group, choice) if group in kept else choice
            for group, choice in choose(plan.trials, self.folder, self.config.tune).items()
        }
        self.folder.write_journal(self.journal)
        self.cells = [
            self.planner.tuned(cell, self.journal.choices.get(cell.group, {}).get("settings", {}))
            for cell in plan.cells
        ]
        return "done" if self._stage("cells", self.cells) else "stopped"

    def _check_prepared(self, plan: SweepPlan) -> None:
        """Cells need every archive: `RuntimeError` for one whose making failed, `ConfigError` for one too small."""
        from embodichain.archive import Archive

        for cell in plan.prepare:
            entry = self.journal.entry(cell.name)
            if entry.failed:
                shown = shown_path(self.folder.path)
                raise RuntimeError(f"{cell.name}: {entry.failed}; embodichain sweep --resume {shown} --retry-failed")
        held = {
            name: sum(entry.pairs for entry in Archive.open(str(self.folder.archive(name))).entries())
            for name in self.config.prepare
        }
        check_supply(plan.cells, held, self.config.expect)

    def _stage(self, name: str, cells: Sequence[Cell]) -> bool:
        """Run what of `cells` has neither a result nor failed; False if it was stopped."""
        if not cells:
            return True
        self._cells = {cell.name: cell for cell in cells}
        rest = [cell for cell in cells if not self._result(cell) and not self.journal.entry(cell.name).failed]
        self.view.stage(name, len(cells), len(cells) - len(rest))
        items = [
            Item(
                name=cell.name,
                minutes=expectation(cell, self.config.expect).minutes,
                prepare=partial(self._job, cell),
                finished=partial(self._verdict, cell),
            )
            for cell in rest
        ]
        self.schedule = Schedule(items, self.runner, self._tell, lambda: self.stop_requested)
        return self.schedule.run()

    def _result(self, cell: Cell) -> dict[str, Any] | None:
        return None if self.folder.shortfall(cell) else self.folder.summary(cell)

    def _verdict(self, cell: Cell) -> str:
        """Why a cell whose process ended well has no result; empty if it has."""
        if self.folder.summary(cell) is None:
            return "it ended without a summary that says done"
        return self.folder.shortfall(cell)

    def _job(self, cell: Cell) -> Job:
        """Right before a cell starts: a fresh place, or its own one to go on in."""
        entry = self.journal.entry(cell.name)
        left = self.folder.run(cell)
        # What an archive holds is worth keeping, whyever its making was cut short.
        resumed = cell.kind == "prepare" or (self.config.interrupted == "resume" and not entry.anew)
        goes_on = resumed and any(left.glob("checkpoints/step_*"))
        if not goes_on:
            if cell.kind == "prepare":
                shutil.rmtree(cell.config.archive.path, ignore_errors=True)
            superseded = self.folder.set_aside(cell, entry.attempts)
            if superseded:
                self.record.discard(superseded)
        entry.attempts, entry.anew = entry.attempts + 1, False
        self.folder.write_journal(self.journal)
        size = _size(cell.config)
        path = self.folder.write_config(
            cell,
            mlflow=self.record.child(cell.config.mlflow, cell.labels),
            ray=replace(cell.config.ray, cpus=cell.config.ray.cpus or max(1.0, -(-size["cpus"] // 1))),
        )
        arguments = ("run", "--resume", str(left)) if goes_on else ("run", str(path))
        return Job(name=cell.name, arguments=arguments, log=self.folder.log(cell), **size)

    def _tell(self, event: Event) -> None:
        entry = self.journal.entry(event.name)
        if event.what == "failed":
            entry.failed = event.reason
        elif event.what == "finished":
            entry.seconds = event.seconds
        if event.what in ("finished", "failed"):
            self.folder.write_cell(self._cells[event.name], self.plan_hash, failed=event.reason)
        self._write_journal()
        self.view.event(event, self.schedule.seconds_left())

    def _write_journal(self) -> None:
        """With the wall time so far: a sweep may be killed before its end."""
        self.journal.wall_seconds = self._before + time.monotonic() - self._started
        self.folder.write_journal(self.journal)

    def _on_signal(self, *_: object) -> None:
        """The first one stops cleanly, a second one at once."""
        self._interrupts += 1
        self.stop_requested = True
        if self._interrupts > 1:
            raise KeyboardInterrupt

    def _publish(self, results: report.Results) -> None:
        from mlflow.exceptions import MlflowException

        try:
            report.publish(self.folder, self.record, results)
        except (MlflowException, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            self.view.console.print(f"MLflow has no report of this sweep: {reason}", style="yellow", markup=False)

    def _params(self) -> dict[str, Any]:
        settings = {"arms": ", ".join(self.config.arms), "seeds": list(self.config.seeds), "grid": self.config.grid}
        return {"purpose": self.config.purpose, **settings, "set": self.config.set, "plan_hash": self.plan_hash}

    def _finish(self) -> int:
        """The report, the parent's record, and a word on what failed."""
        failed = {cell.name: self.journal.entry(cell.name).failed for cell in self.cells}
        failed = {name: reason for name, reason in failed.items() if reason}
        for cell in self.cells:
            if self._result(cell):
                self.folder.write_cell(cell, self.plan_hash)
        results = [(cell, summary) for cell in self.cells if (summary := self._result(cell))]
        console = self.view.console
        if results:
            report.write(self.folder, self.config, self.journal, results, failed)
            self._publish(results)
        if not self.record.finish("failed" if failed else "done"):
            console.print("[yellow]MLflow[/yellow] is incomplete: the tracking store could not be written to the end")
        for name, reason in failed.items():
            console.print(f"failed: {name}: {reason}", style="red", markup=False, soft_wrap=True)
        shown = shown_path(self.folder.path)
        if failed:
            console.print(
                f"{len(failed)} of {len(self.cells)} cells failed; embodichain sweep --resume {shown} --retry-failed"
            )
        if self.folder.report.exists():
            console.print(f"[bold]{shown_path(self.folder.report)}[/bold]: what came out")
        return 1 if failed else 0
