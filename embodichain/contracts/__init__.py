"""The nouns of the system: plain, frozen data that every package agrees on.

Imports NumPy and nothing else, so that a simulator, a Ray actor and a bare training machine can all
speak them. Shape legend, used in every docstring:

    T control steps (index t)      F image frames (index j)     V cameras        H, W pixels
    L tokens per frame             C token channels             P proprioception S simulator state
    A unified action dims (30)     B batch                      K frames of a window   N chunk length
"""

from embodichain.contracts.action import ACTION_DIM, ARM_DIM, ARMS, UnifiedAction
from embodichain.contracts.episode import SCHEMA_VERSION, Episode, Observation, Verdict
from embodichain.contracts.intervals import wilson_interval
from embodichain.contracts.policy import (
    MODES,
    S_ACTION,
    S_VIDEO,
    Policy,
    PolicyInput,
    Speculator,
    Work,
    nothing_executed,
)
from embodichain.contracts.recipe import IMPORTED, Recipe
from embodichain.contracts.seeds import SCORING, SeedRange, seed_range
from embodichain.contracts.window import Batch, WindowSpec

__all__ = [
    "ACTION_DIM",
    "ARMS",
    "ARM_DIM",
    "IMPORTED",
    "MODES",
    "SCHEMA_VERSION",
    "SCORING",
    "S_ACTION",
    "S_VIDEO",
    "Batch",
    "Episode",
    "Observation",
    "Policy",
    "PolicyInput",
    "Recipe",
    "SeedRange",
    "Speculator",
    "UnifiedAction",
    "Verdict",
    "WindowSpec",
    "Work",
    "nothing_executed",
    "seed_range",
    "wilson_interval",
]
