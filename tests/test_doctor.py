"""The doctor: its judgements on made-up facts, its children on this machine, and its two outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embodichain.doctor import checks, machine, report
from embodichain.doctor.checks import Check
from embodichain.doctor.children import ProbeResult, ask, read_answer, renderer_available

LAVAPIPE = {"name": "llvmpipe", "type": "CPU", "driver": "llvmpipe", "driver_version": "Mesa 25.0.7-2 (LLVM 15.0.6)"}
GOOD_MACHINE = machine.Machine(
    cores=2,
    memory_gib=16,
    memory_free_gib=12,
    shm_free_gib=8,
    runs_folder="runs",
    runs_writable=True,
    disk_free_gib=50,
    has_nvidia_device=False,
)
ANSWERS: dict[str, dict[str, Any]] = {
    "torch": {"version": "2.13.0+cpu", "threads": 2, "cpu": "AVX512", "cuda_build": None, "gpus": []},
    "physics": {"mani_skill": "3.0.1", "sapien": "3.0.3"},
    "vulkan": {"devices": [LAVAPIPE]},
    "renderer": {"device": "llvmpipe"},
    "frame": {"rgb": [1.0, 0.0, 0.0]},
    "ray": {"version": "2.60.0"},
    "mlflow": {"version": "3.17.2"},
}


def yes(**facts: object) -> ProbeResult:
    return ProbeResult(ok=True, facts=facts)


NO = ProbeResult(ok=False, error="ImportError: broken")


@pytest.mark.parametrize(
    ("version", "ok"), [((3, 11, 7), True), ((3, 12, 1), True), ((3, 10, 9), False), ((3, 13, 0), False)]
)
def test_python(version: tuple[int, int, int], ok: bool) -> None:
    check = checks.check_python(version)
    assert check.ok is ok
    assert bool(check.fix) is not ok


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ("Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6)", (25, 0)),
        ("Mesa 24.3-rc1", (24, 3)),
        ("Mesa 22.3.6", (22, 3)),
        ("570.86.15", None),
        ("", None),
    ],
)
def test_mesa_version(info: str, version: tuple[int, int] | None) -> None:
    assert checks.mesa_version(info) == version


def test_an_old_mesa_is_named_with_what_to_do() -> None:
    check = checks.check_vulkan(yes(devices=[LAVAPIPE | {"driver_version": "Mesa 22.3.6"}]))
    assert not check.ok
    assert not check.essential
    assert "24.3" in check.fix


def test_another_vendors_driver_is_not_measured_by_mesas_version() -> None:
    assert checks.check_vulkan(yes(devices=[LAVAPIPE | {"driver_version": "570.86.15"}])).ok


def test_no_renderer_leaves_a_run_possible_and_no_physics_does_not() -> None:
    assert not checks.check_renderer(NO).essential
    assert "state-only" in checks.check_renderer(NO).detail
    assert checks.check_physics(NO).essential
    assert "install_renderer" in checks.check_physics(ProbeResult(ok=False, error="libX11.so.6: cannot open")).fix


def test_a_gpu_that_torch_does_not_use_is_a_fix_it() -> None:
    cpu_build = yes(**ANSWERS["torch"])
    assert checks.check_gpu(cpu_build, has_nvidia_device=False).ok
    idle = checks.check_gpu(cpu_build, has_nvidia_device=True)
    assert not idle.ok
    assert "TORCH=auto" in idle.fix
    used = yes(**(ANSWERS["torch"] | {"gpus": [{"name": "H200", "gib": 139.8, "bf16": True}]}))
    assert "H200" in checks.check_gpu(used, has_nvidia_device=True).detail


@pytest.mark.parametrize(
    ("judge", "change", "essential"),
    [
        (checks.check_cores, {"cores": 1.0}, False),
        (checks.check_memory, {"memory_free_gib": 1.0}, False),
        (checks.check_shm, {"shm_free_gib": 0.06}, False),
        (checks.check_disk, {"disk_free_gib": 0.5}, True),
        (checks.check_disk, {"runs_writable": False}, True),
    ],
)
def test_machine_limits(judge, change: dict[str, Any], essential: bool) -> None:
    assert judge(GOOD_MACHINE).ok
    check = judge(replace(GOOD_MACHINE, **change))
    assert not check.ok
    assert check.fix
    assert check.essential is essential


def test_versions_are_compared_by_normalised_name(tmp_path: Path) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text("# a comment\nFarama_Notifications==0.0.6\nnumpy==2.4.6  # why\n", encoding="utf-8")
    pinned = machine.pinned_packages(path)
    assert pinned == {"farama-notifications": "0.0.6", "numpy": "2.4.6"}
    assert checks.check_versions({"numpy": "2.4.6", "other": "1"}, pinned).ok
    wrong = checks.check_versions({"numpy": "1.26.4"}, pinned)
    assert not wrong.ok
    assert "numpy 1.26.4 (tested: 2.4.6)" in wrong.detail
    assert checks.check_versions({"numpy": "1"}, machine.pinned_packages(tmp_path / "none.txt")).ok


def test_the_namesake_is_an_essential_fault() -> None:
    assert checks.check_namesake({"embodichain-online": "0.1.0"}).ok
    check = checks.check_namesake({"embodichain-online": "0.1.0", "embodichain": "0.3"})
    assert not check.ok
    assert check.essential


def test_machine_facts_of_this_machine(tmp_path: Path) -> None:
    here = machine.look_at_machine(tmp_path / "not" / "yet")
    assert here.cores > 0
    assert 0 < here.memory_free_gib <= here.memory_gib
    assert here.runs_writable
    assert not (tmp_path / "not").exists()
    assert "numpy" in machine.installed_packages()


def test_a_crash_a_failure_and_a_babble_are_answers() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert read_answer(done.returncode, done.stdout, done.stderr).error == "the process was ended by SIGSEGV"
    assert read_answer(1, "", "Traceback\n  x\nRuntimeError: no device\n").error == "RuntimeError: no device"
    assert read_answer(0, "hello", "").error == "the process gave no readable answer"
    assert read_answer(0, "", "").error == "the process gave no readable answer"
    assert read_answer(0, 'noise\n{"version": "1"}\n', "warning").facts == {"version": "1"}


def test_a_hanging_child_is_ended() -> None:
    answer = ask("torch", timeout_s=0.01)
    assert not answer.ok
    assert "no answer within" in answer.error


def test_real_children_answer() -> None:
    assert ask("torch").facts["version"]
    assert ask("physics").facts["sapien"]


def test_without_a_driver_the_renderer_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path / "none.json"))
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    available, reason = renderer_available()
    assert not available
    assert reason
    assert not checks.check_vulkan(ask("vulkan")).ok


@pytest.mark.render
def test_with_a_driver_a_red_box_comes_out_red() -> None:
    available, name = renderer_available()
    if not available:
        pytest.skip(f"no renderer: {name}")
    assert name
    assert ask("frame").error == ""


@pytest.fixture
def made_up_machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, ProbeResult]:
    """Answers that `examine` gets in place of real ones; tests may change them."""
    answers = {topic: yes(**facts) for topic, facts in ANSWERS.items()}
    monkeypatch.setattr(report, "ask", answers.__getitem__)
    monkeypatch.setattr(report, "look_at_machine", lambda runs: GOOD_MACHINE)
    return answers


def test_json_is_the_only_output(made_up_machine, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert report.run_doctor(json_output=True, runs=tmp_path) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name", "ok", "detail", "fix", "essential"} == set(rows[0])
    assert {"Python", "torch", "Vulkan", "Ray", "MLflow", "disk", "memory", "versions"} <= {row["name"] for row in rows}


def test_the_exit_code_counts_essentials_alone(
    made_up_machine: dict[str, ProbeResult], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made_up_machine["renderer"] = NO
    assert report.run_doctor(runs=tmp_path) == 0
    shown = capsys.readouterr().out
    assert "fix-it" in shown
    assert "Ready, but see: renderer" in shown
    made_up_machine["ray"] = NO
    assert report.run_doctor(runs=tmp_path) == 1
    assert "Not ready: Ray." in capsys.readouterr().out


def test_square_brackets_in_a_detail_are_shown() -> None:
    table = report.as_table([Check(name="x", ok=False, detail="libGL[1]", fix="pip install '.[dev]'")])
    assert r"\[dev]" in str(next(iter(table.columns[2].cells)))
