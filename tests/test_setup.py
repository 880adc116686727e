"""The set-up scripts, run for real against a made-up machine: the commands that they call are recorded stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REAL_TOOLS = ("bash", "sed", "sort", "xargs", "cat", "env", "awk", "dirname", "rm", "grep", "cut", "head")
LIBRARIES = "libX11.so.6\nlibGL.so.1\nlibgthread-2.0.so.0\n"


@dataclass
class FakeMachine:
    """A folder of commands that a script sees as its whole PATH; `log` holds the recorded calls."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        for name in REAL_TOOLS:
            (self.folder / name).symlink_to(shutil.which(name) or name)
        self.command("id", "echo 0")
        self.command("ldconfig", f"printf '{LIBRARIES}'; cat {self.folder}/libvulkan 2>/dev/null || true")
        self.command("dpkg-query", f"cat {self.folder}/mesa 2>/dev/null || exit 1")

    def command(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>{self.folder}/log\n{body}\n', encoding="utf-8")
        path.chmod(0o755)

    def with_mesa(self, version: str) -> None:
        (self.folder / "mesa").write_text(f"installed {version}\n", encoding="utf-8")
        (self.folder / "libvulkan").write_text("libvulkan.so.1\n", encoding="utf-8")

    def with_apt(self, *, candidate: str, installs: str = "25.0.7-2") -> None:
        self.command("apt-cache", f"printf 'mesa:\\n  Candidate: {candidate}\\n'")
        self.command(
            "apt-get",
            f"""case "$*" in
  indextargets*) echo "http://mirror.test/debian bookworm main" ;;
  *install*) echo "installed {installs}" >{self.folder}/mesa; echo libvulkan.so.1 >{self.folder}/libvulkan ;;
esac""",
        )
        self.command("tee", f"cat >{self.folder}/backports")

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.folder), **variables}
        return subprocess.run(
            ["/bin/bash", script], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def renderer(self, *, release: str = "ID=debian\nVERSION_CODENAME=bookworm\n") -> subprocess.CompletedProcess[str]:
        (self.folder / "os-release").write_text(release, encoding="utf-8")
        return self.run(str(ROOT / "scripts/install_renderer.sh"), OS_RELEASE=str(self.folder / "os-release"))

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(encoding="utf-8") if path.exists() else ""


@pytest.fixture
def fake(tmp_path: Path) -> FakeMachine:
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine's own GPU would be found")
    return FakeMachine(tmp_path / "bin")


def test_a_new_enough_mesa_is_left_alone(fake: FakeMachine) -> None:
    fake.with_mesa("1:25.0.7-2~bpo12+1")
    fake.with_apt(candidate="26.0")
    done = fake.renderer()
    assert done.returncode == 0
    assert done.stdout == "renderer: ok: lavapipe of Mesa 1:25.0.7-2~bpo12+1\n"
    assert "apt-get" not in fake.log


@pytest.mark.parametrize("candidate", ["25.0.7-2", "24.3.0-1", "1:26.1~rc1"])
def test_a_release_with_a_new_mesa_needs_no_backports(fake: FakeMachine, candidate: str) -> None:
    fake.with_apt(candidate=candidate)
    done = fake.renderer()
    assert done.returncode == 0
    assert "installed: lavapipe of Mesa 25.0.7-2" in done.stdout
    assert not (fake.folder / "backports").exists()


@pytest.mark.parametrize("candidate", ["22.3.6-1+deb12u1", "24.2.8"])
def test_debian_12_takes_backports_from_the_machines_own_mirror(fake: FakeMachine, candidate: str) -> None:
    fake.with_apt(candidate=candidate)
    done = fake.renderer()
    assert done.returncode == 0, done.stderr
    assert (fake.folder / "backports").read_text() == "deb http://mirror.test/debian bookworm-backports main\n"
    assert "-t bookworm-backports mesa-vulkan-drivers libvulkan1" in fake.log


def test_another_release_with_an_old_mesa_gets_no_debian_backports(fake: FakeMachine) -> None:
    fake.with_apt(candidate="23.2.1")
    done = fake.renderer(release="ID=ubuntu\nVERSION_CODENAME=jammy\n")
    assert done.returncode == 0
    assert "NO RENDERER" in done.stdout
    assert "23.2.1" in done.stdout
    assert "install" not in fake.log


def test_without_apt_the_banner_says_what_works_and_what_to_do(fake: FakeMachine) -> None:
    done = fake.renderer()
    assert done.returncode == 0
    for text in ("NO RENDERER", "no apt", "state-only", "mesa-vulkan-drivers libvulkan1"):
        assert text in done.stdout


def test_without_root_nothing_is_installed(fake: FakeMachine) -> None:
    fake.with_apt(candidate="25.0.7")
    fake.command("id", "echo 1000")
    fake.command("sudo", "exit 1")
    done = fake.renderer()
    assert done.returncode == 0
    assert "needs root" in done.stdout
    assert "install" not in fake.log


def test_a_bare_container_also_gets_the_libraries_of_the_physics(fake: FakeMachine) -> None:
    fake.with_mesa("25.0.7")
    fake.with_apt(candidate="25.0.7")
    fake.command("ldconfig", "echo libvulkan.so.1")
    assert fake.renderer().returncode == 0
    assert "libx11-6 libgl1 libglib2.0-0" in fake.log
    assert "mesa-vulkan-drivers libvulkan1" not in fake.log


@pytest.fixture
def checkout(fake: FakeMachine, tmp_path: Path) -> Path:
    """A checkout whose .venv holds a stand-in interpreter: it has no torch, and its pip knows no +cpu build."""
    root = tmp_path / "checkout"
    (root / "scripts").mkdir(parents=True)
    (root / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/setup.sh", root / "scripts/setup.sh")
    fake.command("fake-python", '[ "$1" != -m ] || exit 1')
    (root / ".venv/bin/python").symlink_to(fake.folder / "fake-python")
    fake.command("fake-uv", "exit 1")
    (root / ".venv/bin/uv").symlink_to(fake.folder / "fake-uv")
    return root


def test_cpu_never_asks_for_any_other_build(fake: FakeMachine, checkout: Path) -> None:
    done = fake.run(str(checkout / "scripts/setup.sh"), TORCH="cpu")
    assert done.returncode == 2
    assert "A CUDA build is never installed instead" in done.stderr
    asked = [line for line in fake.log.splitlines() if "torch==" in line]
    assert len(asked) == 2
    assert asked[0].endswith("torch==2.13.0+cpu")
    assert "--torch-backend=cpu" in asked[1]


def test_a_gpu_build_is_asked_for_by_name(fake: FakeMachine, checkout: Path) -> None:
    done = fake.run(str(checkout / "scripts/setup.sh"), TORCH="cu128")
    assert done.returncode == 2
    assert "TORCH=cu128" in done.stderr
    assert "--torch-backend=cu128" in fake.log


def test_an_unknown_build_is_refused(fake: FakeMachine, checkout: Path) -> None:
    done = fake.run(str(checkout / "scripts/setup.sh"), TORCH="cuda")
    assert done.returncode == 2
    assert done.stderr == "setup: TORCH=cuda: expected cpu, cu126, cu128, cu130 or auto\n"
    assert fake.log == ""


def test_an_unsupported_python_is_named(fake: FakeMachine, checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    fake.command("python3", 'if [ "$1" = --version ]; then echo "Python 3.9.2"; else exit 1; fi')
    done = fake.run(str(checkout / "scripts/setup.sh"))
    assert done.returncode == 2
    assert "Python 3.11 or 3.12 is needed; 'python3' is Python 3.9.2" in done.stderr


def test_the_lerobot_client_needs_a_newer_python_and_says_how_to_name_one(fake: FakeMachine, tmp_path: Path) -> None:
    scripts = tmp_path / "checkout/scripts"
    scripts.mkdir(parents=True)
    shutil.copy(ROOT / "scripts/lerobot_client.sh", scripts)
    fake.command("python3", "exit 1")  # "is this 3.12 or 3.13?" - no
    done = fake.run(str(scripts / "lerobot_client.sh"))
    assert done.returncode == 2
    assert "Python 3.12 or 3.13 is needed" in done.stderr
    assert "LEROBOT_PYTHON=/path/to/python3.12" in done.stderr
    assert not (tmp_path / "checkout/.venv-lerobot").exists()


def test_constraints_pin_no_torch_and_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 100
    assert all("==" in line and "@" not in line and "/" not in line for line in pins)
    assert not [line for line in pins if line.startswith(("torch==", "nvidia-c", "triton"))]
