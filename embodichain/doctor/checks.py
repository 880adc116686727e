"""The judgements of `embodichain doctor`: each is a pure function from facts to one `Check`.

Facts come from `children` (drivers and packages) and `machine` (files of the operating system); nothing here asks the
machine itself, so that each judgement is tested on made-up facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embodichain.doctor.children import ProbeResult
from embodichain.doctor.machine import Machine

MIN_CORES = 2
MIN_MEMORY_GIB = 6.0
MIN_DISK_GIB = 3.0
MIN_SHM_GIB = 1.0
MIN_MESA = (24, 3)
PYTHON_VERSIONS = ((3, 11), (3, 12))
_SETUP_AGAIN = "remove .venv and run: make setup"
_INSTALL_RENDERER = "run: make setup (as root, or see what scripts/install_renderer.sh prints)"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was looked at.
        ok: Whether it is as it should be.
        detail: What was found.
        fix: What to do about it; empty if `ok`.
        essential: Without it `embodichain run` cannot work; otherwise something smaller is missing.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""
    essential: bool = True


def _judge(name: str, ok: bool, detail: str, fix: str, *, essential: bool = True) -> Check:
    return Check(name=name, ok=ok, detail=detail, fix="" if ok else fix, essential=essential)


def check_python(version: tuple[int, int, int]) -> Check:
    """Is the interpreter one of those that the packages are tested on?"""
    wanted = " or ".join(".".join(map(str, pair)) for pair in PYTHON_VERSIONS)
    fix = f"install Python {wanted}, then: rm -rf .venv; make setup PYTHON=python3.12"
    return _judge("Python", version[:2] in PYTHON_VERSIONS, ".".join(map(str, version)), fix)


def check_torch(answer: ProbeResult) -> Check:
    """Does torch import and compute in bf16?"""
    facts = answer.facts
    detail = f"{facts['version']}, {facts['cpu']}, {facts['threads']} threads, bf16" if answer.ok else answer.error
    return _judge("torch", answer.ok, detail, _SETUP_AGAIN)


def check_gpu(answer: ProbeResult, *, has_nvidia_device: bool) -> Check:
    """Is the machine's GPU used? A machine without one is fine."""
    gpus = answer.facts.get("gpus", [])
    if gpus:
        names = "; ".join(f"{gpu['name']}, {gpu['gib']} GiB{', bf16' if gpu['bf16'] else ''}" for gpu in gpus)
        return Check(name="GPU", ok=True, detail=names, essential=False)
    if not has_nvidia_device:
        return Check(name="GPU", ok=True, detail="none: everything runs on the CPU", essential=False)
    if answer.ok and answer.facts["cuda_build"] is None:
        detail, fix = "there is an NVIDIA GPU, but torch is the CPU build", "run: make setup TORCH=auto"
    else:
        detail, fix = (
            "there is an NVIDIA GPU, but torch does not reach it",
            "compare nvidia-smi with torch's CUDA version",
        )
    return _judge("GPU", False, detail, fix, essential=False)


def check_physics(answer: ProbeResult) -> Check:
    """Do ManiSkill and SAPIEN import, and does a box fall as it should?"""
    detail = f"ManiSkill {answer.facts['mani_skill']}, SAPIEN {answer.facts['sapien']}" if answer.ok else answer.error
    fix = "libX11, libGL or GLib missing: run scripts/install_renderer.sh as root" if ".so" in detail else _SETUP_AGAIN
    return _judge("physics", answer.ok, detail, fix)


def check_vulkan(answer: ProbeResult) -> Check:
    """Is there a Vulkan driver, and if it is Mesa's, is it new enough for SAPIEN?"""
    devices = answer.facts.get("devices", [])
    if not devices:
        return _judge("Vulkan", False, answer.error or "no device", _INSTALL_RENDERER, essential=False)
    device = devices[0]
    version = mesa_version(device["driver_version"])
    detail = f"{device['name']} ({device['type']}), {device['driver_version']}"
    fix = f"Mesa {'.'.join(map(str, MIN_MESA))} or newer is needed; {_INSTALL_RENDERER}"
    return _judge("Vulkan", version is None or version >= MIN_MESA, detail, fix, essential=False)


