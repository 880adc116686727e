"""Task names that several commands are given."""

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
