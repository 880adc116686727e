"""Tasks of other packages: the tutorial's code works as printed, and a broken plug-in is named."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from embodichain.contracts import Recipe, seed_range
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from tasks import registry
from tasks.session import TaskSession

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "add_a_task.md"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Makes a module of source code importable and names one of its classes as a plug-in."""

    def install(source: str, name: str) -> None:
        module = types.ModuleType("my_package")
        monkeypatch.setitem(sys.modules, "my_package", module)
        exec(compile(source, "my_package.py", "exec"), module.__dict__)
        entry = EntryPoint(name=name, value=f"my_package:{name}", group=registry.PLUGIN_GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
        registry._tasks.cache_clear()

    yield install
    registry._tasks.cache_clear()


def test_the_tutorials_task_is_found_and_its_expert_succeeds(install: Callable[[str, str], None]) -> None:
    code = re.search(r"```python\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert code is not None
    install(code[1], "BridgePiers")
    assert "bridge_piers" in registry.task_names()
    session, encoder = TaskSession(render=None), StateEncoder(**registry.slots(["bridge_piers"]))
    for index in range(3):
        recipe = Recipe(task="bridge_piers", seed=seed_range("test").at(index))
        episode, verdict, _ = make_episode(recipe, session, encoder, RolloutOptions())
        assert verdict.accepted, verdict.reasons
        assert episode is not None
        assert episode.pairs <= registry.task_info("bridge_piers").horizon + 50


@pytest.mark.parametrize(
    ("source", "name", "match"),
    [
        ("x = 1", "Missing", "my_package:Missing: AttributeError"),
        ("class Broken:\n    def __init__(self):\n        raise OSError('no assets')", "Broken", "OSError: no assets"),
        ("class Odd:\n    info = 'odd'", "Odd", "no TaskInfo"),
        ("from tasks.pick_place import PickPlace", "PickPlace", "'pick_place' is taken"),
    ],
)
def test_a_broken_plugin_is_named(install: Callable[[str, str], None], source: str, name: str, match: str) -> None:
    install(source, name)
    with pytest.raises(RuntimeError, match=match):
        registry.task_names()