def mesa_version(driver_info: str) -> tuple[int, int] | None:
    """`Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6)` -> (25, 0); None for another vendor's driver."""
    words = driver_info.split()
    if len(words) < 2 or words[0] != "Mesa":
        return None
    major, _, rest = words[1].partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def check_renderer(answer: ProbeResult) -> Check:
    """Does SAPIEN accept the driver? Without, runs fall back to state-only."""
    detail = f"SAPIEN renders on {answer.facts['device']}" if answer.ok else f"state-only, no videos: {answer.error}"
    return _judge("renderer", answer.ok, detail, _INSTALL_RENDERER, essential=False)


def check_frame(answer: ProbeResult) -> Check:
    """Did a test frame come out right?"""
    detail = "a red box came out red" if answer.ok else answer.error
    return _judge("test frame", answer.ok, detail, "update the Vulkan driver", essential=False)


def check_package(name: str, answer: ProbeResult) -> Check:
    """Does this package import?"""
    return _judge(name, answer.ok, answer.facts["version"] if answer.ok else answer.error, _SETUP_AGAIN)


def check_disk(machine: Machine) -> Check:
    """Can runs be written, and is there room for them?"""
    where = f"{machine.disk_free_gib:.1f} GiB free in {machine.runs_folder}"
    if not machine.runs_writable:
        return _judge("disk", False, f"{machine.runs_folder} cannot be written", "choose a folder that you own")
    fix = f"free at least {MIN_DISK_GIB:.0f} GiB, or write runs elsewhere"
    return _judge("disk", machine.disk_free_gib >= MIN_DISK_GIB, where, fix)


def check_memory(machine: Machine) -> Check:
    """Is there memory for Ray, two actors and a learner?"""
    detail = f"{machine.memory_free_gib:.1f} of {machine.memory_gib:.1f} GiB free"
    fix = f"{MIN_MEMORY_GIB:.0f} GiB free are wanted: close programs, or run fewer actors"
    return _judge("memory", machine.memory_free_gib >= MIN_MEMORY_GIB, detail, fix, essential=False)


def check_cores(machine: Machine) -> Check:
    """Are there cores for generating and learning at once?"""
    fix = f"{MIN_CORES} cores are wanted; with fewer, everything works but slowly"
    return _judge("cores", machine.cores >= MIN_CORES, f"{machine.cores:g} usable", fix, essential=False)


def check_shm(machine: Machine) -> Check:
    """Is shared memory large enough for Ray's object store?"""
    fix = "make /dev/shm larger (in Docker: --shm-size=4g); Ray uses slower files in /tmp until then"
    detail = f"{machine.shm_free_gib:.1f} GiB free in /dev/shm"
    return _judge("shared memory", machine.shm_free_gib >= MIN_SHM_GIB, detail, fix, essential=False)


def check_versions(installed: Mapping[str, str], pinned: Mapping[str, str]) -> Check:
    """Are the installed packages at the tested versions?

    Args:
        installed: Version by normalised distribution name.
        pinned: The same from constraints.txt; empty when there is no such file.
    """
    if not pinned:
        return Check(name="versions", ok=True, detail="no constraints.txt here to compare with", essential=False)
    known = {name: version for name, version in installed.items() if name in pinned}
    other = [f"{name} {version} (tested: {pinned[name]})" for name, version in known.items() if version != pinned[name]]
    if not other:
        return Check(name="versions", ok=True, detail=f"{len(known)} packages as tested", essential=False)
    shown = ", ".join(sorted(other)[:4]) + (f" and {len(other) - 4} more" if len(other) > 4 else "")
    return _judge("versions", False, shown, _SETUP_AGAIN, essential=False)


def check_namesake(installed: Mapping[str, str]) -> Check:
    """Is the other package that is imported as `embodichain` kept out of this environment?"""
    other = installed.get("embodichain")
    detail = (
        "no other package of the name embodichain" if other is None else f"another embodichain {other} is installed"
    )
    fix = "both are imported under one name: pip uninstall embodichain, then make setup; use one environment for each"
    return _judge("import name", other is None, detail, fix)


def check_mplib(installed: Mapping[str, str]) -> Check:
    """A note: ManiSkill requires mplib, which crashes when imported beside NumPy 2; this project never imports it."""
    version = installed.get("mplib")
    detail = f"{version}: comes with ManiSkill, crashes if imported; not used here" if version else "not installed"
    return Check(name="mplib", ok=True, detail=detail, essential=False)
