"""What works on this machine, and what to do about the rest: `embodichain doctor`."""

from embodichain.doctor.checks import Check
from embodichain.doctor.children import ProbeResult, ask, renderer_available
from embodichain.doctor.report import examine, run_doctor

__all__ = ["Check", "ProbeResult", "ask", "examine", "renderer_available", "run_doctor"]
