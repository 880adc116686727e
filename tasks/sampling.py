"""Task, seed and domain -> scene: the one place where a scene is drawn, and where held-out sides are kept apart.

* *scenes*: the held-out side draws sizes (and what it looks like) from ranges beside those of training.
* *combinations*: a hash of what the instruction's slots say (object, colour, arm, goal) puts about one combination in
  eight on the held-out side; training draws again until its own is not one of them, the held-out side until it is.
* *language*: the held-out side speaks in templates of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np

from tasks.appearance import draw_appearance
from tasks.base import Task, TaskInfo, TaskScene
from tasks.domain import Domain, parse_domain
from tasks.draws import Draws
from tasks.dynamics import vary_dynamics
from tasks.language import instruct
from tasks.reach import spread_over, vary_reach

HELDOUT_COMBINATIONS = 8  # one combination in so many is held out
MAX_DRAWS = 1000


def stream(task: str, seed: int, purpose: str = "scene") -> np.random.Generator:
    """The generator behind the draws of one scene for one purpose; the others' draws do not shift it."""
    name = hashlib.blake2b(f"{task}/{purpose}".encode(), digest_size=8).digest()
    return np.random.default_rng([int.from_bytes(name, "little"), seed])


def is_heldout(task: str, words: Mapping[str, str]) -> bool:
    """Whether a combination of slot words belongs to the held-out side."""
    text = "/".join([task, *(f"{key}={words[key]}" for key in sorted(words))])
    return hashlib.blake2b(text.encode(), digest_size=4).digest()[0] % HELDOUT_COMBINATIONS == 0


def draw_scene(task: Task, seed: int, domain: str) -> TaskScene:
    """The scene of `(task, seed, domain)`, instruction and draws included.

    Raises `ValueError` for an unknown domain, and where a domain has no held-out combinations.
    """
    chosen, info = parse_domain(domain), task.info
    if chosen.heldout == "combinations" and "spatial" not in chosen:
        raise ValueError(f"domain={domain}: combinations do not vary without the stage `spatial`")
    rng = stream(info.name, seed)
    for _ in range(MAX_DRAWS):
        draws = Draws(rng, chosen)
        scene = task.draw(draws)
        if is_heldout(info.name, scene.words) == (chosen.heldout == "combinations"):
            scene = replace(scene, instruction=_instruction(info, scene, seed, chosen), draws=draws.values)
            if "physics" in chosen:
                scene = vary_dynamics(scene, stream(info.name, seed, "physics"))
            if "reach" in chosen:
                scene = vary_reach(scene, spread_over(info.name, seed))
            return _with_look(info, scene, seed, chosen) if "visual" in chosen else scene
    raise ValueError(f"domain={domain}: {MAX_DRAWS} draws of {info.name} gave no combination of that side")


def _instruction(info: TaskInfo, scene: TaskScene, seed: int, domain: Domain) -> str:
    heldout = domain.heldout == "language"
    rng = stream(info.name, seed, "language") if "spatial" in domain or heldout else None
    return instruct(info.heldout_instructions if heldout else info.instructions, scene.words, rng)


def _with_look(info: TaskInfo, scene: TaskScene, seed: int, domain: Domain) -> TaskScene:
    """The scene with a random appearance, which is kept with its draws under `visual`."""
    look = draw_appearance(stream(info.name, seed, "visual"), scene.spec, heldout=domain.heldout == "scenes")
    return replace(scene, spec=replace(scene.spec, appearance=look), draws={**scene.draws, "visual": asdict(look)})
