"""The import-direction rule of the house (docs/architecture.md), read from the source with `ast`.

A *unit* is `envs`, `tasks`, `learner` or one part of the engine such as `embodichain.replay`. For each, `HOUSE` says
which units and which heavy packages it may import. Imports inside functions and under TYPE_CHECKING count too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = ("embodichain", "envs", "tasks", "learner", "benchmarks", "tests")
SIMULATOR = frozenset({"mani_skill", "sapien", "gymnasium"})
SERVICES = frozenset({"ray", "mlflow"})
ANY_PACKAGE = frozenset({"*"})


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What one unit may import: first-party `units`, and of third-party packages all but `without` or just `only`."""

    units: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    only: frozenset[str] = ANY_PACKAGE


def units(*names: str) -> frozenset[str]:
    return frozenset(names)


CONTRACTS = "embodichain.contracts"
SHARED = units(CONTRACTS, "embodichain.archive", "embodichain.encoders")
ENGINE = units(
    "embodichain.replay",
    "embodichain.rollout",
    "embodichain.actors",
    "embodichain.evaluation",
    "embodichain.telemetry",
)
ENGINE_RULE = Rule(units=ENGINE | SHARED | units("envs", "tasks"))

HOUSE: dict[str, Rule] = {
    CONTRACTS: Rule(only=frozenset({"numpy"})),
    "embodichain.archive": Rule(units=units(CONTRACTS), without=SIMULATOR | SERVICES),
    "embodichain.export": Rule(units=units(CONTRACTS), without=SIMULATOR | SERVICES | {"torch", "transformers"}),
    "embodichain.encoders": Rule(units=units(CONTRACTS), without=SIMULATOR | SERVICES),
    "envs": Rule(units=units(CONTRACTS), without=SERVICES | {"transformers"}),
    "tasks": Rule(units=units(CONTRACTS, "envs"), without=SERVICES | {"transformers"}),
    "learner": Rule(units=SHARED, without=SIMULATOR | {"mlflow"}),
    **dict.fromkeys(ENGINE, ENGINE_RULE),
    # The limiter, the ring and the counters are plain code: physics has no place in them, and MLflow only in telemetry.
    "embodichain.replay": Rule(units=SHARED | units("embodichain.replay"), without=SIMULATOR | {"mlflow"}),
    # Policies of other projects live behind it: it must not need ours, nor a simulator.
    "embodichain.serving": Rule(units=units(CONTRACTS), only=frozenset({"numpy", "msgpack", "websockets"})),
    "embodichain.doctor": Rule(units=units(CONTRACTS)),
    # Runs are files by then: whoever reads a report can run the analysis with numpy and scipy alone.
    "embodichain.law": Rule(units=units(CONTRACTS), without=SIMULATOR | SERVICES | {"torch", "transformers"}),
    "embodichain": Rule(),
    "embodichain.__main__": Rule(units=units("embodichain.app")),
    "embodichain.app": Rule(
        units=ENGINE
        | SHARED
        | units(
            "embodichain.doctor",
            "embodichain.export",
            "embodichain.serving",
            "embodichain.law",
            "envs",
            "tasks",
            "learner",
            "benchmarks",
        )
    ),
}
EXEMPT = units("tests", "benchmarks")


@dataclass(frozen=True)
class Import:
    file: str
    line: int
    module: str


def unit_of(module: str) -> str:
    """`embodichain.replay.ring` -> `embodichain.replay`; `envs.scene` -> `envs`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "embodichain" else parts[0]


def module_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, root: Path) -> Iterator[Import]:
    """Every import statement in a file, with relative ones made absolute."""
    name = str(path.relative_to(root))
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=name)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            if module == "embodichain":  # from embodichain import replay: the names are what is imported
                for alias in node.names:
                    yield Import(name, node.lineno, f"embodichain.{alias.name}")
            else:
                yield Import(name, node.lineno, module)


def complaint(unit: str, found: Import, house: dict[str, Rule]) -> str | None:
    """Why `unit` may not have this import; None when it may."""
    rule = house.get(unit)
    if rule is None:
        return f"{found.file}: {unit} has no rule in tests/test_imports.py: say there what it may import"
    top = found.module.split(".")[0]
    if top in TOP_LEVEL:
        target = unit_of(found.module)
        if target == unit or target in rule.units or target == "embodichain":
            return None
        return f"{found.file}:{found.line}: {unit} must not import {target}"
    if top in sys.stdlib_module_names:
        return None
    if top in rule.without or (rule.only != ANY_PACKAGE and top not in rule.only):
        return f"{found.file}:{found.line}: {unit} must not import {top}"
    return None


def violations(root: Path) -> list[str]:
    found = []
    for top in TOP_LEVEL:
        for path in sorted((root / top).rglob("*.py")):
            unit = unit_of(module_of(path, root))
            if unit in EXEMPT:
                continue
            found += [text for item in imports_of(path, root) if (text := complaint(unit, item, HOUSE))]
    return found


def test_imports_go_one_way() -> None:
    assert violations(ROOT) == []


def test_only_the_app_knows_learner_and_engine() -> None:
    both = [unit for unit, rule in HOUSE.items() if "learner" in rule.units and rule.units & ENGINE]
    assert both == ["embodichain.app"]


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("embodichain/contracts/bad.py", "import torch", "embodichain.contracts must not import torch"),
        ("embodichain/contracts/bad.py", "from envs.scene import Scene", "embodichain.contracts must not import envs"),
        ("envs/bad.py", "import tasks", "envs must not import tasks"),
        ("envs/sub/bad.py", "def f():\n    import ray.data", "envs must not import ray"),
        ("tasks/bad.py", "from embodichain import rollout", "tasks must not import embodichain.rollout"),
        ("learner/bad.py", "from embodichain.replay import ring", "learner must not import embodichain.replay"),
        ("learner/bad.py", "import mlflow", "learner must not import mlflow"),
        ("embodichain/encoders/bad.py", "import sapien", "embodichain.encoders must not import sapien"),
        ("embodichain/replay/bad.py", "from ..app import cli", "embodichain.replay must not import embodichain.app"),
        ("embodichain/actors/bad.py", "import learner.flow", "embodichain.actors must not import learner"),
        ("embodichain/newpart/bad.py", "import os", "embodichain.newpart has no rule"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, source: str, expected: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    found = violations(tmp_path)
    assert len(found) == 1
    assert expected in found[0]
    assert found[0].startswith(file)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("embodichain/contracts/good.py", "import json\nimport numpy as np\nfrom .recipe import Recipe"),
        ("tasks/good.py", "from envs.scene import Scene\nfrom embodichain.contracts import Recipe"),
        ("learner/good.py", "import torch\nfrom embodichain.encoders import Encoder"),
        ("embodichain/app/good.py", "import learner.flow\nimport ray\nfrom embodichain.replay import ring"),
        ("benchmarks/good.py", "import learner, envs"),
    ],
)
def test_a_lawful_import_passes(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert violations(tmp_path) == []
