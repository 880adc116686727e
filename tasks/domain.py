"""Randomisation levels: how far apart scenes of one domain may lie. Data, one entry per named level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs import ARM_DOF, HOME_QPOS
from envs.scene import GoalSpec, ObjectSpec, SceneSpec, Vec3


@dataclass(frozen=True, kw_only=True)
class DomainLevel:
    """What a domain randomises, as fractions of each task's full range.

    Attributes:
        name: as in `Recipe.domain`.
        spread: fraction of the task's position ranges, in (0, 1].
        yaw: fraction of the task's yaw range.
        size: fraction of the task's size range.
        physics: relative half width of mass and friction.
        colours: whether colours vary.
        arm_noise: half width of the uniform noise on each initial joint angle, rad.
    """

    name: str
    spread: float
    yaw: float
    size: float
    physics: float
    colours: bool
    arm_noise: float


def domain_levels() -> dict[str, DomainLevel]:
    """All levels by name."""
    clean = DomainLevel(name="clean", spread=0.5, yaw=0.0, size=0.0, physics=0.0, colours=False, arm_noise=0.0)
    default = DomainLevel(name="default", spread=1.0, yaw=1.0, size=1.0, physics=0.25, colours=True, arm_noise=0.1)
    return {level.name: level for level in (clean, default)}


def domain_level(name: str) -> DomainLevel:
    """The level called `name`. Raises `ValueError` naming the valid ones."""
    levels = domain_levels()
    if name not in levels:
        raise ValueError(f"domain {name!r} is unknown, expected one of {sorted(levels)}")
    return levels[name]


def colour_words() -> dict[str, Vec3]:
    """Colour words that instructions use, as linear RGB."""
    return {
        "red": (0.75, 0.08, 0.08),
        "green": (0.10, 0.55, 0.15),
        "blue": (0.08, 0.20, 0.75),
        "yellow": (0.85, 0.70, 0.08),
        "orange": (0.90, 0.36, 0.05),
        "purple": (0.42, 0.12, 0.60),
        "cyan": (0.08, 0.60, 0.68),
        "white": (0.88, 0.88, 0.88),
    }


class Draws:
    """Named random draws of one scene: every number that a scene depends on is drawn, and kept, here.

    Attributes:
        values: name -> number, string or list, in the order of drawing.
    """

    def __init__(self, rng: np.random.Generator, level: DomainLevel) -> None:
        self._rng, self._level = rng, level
        self.values: dict[str, object] = {}

    def position(self, name: str, low: float, high: float) -> float:
        """Uniform over the middle `spread` fraction of [low, high], m."""
        return self._uniform(name, low, high, self._level.spread)

    def yaw(self, name: str, limit: float) -> float:
        """Uniform over the `yaw` fraction of [-limit, limit], rad."""
        return self._uniform(name, -limit, limit, self._level.yaw)

    def size(self, name: str, low: float, high: float) -> float:
        """Uniform over the middle `size` fraction of [low, high], m."""
        return self._uniform(name, low, high, self._level.size)

    def physical(self, name: str, nominal: float) -> float:
        """Uniform within the `physics` fraction around `nominal`."""
        width = nominal * self._level.physics
        return self._uniform(name, nominal - width, nominal + width, 1.0)

    def sign(self, name: str) -> int:
        """-1 or +1."""
        value = int(self._rng.integers(2)) * 2 - 1
        self.values[name] = value
        return value

    def colours(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """As many different colour words as `default` has; `default` itself where the domain keeps colours fixed."""
        words = list(colour_words())
        drawn = tuple(words[int(i)] for i in self._rng.choice(len(words), size=len(default), replace=False))
        kept = drawn if self._level.colours else default
        self.values[name] = list(kept)
        return kept

    def order(self, name: str, count: int) -> list[int]:
        """A random order of the numbers 0 to count - 1."""
        value = [int(i) for i in self._rng.permutation(count)]
        self.values[name] = value
        return value

    def shade(self, name: str) -> float:
        """A factor on a colour, in [0.8, 1.2] where colours vary."""
        return self._uniform(name, 0.8, 1.2, 1.0 if self._level.colours else 0.0)

    def arm_qpos(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Initial joint angles of both arms: home plus uniform noise, rad."""
        noise = self._rng.uniform(-1.0, 1.0, size=(2, ARM_DOF)) * self._level.arm_noise
        qpos = np.asarray(HOME_QPOS) + noise
        self.values["arm_qpos"] = qpos.tolist()
        return tuple(qpos[0].tolist()), tuple(qpos[1].tolist())

    def scene(self, objects: tuple[ObjectSpec, ...], goals: tuple[GoalSpec, ...]) -> SceneSpec:
        """These objects and goals on a table of random shade, before arms near home."""
        shade = self.shade("table_shade")
        return SceneSpec(
            objects=objects,
            goals=goals,
            arm_qpos=self.arm_qpos(),
            table_colour=(0.55 * shade, 0.52 * shade, 0.48 * shade),
        )

    def apart(
        self, names: tuple[str, str], x: tuple[float, float], y: tuple[float, float], least: float
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Two places within the same ranges (m), drawn again until they lie at least `least` m from each other."""
        keys = [f"{name}_{axis}" for name in names for axis in "xy"]
        while True:
            first = (self.position(keys[0], *x), self.position(keys[1], *y))
            second = (self.position(keys[2], *x), self.position(keys[3], *y))
            if np.hypot(first[0] - second[0], first[1] - second[1]) >= least:
                return first, second
            self.redo(*keys)

    def redo(self, *names: str) -> None:
        """Forget draws that a rejection step is about to repeat."""
        for name in names:
            self.values.pop(name, None)

    def _uniform(self, name: str, low: float, high: float, fraction: float) -> float:
        middle, half = 0.5 * (low + high), 0.5 * (high - low)
        value = float(middle + half * fraction * self._rng.uniform(-1.0, 1.0))
        self.values[name] = value
        return value
