"""What a sweep leaves behind: the report of the law library, how the sweep ran, and both in MLflow.

Owns: the section on how it ran (what was made first, what was tuned, what failed, what it cost), the choice of the
winning cell, and which files go where.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embodichain.app.folder import RunFolder
from embodichain.app.settings import ConfigError
from embodichain.app.sweep.cells import Cell
from embodichain.app.sweep.config import SweepConfig
from embodichain.app.sweep.folder import Journal, SweepFolder
from embodichain.app.sweep.record import SweepRecord
from embodichain.app.sweep.show import duration

Results = Sequence[tuple[Cell, Mapping[str, Any]]]


def check_plan(path: Path) -> None:
    """An analysis plan must be one. Raises `ConfigError`."""
    from embodichain.law.cell import LawError
    from embodichain.law.plan import load_plan

    try:
        load_plan(path)
    except LawError as error:
        raise ConfigError(str(error)) from error


def how_it_ran(
    folder: SweepFolder, config: SweepConfig, journal: Journal, results: Results, failed: Mapping[str, str]
) -> Iterator[str]:
    """Lines of Markdown: everything about the sweep that is not in its cells."""
    yield "## How the sweep ran"
    yield ""
    yield f"{len(results)} of {len(results) + len(failed)} cells finished, in {journal.starts} start(s) of the sweep."
    for name, reason in failed.items():
        yield f"- failed and left out: `{name}`: {reason}"
    ran = sum(entry.seconds for entry in journal.entries.values())
    yield (
        f"- wall time of the sweep's stages {duration(journal.wall_seconds)}, finished runs one by one {duration(ran)}"
        + (f": {journal.wall_seconds / ran:.3f} times as long" if ran else "")
        + (f", with {config.parallel} at a time" if (config.parallel or 1) > 1 else "")
    )
    for name, wanted in config.prepare.items():
        spent = journal.entry(f"prepare-{name}").seconds
        yield (
            f"- episodes of `{name}` ({wanted.pairs:,} pairs at least) were made once, in {duration(spent)}, and read "
            "from the archive by every cell that says `prepared:"
            + name
            + "`. In each run an episode is fresh once; its "
            "share of the core-seconds that the archive cost is part of that run's (`core_seconds.archived`)."
        )
    if journal.choices:
        each = {len(choice["trials"]) for choice in journal.choices.values()}
        yield f"- every group had the same {each.pop()} trial(s), scored by held-out error over `tune` seeds:"
        for group, choice in journal.choices.items():
            tried = ", ".join(f"{t['settings']} {_number(t['error'])}" for t in choice["trials"])
            yield f"  - `{group or 'all'}`: {tried}; chosen {choice['settings'] or 'its own settings'}"
    seeds = ", ".join(str(seed) for seed in config.seeds)
    yield f"- interrupted cells: `{config.interrupted}`; run seeds {seeds}; the same evaluation seeds in all cells"
    yield ""


def write(
    folder: SweepFolder, config: SweepConfig, journal: Journal, results: Results, failed: Mapping[str, str]
) -> None:
    """`report.md`, `report.json` and figures in the sweep's folder."""
    written = write_law(folder, config, results, failed)
    text = folder.report.read_text() if written is None else f"# {config.name}\n\n{written}\n"
    text += "\n" + "\n".join([config.purpose, "", *how_it_ran(folder, config, journal, results, failed)])
    folder.report.write_text(text)


def write_law(folder: SweepFolder, config: SweepConfig, results: Results, failed: Mapping[str, str]) -> str | None:
    """Let the law library write its report of all cells, failed ones too; otherwise the reason why there is none."""
    if not config.plan:
        return "This sweep has no analysis plan: `embodichain law fit` analyses its runs with one."
    from embodichain.law import Cell as LawCell
    from embodichain.law import LawError, analyse, read_cells, write_report
    from embodichain.law.plan import load_plan

    try:
        cells = read_cells([folder.run(cell) for cell, _ in results])
        cells += [LawCell(name=name, path=str(folder.path / name), status="failed") for name in failed]
        write_report(analyse(cells, load_plan(folder.path / config.plan)), folder.path)
    except LawError as error:
        return f"No analysis: {error}"
    return None


def publish(folder: SweepFolder, record: SweepRecord, results: Results) -> None:
    """Curve, files and the winner into MLflow."""
    record.curve([(cell.curve, json.dumps(cell.levels), summary) for cell, summary in results])
    files: list[tuple[Path, str | None]] = [(folder.sweep, None), (folder.base, None)]
    files += [(path, None) for path in sorted(folder.path.glob("report.*")) + sorted(folder.path.glob("plan.*"))]
    files += [(path, "figures") for path in sorted((folder.path / "figures").glob("*"))]
    record.attach(files)
    cell, summary = winner(folder, results)
    run, config, _ = RunFolder.open(folder.run(cell))
    checkpoint = run.latest_checkpoint()
    if checkpoint and Path(checkpoint).is_dir():
        error, unit = summary["heldout_error"].get("last"), summary["heldout_error"].get("unit", "")
        why = f"{cell.name}: the sweep's best, held-out error {_number(error)} {unit}, encoder {config.encoder.name}"
        record.register(str(summary["mlflow_run_id"]), Path(checkpoint), why)


def winner(folder: SweepFolder, results: Results) -> tuple[Cell, Mapping[str, Any]]:
    """The best cell by the plan's metric; held-out error without a plan, and among cells of equal success."""
    from embodichain.law.plan import load_plan

    plans = sorted(folder.path.glob("plan.*"))
    by_success = bool(plans) and load_plan(plans[0]).metric == "success"

    def rank(result: tuple[Cell, Mapping[str, Any]]) -> tuple[float, float]:
        rates = [row["rate"] for row in result[1].get("success", ())] if by_success else []
        return -sum(rates) / max(1, len(rates)), result[1]["heldout_error"].get("last", float("inf"))

    return min(results, key=rank)


def _number(value: float | None) -> str:
    return "failed" if value is None else f"{value:.4g}"
