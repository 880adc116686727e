"""A recipe: the ~100 bytes from which an episode can be made again, bit for bit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

IMPORTED = "lerobot:"  # begins the task of a recipe that names an episode of somebody else's dataset


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to simulate. Every random draw of the episode derives from `(task, seed, domain)`.

    Attributes:
        task: name of a registered task, for example `pick_place`.
        seed: non-negative; which named range it lies in says what it may be used for.
        domain: named randomisation level (`clean`, `default`, ...).
        source: `expert`; `recovery`, the expert in the closed loop of the stage of that name, whatever the domain says;
            or `mimic:<seed>`, the expert's undisturbed execution of the same task and domain at that
            seed, carried over to this scene.
        sim_hash: hash of envs + tasks + simulator version that made (or will make) the episode.
    """

    task: str
    seed: int
    domain: str = "default"
    source: str = "expert"
    sim_hash: str = ""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"recipe.seed={self.seed}: expected a non-negative integer")
        if not self.task:
            raise ValueError("recipe.task is empty: expected the name of a registered task")
        if self.source not in ("expert", "recovery") and self.parent_seed is None:
            raise ValueError(f"recipe.source={self.source!r}: expected 'expert', 'recovery' or 'mimic:<seed>'")

    @property
    def parent_seed(self) -> int | None:
        """The seed of the demonstration that this recipe imitates; None for the expert's own."""
        kind, _, seed = self.source.partition(":")
        return int(seed) if kind == "mimic" and seed.isdecimal() else None

    @property
    def imported(self) -> bool:
        """Whether this names an episode of somebody else's dataset, which nothing here can simulate."""
        return self.task.startswith(IMPORTED)

    def to_json(self) -> str:
        """One line of JSON with sorted keys, the form that archives store."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Inverse of `to_json`. Raises `ValueError` for text that is no recipe."""
        try:
            return cls(**json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a recipe: {text!r} ({error})") from error

    @property
    def id(self) -> str:
        """16 hex digits that name this recipe; equal recipes have equal ids on every machine."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=8).hexdigest()
