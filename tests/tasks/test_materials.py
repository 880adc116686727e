"""Mass follows size and material."""

from __future__ import annotations

import numpy as np
import pytest

from tasks import get_task, task_names
from tasks.draws import PHYSICAL_WIDTH
from tasks.materials import FOAM, STONE
from tasks.sampling import draw_scene


def densities(task: str, seed: int, domain: str) -> dict[str, float]:
    """kg/m^3 of everything that moves in a scene."""
    scene = draw_scene(get_task(task), seed, domain)
    return {
        item.name: item.mass / sum(8 * float(np.prod(part.half_size)) for part in item.parts)
        for item in scene.spec.objects
    }


@pytest.mark.parametrize("task", task_names())
def test_things_weigh_what_their_size_and_material_say(task: str) -> None:
    nominal = densities(task, 0, "clean")
    assert all(FOAM <= density <= STONE for density in nominal.values()), nominal
    drawn = [densities(task, seed, "physics") for seed in range(20)]
    for name, density in nominal.items():
        ratios = [each[name] / density for each in drawn]
        assert max(abs(ratio - 1.0) for ratio in ratios) <= PHYSICAL_WIDTH + 1e-9
        assert np.ptp(ratios) > 0.5 * PHYSICAL_WIDTH, f"{name}: the material does not vary"
