"""The stage `physics` beyond sizes, masses and friction: where the mass sits, how the arms follow their commands.

Drawn beside the task's own draws, by a generator of its own, so that tasks need not know of it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from embodichain.contracts import ARMS
from envs import ArmControl, ObjectSpec
from tasks.base import TaskScene

MASS_OFFSET = 0.1  # of the half extents, per axis: a density that varies by up to 30 % from the middle to each side
GAIN_WIDTH = 0.15  # relative half width of the arms' stiffness and damping
MAX_LATENCY = 2  # physics steps of 10 ms: commands of a real arm arrive one to two cycles late


def vary_dynamics(scene: TaskScene, rng: np.random.Generator) -> TaskScene:
    """The scene with centres of mass, controller gains and latencies drawn, and these draws added to its own."""
    spec, draws = scene.spec, dict(scene.draws)
    objects = tuple(_off_centre(spec, rng) for spec in spec.objects)
    controls = tuple(
        ArmControl(
            stiffness=1.0 + GAIN_WIDTH * float(rng.uniform(-1.0, 1.0)),
            damping=1.0 + GAIN_WIDTH * float(rng.uniform(-1.0, 1.0)),
            latency=int(rng.integers(MAX_LATENCY + 1)),
        )
        for _ in ARMS
    )
    draws.update({f"{spec.name}_mass_offset": list(spec.mass_offset) for spec in objects})
    for arm, control in zip(ARMS, controls, strict=True):
        draws[f"{arm}_stiffness"] = control.stiffness
        draws[f"{arm}_damping"] = control.damping
        draws[f"{arm}_latency"] = control.latency
    return replace(scene, spec=replace(spec, objects=objects, arm_control=(controls[0], controls[1])), draws=draws)


def _off_centre(spec: ObjectSpec, rng: np.random.Generator) -> ObjectSpec:
    x, y, z = (MASS_OFFSET * np.asarray(spec.half_extents) * rng.uniform(-1.0, 1.0, size=3)).tolist()
    return replace(spec, mass_offset=(x, y, z))
