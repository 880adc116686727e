"""`embodichain law`: the analysis of finished runs, alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodichain.app.settings import ConfigError, check_writable

if TYPE_CHECKING:
    from embodichain.law import Analysis, Plan

TEACH = """\
The Efficiency Law says that performance grows with experience throughput E, the unique state-action pairs per
learner step, and only above a threshold E* that depends on compute and parameters. `law fit` asks finished runs,
in this order, and stops at the first no:

  1. are there enough of them (levels of E, training seeds, span)?      else  insufficient
  2. does E change anything (permutation test, Holm over the groups)?   else  no_effect
  3. does the curve describe what E changes, and do half of the runs
     predict the other half?                                            else  poor_fit
  4. is it throughput rather than the amount of data (matched-D arm,
     or E crossed with steps)?                                          else  data_size, unattributed
  5. is there a threshold E* (hinge against the law without one)?       law, with or without E*

What decides is fixed by an analysis plan, a YAML file that is committed before the first run; its hash stands in
the report, and so does every deviation from it. docs/law.md has the equations, the schema of runs and of plans.

examples:
  embodichain law fit runs/my-sweep --plan configs/sweeps/throughput.plan.yaml
  embodichain law fit runs/a runs/b runs/c --out report
  embodichain law fit --csv others.csv --json
  embodichain law plan                              every key of a plan with its default
  embodichain law rehearse --plan my.plan.yaml      how often a sweep of that shape finds what is there"""


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `law`."""
    law = commands.add_parser(
        "law",
        help="the Efficiency Law from finished runs: fits, controls, a report",
        description="Performance against experience throughput, from any set of finished runs.",
        epilog=TEACH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = law.add_subparsers(dest="part", metavar="PART", required=True)
    fit = parts.add_parser(
        "fit",
        help="analyse runs and write report.md, report.json, figures",
        description="Analyse finished runs and write report.md, report.json and figures (png, svg).",
    )
    fit.add_argument("runs", nargs="*", metavar="RUN", help="folders of runs, or folders that hold them")
    fit.add_argument("--csv", action="append", default=[], metavar="FILE", help="a plain table of runs (docs/law.md)")
    fit.add_argument("--plan", metavar="FILE", help="the analysis plan; default: its defaults, listed as a deviation")
    fit.add_argument("--out", metavar="DIR", default="law-report", help="where the report goes (default: %(default)s)")
    fit.add_argument("--json", action="store_true", help="print report.json, nothing else")
    fit.set_defaults(handler=_fit)
    plan = parts.add_parser("plan", help="print an analysis plan with every key, as YAML")
    plan.add_argument("plan", nargs="?", metavar="FILE", help="a plan to check and complete; default: the defaults")
    plan.set_defaults(handler=_plan)
    rehearse = parts.add_parser(
        "rehearse",
        help="what a plan would conclude in made-up worlds, before a sweep is paid for",
        description="Draw made-up sweeps with known laws and count what the plan concludes of them.",
    )
    rehearse.add_argument("--plan", metavar="FILE")
    rehearse.add_argument("--worlds", nargs="+", default=["null", "data", "power", "hinge"], metavar="WORLD")
    rehearse.add_argument("--levels", type=float, nargs="+", default=[2, 4, 8, 16, 32, 64], metavar="E")
    rehearse.add_argument("--seeds", type=int, default=3, help="training seeds per cell (default: %(default)s)")
    rehearse.add_argument("--sigma", type=float, default=0.05, help="noise of log error between seeds")
    rehearse.add_argument("--sweeps", type=int, default=20, help="made-up sweeps per world (default: %(default)s)")
    rehearse.add_argument("--json", action="store_true")
    rehearse.set_defaults(handler=_rehearse)


def _fit(arguments: argparse.Namespace) -> int:
    from embodichain.law import LawError, analyse, read_cells, write_report
    from embodichain.law.csv_table import read_csv
    from embodichain.law.report_data import as_data

    check_writable("--out", arguments.out)
    try:
        cells = read_cells(arguments.runs) if arguments.runs or not arguments.csv else []
        for path in arguments.csv:
            cells += read_csv(path)
        analysis = analyse(cells, _load_plan(arguments.plan))
    except LawError as error:
        raise ConfigError(str(error)) from error
    try:
        report = write_report(analysis, arguments.out)
    except OSError as error:
        raise RuntimeError(f"--out={arguments.out}: cannot be written ({error.strerror or error})") from error
    if arguments.json:
        print(json.dumps(as_data(analysis)))
    else:
        _show(analysis, report)
    return 0


def _load_plan(path: str | None) -> Plan:
    from embodichain.law import Plan, load_plan

    return Plan(name="without a plan") if path is None else load_plan(path)


def _plan(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    import yaml

    from embodichain.law import LawError

    try:
        plan = _load_plan(arguments.plan)
    except LawError as error:
        raise ConfigError(str(error)) from error
    tree = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(plan).items()}
    print(f"# hash {plan.hash()}; what each key means: docs/law.md")
    print(yaml.safe_dump(tree, sort_keys=False), end="")
    return 0


def _show(analysis: Analysis, report: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if analysis.verdict is not None:
        questions = Table("", "question", "answer", title=analysis.verdict.headline, title_justify="left")
        for each in analysis.verdict.criteria:
            questions.add_row("[green]yes[/green]" if each.met else "[red]no[/red]", each.name, each.detail)
        console.print(questions)
    for table in analysis.tables:
        shown = Table("", *table.columns, title=table.name.replace("_", " "))
        for row in table.rows:
            rates = [table.rates.get((row, column)) for column in table.columns]
            shown.add_row(row, *("-" if rate is None else f"{100 * rate.k / rate.n:.0f} %" for rate in rates))
        console.print(shown)
    admitted = analysis.admitted
    console.print(f"{len(admitted.cells)} runs, {len(admitted.exclusions)} left out, plan {analysis.plan.hash()}")
    for line in analysis.deviations:
        console.print(f"[yellow]deviation[/yellow] {line}", highlight=False)
    console.print(f"{report}  report.json  figures/", highlight=False)


def _rehearse(arguments: argparse.Namespace) -> int:
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from embodichain.law import LawError, analyse
    from embodichain.law.fakes import WORLDS, Sweep, synthetic_cells
    from embodichain.law.verdict import HEADLINES

    unknown = [world for world in arguments.worlds if world not in WORLDS]
    if unknown:
        raise ConfigError(f"--worlds {unknown[0]}: expected some of {', '.join(WORLDS)}")
    rows: list[dict[str, Any]] = []
    try:
        plan = _load_plan(arguments.plan)
        for world in arguments.worlds:
            shape = Sweep(
                world=world, levels=arguments.levels, seeds=arguments.seeds, sigma=arguments.sigma, shares=plan.shares
            )
            found = [analyse(synthetic_cells(shape, seed), plan).verdict for seed in range(arguments.sweeps)]
            counts = Counter(verdict.name for verdict in found if verdict is not None)
            stars = sum(bool(verdict.threshold_groups) for verdict in found if verdict is not None)
            rows.append({"world": world, "n": arguments.sweeps, **{n: counts[n] for n in HEADLINES}, "E_star": stars})
    except LawError as error:
        raise ConfigError(str(error)) from error
    if arguments.json:
        print(json.dumps(rows))
        return 0
    table = Table(*rows[0], title=f"verdicts of {arguments.sweeps} made-up sweeps per world")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    return 0
