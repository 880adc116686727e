"""What the robot is told: templates with slots, and the phrasings that training never hears.

A template writes alternatives as `[put|place]` and slots as `{cube}`; every choice of alternatives is a phrasing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from itertools import product

import numpy as np

from embodichain.contracts import ARMS

_CHOICE = re.compile(r"\[([^\]]*)\]")


def arm_word(y: float) -> str:
    """The arm on whose side of the table `y` (m) lies: "left" or "right"."""
    return ARMS[0 if y > 0.0 else 1]


@cache
def phrasings(templates: tuple[str, ...]) -> tuple[str, ...]:
    """Every choice of alternatives of these templates, in order, slots left open. Raises `ValueError` for twins."""
    out: list[str] = []
    for template in templates:
        parts = _CHOICE.split(template)  # text, alternatives, text, ...
        options = [[part] if i % 2 == 0 else part.split("|") for i, part in enumerate(parts)]
        out.extend(" ".join("".join(choice).split()) for choice in product(*options))
    if len(set(out)) != len(out):
        raise ValueError(f"templates {templates}: two choices read the same")
    return tuple(out)


def instruct(templates: tuple[str, ...], words: Mapping[str, str], rng: np.random.Generator | None) -> str:
    """One phrasing, its slots filled; without a generator the first one.

    Raises `KeyError` for a slot that `words` lacks.
    """
    choices = phrasings(templates)
    chosen = choices[0 if rng is None else int(rng.integers(len(choices)))]
    return chosen.format_map(words)
