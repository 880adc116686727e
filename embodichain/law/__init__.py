"""The Efficiency Law from finished runs: cells, fits, controls, and a report that may say that there is none."""

from embodichain.law.cell import Cell, LawError, Protocol, Reading, SuccessRow
from embodichain.law.read import read_cells

__all__ = ["Cell", "LawError", "Protocol", "Reading", "SuccessRow", "read_cells"]
