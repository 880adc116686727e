"""Asks the questions of `probe` in child processes, so that a crash or a hang there is an answer and not an end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """The answer of one child.

    Attributes:
        ok: It exited 0 with facts.
        facts: What it found out (see the probe's own docstring); empty unless `ok`.
        error: Why not, in one line; empty if `ok`.
    """

    ok: bool
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def ask(topic: str, *, timeout_s: float = 90.0) -> ProbeResult:
    """Answers one topic of `embodichain.doctor.probe` in a child process.

    Args:
        topic: A key of `probe.TOPICS`.
        timeout_s: After this many seconds the child is killed, and the answer is "no".
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "embodichain.doctor.probe", topic]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return ProbeResult(ok=False, error=f"no answer within {timeout_s:.0f} s")
    return read_answer(done.returncode, done.stdout, done.stderr)


def read_answer(returncode: int, stdout: str, stderr: str) -> ProbeResult:
    """Reads what a child left behind: its facts, or one line that says how it ended."""
    if returncode < 0:
        return ProbeResult(ok=False, error=f"the process was ended by {signal.Signals(-returncode).name}")
    if returncode > 0:
        lines = [line.strip() for line in stderr.splitlines() if line.strip()]
        return ProbeResult(ok=False, error=lines[-1] if lines else f"exit code {returncode}")
    lines = stdout.strip().splitlines()
    try:
        facts = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        return ProbeResult(ok=False, error="the process gave no readable answer")
    return ProbeResult(ok=True, facts=facts)


def renderer_available(*, timeout_s: float = 60.0) -> tuple[bool, str]:
    """Can SAPIEN render on this machine? Asked in a child process, 1 to 3 s; the caller keeps the answer.

    Returns:
        Whether it can, and the device's name or else the reason, in one line.
    """
    answer = ask("renderer", timeout_s=timeout_s)
    if not answer.ok:
        return False, answer.error
    vulkan = ask("vulkan", timeout_s=timeout_s)
    names = [f"{device['name']}, {device['driver_version']}" for device in vulkan.facts.get("devices", ())]
    return True, names[0] if names else answer.facts["device"]
