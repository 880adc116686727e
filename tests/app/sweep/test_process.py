"""A cell's process: what its end means, and that it never outlives the sweep."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from embodichain.app.sweep.process import Job, LocalRunner, outcome_of

ROOT = Path(__file__).parents[3]


def wait_for(condition, seconds: float = 60.0):
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        if (value := condition()) is not None and value is not False:
            return value
        time.sleep(0.05)
    raise AssertionError("nothing happened")


def test_a_failing_process_says_why_in_its_last_line(tmp_path):
    attempt = LocalRunner().start(Job(name="a", arguments=("sweep",), log=tmp_path / "a.txt"))
    outcome = wait_for(attempt.poll)
    assert outcome.reason.startswith("exit code 2: embodichain: sweep: expected a configuration")
    assert not outcome.lost
    assert outcome.seconds > 0


def test_a_killed_process_is_named_by_its_signal(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("learning\n\n")
    assert outcome_of(-signal.SIGKILL, log, 1.0).reason == "killed by SIGKILL: learning"
    assert outcome_of(0, log, 1.0).reason == ""
    assert outcome_of(1, tmp_path / "none.txt", 1.0).reason == "exit code 1: it printed nothing"


def test_cells_die_with_a_sweep_that_is_killed(tmp_path):
    package = tmp_path / "embodichain"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    sweep = tmp_path / "sweep.py"
    sweep.write_text(
        textwrap.dedent(f"""
            import sys, time
            from pathlib import Path
            sys.path.insert(0, {str(ROOT)!r})
            from embodichain.app.sweep.process import Job, LocalRunner
            LocalRunner().start(Job(name="a", arguments=(), log=Path("log.txt")))
            time.sleep(600)
        """)
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    parent = subprocess.Popen([sys.executable, str(sweep)], cwd=tmp_path, env=environment)
    try:
        pid = int(wait_for(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text()))
        parent.kill()
        parent.wait()
        wait_for(lambda: not alive(pid))
    finally:
        parent.kill()


def alive(pid: int) -> bool:
    """Whether a process of that id runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
