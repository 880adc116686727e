"""Task names, as several commands take them."""

from __future__ import annotations

from collections.abc import Iterable

from embodichain.app.settings import ConfigError


def known_tasks(names: Iterable[str], key: str = "task") -> list[str]:
    """The names, if each is a task. Raises `ConfigError`, as of `key`, naming those that there are otherwise."""
    from tasks.registry import task_names

    found, there = list(names), task_names()
    for name in found:
        if name not in there:
            raise ConfigError(f"{key}={name}: unknown task; expected one of {', '.join(there)}")
    return found


def training_tasks() -> list[str]:
    """Those that training may draw."""
    from tasks.registry import task_info, task_names

    return [name for name in task_names() if task_info(name).split == "train"]
