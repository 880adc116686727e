"""Domains: which stages of randomisation are on, and which held-out side of the world is drawn from.

A domain is a string, so that it fits into a recipe: stages, or names of usual sets of them, joined by `+`, and after
an `@` the side that training never sees: `default`, `default+visual`, `spatial@scenes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from envs.scene import Vec3

STAGES = ("spatial", "visual", "physics", "reach", "recovery")
LEVELS = {"clean": (), "default": ("spatial", "physics"), "full": STAGES}
HELDOUT_SIDES = ("scenes", "combinations", "language")


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What the scenes of a domain vary in.

    Attributes:
        name: as in `Recipe.domain`.
        stages: those of `STAGES` that are on: `spatial` places, angles, colours, initial arm poses and execution
            noise; `visual` light, materials, cameras, sensors, distractors; `physics` sizes, masses, friction and what
            else dynamics depend on; `reach` approach directions and arm poses spread over what the arms can reach;
            `recovery` slips, misgrasps and pushes, and what the expert does about them.
        heldout: one of `HELDOUT_SIDES`, which training never draws from; "" for the training side.
    """

    name: str
    stages: frozenset[str]
    heldout: str = ""

    def __contains__(self, stage: object) -> bool:
        return stage in self.stages


@cache
def parse_domain(name: str) -> Domain:
    """The domain called `name`. Raises `ValueError` naming what is valid."""
    level, _, side = name.partition("@")
    stages = [stage for part in level.split("+") for stage in LEVELS.get(part, (part,))]
    if any(stage not in STAGES for stage in stages) or (side not in HELDOUT_SIDES if "@" in name else False):
        raise ValueError(
            f"domain={name}: expected one of {', '.join((*LEVELS, *STAGES))}, or several joined by '+'; "
            f"then, if the held-out side is meant, one of {', '.join('@' + side for side in HELDOUT_SIDES)}"
        )
    if len(set(stages)) != len(stages):
        raise ValueError(f"domain={name}: a stage is named twice")
    return Domain(name=name, stages=frozenset(stages), heldout=side)


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
