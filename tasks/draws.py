"""Named random draws: every number that a scene depends on is drawn, and kept, here."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from envs import ARM_DOF, HOME_QPOS
from envs.scene import BoxPart, GoalSpec, ObjectSpec, SceneSpec
from tasks.domain import Domain, colour_words

ARM_NOISE = 0.1  # rad, half width of the uniform noise on each initial joint angle
PHYSICAL_WIDTH = 0.25  # relative half width of masses, friction and damping
HELDOUT_WIDTH = 0.2  # of a size range: how far held-out sizes lie beyond either end of it


class Draws:
    """The draws of one scene.

    Every draw consumes the generator whatever the domain says, so that domains differ in what their stages vary
    and in nothing else.

    Attributes:
        values: name -> number, string or list, in the order of drawing.
    """

    def __init__(self, rng: np.random.Generator, domain: Domain) -> None:
        self._rng, self.domain = rng, domain
        self._spatial, self._physics = "spatial" in domain, "physics" in domain
        self.values: dict[str, object] = {}

    def position(self, name: str, low: float, high: float) -> float:
        """Uniform over [low, high], m; over its middle half without the stage `spatial`."""
        return self._uniform(name, low, high, 1.0 if self._spatial else 0.5)

    def yaw(self, name: str, limit: float) -> float:
        """Uniform over [-limit, limit], rad."""
        return self._uniform(name, -limit, limit, float(self._spatial))

    def size(self, name: str, low: float, high: float) -> float:
        """Uniform over [low, high], m; on the held-out side `scenes` a little below or above it."""
        if self.domain.heldout != "scenes":
            return self._uniform(name, low, high, float(self._physics))
        inside = self._rng.uniform(-1.0, 1.0)
        beyond = 0.5 * (low + high) + np.sign(inside) * (0.5 + abs(inside) * HELDOUT_WIDTH) * (high - low)
        self.values[name] = float(beyond)
        return float(beyond)

    def physical(self, name: str, nominal: float) -> float:
        """Uniform within a quarter around `nominal`."""
        width = nominal * PHYSICAL_WIDTH * self._physics
        return self._uniform(name, nominal - width, nominal + width, 1.0)

    def mass(self, name: str, density: float, parts: Sequence[BoxPart]) -> float:
        """What `parts` weigh, kg, if they are of a material of about `density` kg/m^3: within a quarter around it."""
        return self.physical(name, density * sum(8.0 * prod(part.half_size) for part in parts))

    def sign(self, name: str) -> int:
        """-1 or +1."""
        value = int(self._rng.integers(2)) * 2 - 1
        self.values[name] = value
        return value

    def colours(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """As many different colour words as `default` has; `default` itself without the stage `spatial`."""
        words = list(colour_words())
        drawn = tuple(words[int(i)] for i in self._rng.choice(len(words), size=len(default), replace=False))
        kept = drawn if self._spatial else default
        self.values[name] = list(kept)
        return kept

    def order(self, name: str, count: int) -> list[int]:
        """A random order of the numbers 0 to count - 1."""
        value = [int(i) for i in self._rng.permutation(count)]
        self.values[name] = value
        return value

    def scene(
        self, objects: tuple[ObjectSpec, ...], goals: tuple[GoalSpec, ...], home: tuple[float, ...] = HOME_QPOS
    ) -> SceneSpec:
        """These objects and goals on a table of random shade, before arms near home (seven joint angles, rad)."""
        shade = self._uniform("table_shade", 0.8, 1.2, float(self._spatial))
        noise = self._rng.uniform(-1.0, 1.0, size=(2, ARM_DOF)) * ARM_NOISE * self._spatial
        qpos = np.asarray(home) + noise
        self.values["arm_qpos"] = qpos.tolist()
        return SceneSpec(
            objects=objects,
            goals=goals,
            arm_qpos=(tuple(qpos[0].tolist()), tuple(qpos[1].tolist())),
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

    def _uniform(self, name: str, low: float, high: float, fraction: float) -> float:
        middle, half = 0.5 * (low + high), 0.5 * (high - low)
        value = float(middle + half * fraction * self._rng.uniform(-1.0, 1.0))
        self.values[name] = value
        return value
