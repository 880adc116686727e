"""Puts the doctor's checks together and shows them, as a table for people or as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodichain.doctor import checks
from embodichain.doctor.checks import Check
from embodichain.doctor.children import ask
from embodichain.doctor.machine import installed_packages, look_at_machine, pinned_packages

_ROOT = Path(__file__).resolve().parents[2]
_TOPICS = ("physics", "torch", "mlflow", "ray", "renderer", "vulkan")


def examine(runs: Path, *, render_frame: bool = False) -> list[Check]:
    """Looks at everything; about 10 s on two cores.

    Args:
        runs: The folder that runs are written to; need not exist.
        render_frame: Also render a test frame, up to 20 s more on a CPU.
    """
    topics = (*_TOPICS, "frame") if render_frame else _TOPICS
    with ThreadPoolExecutor(max_workers=2) as pool:
        answers = dict(zip(topics, pool.map(ask, topics), strict=True))
    machine = look_at_machine(runs)
    installed = installed_packages()
    found = [
        checks.check_python(sys.version_info[:3]),
        checks.check_torch(answers["torch"]),
        checks.check_gpu(answers["torch"], has_nvidia_device=machine.has_nvidia_device),
        checks.check_physics(answers["physics"]),
        checks.check_vulkan(answers["vulkan"]),
        checks.check_renderer(answers["renderer"]),
        checks.check_package("Ray", answers["ray"]),
        checks.check_package("MLflow", answers["mlflow"]),
        checks.check_cores(machine),
        checks.check_memory(machine),
        checks.check_shm(machine),
        checks.check_disk(machine),
        checks.check_versions(installed, pinned_packages(_ROOT / "constraints.txt")),
        checks.check_namesake(installed),
        checks.check_mplib(installed),
    ]
    return [*found, checks.check_frame(answers["frame"])] if render_frame else found


def as_table(found: Sequence[Check]) -> Table:
    """One row per check: ok, or fix-it with what to do."""
    table = Table(title="embodichain doctor", title_justify="left")
    for column in ("", "what", "found"):
        table.add_column(column, overflow="fold")
    for check in found:
        mark = "[green]ok[/]" if check.ok else "[red]fix-it[/]" if check.essential else "[yellow]fix-it[/]"
        text = check.detail if check.ok else f"{check.detail}\n→ {check.fix}"
        table.add_row(mark, check.name, escape(text))
    return table


def verdict(found: Sequence[Check]) -> str:
    """The closing line."""
    broken = [check.name for check in found if not check.ok and check.essential]
    lesser = [check.name for check in found if not check.ok and not check.essential]
    if broken:
        return f"Not ready: {', '.join(broken)}."
    return f"Ready, but see: {', '.join(lesser)}." if lesser else "Ready."


def run_doctor(json_output: bool = False, *, runs: Path = Path("runs"), render_frame: bool = False) -> int:
    """`embodichain doctor`: prints the report on standard output.

    Args:
        json_output: Print the same rows as one JSON list, and nothing else.
        runs: The folder that runs are written to.
        render_frame: Also render a test frame.

    Returns:
        The exit code: 0 if everything essential is ok, else 1.
    """
    with Console(stderr=True).status("looking at drivers and packages, about 10 s"):
        found = examine(runs, render_frame=render_frame)
    if json_output:
        print(json.dumps([asdict(check) for check in found], indent=2))
    else:
        console = Console()
        console.print(as_table(found))
        console.print(verdict(found), markup=False)
    return 0 if all(check.ok for check in found if check.essential) else 1
