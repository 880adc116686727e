"""The Efficiency Law from finished runs: cells, fits, controls, and a report that may say that there is none."""

from embodichain.law.analysis import Analysis, analyse
from embodichain.law.cell import Cell, LawError, Protocol, Reading, SuccessRow
from embodichain.law.plan import Plan, load_plan, plan_from
from embodichain.law.read import read_cells
from embodichain.law.report import write_report

__all__ = [
    "Analysis",
    "Cell",
    "LawError",
    "Plan",
    "Protocol",
    "Reading",
    "SuccessRow",
    "analyse",
    "load_plan",
    "plan_from",
    "read_cells",
    "write_report",
]
