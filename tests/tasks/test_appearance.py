"""The stage `visual`: colours keep their names, held-out looks lie beside training's, physics does not notice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from embodichain.contracts import Observation, Recipe
from embodichain.doctor import renderer_available
from embodichain.encoders import FrameByFrame, StateEncoder
from embodichain.rollout import RolloutOptions, compare_episodes, make_episode
from envs import Appearance, GoalSpec, ObjectSpec, RenderConfig, SceneSpec, camera_views
from envs.appearance import LUMINANCE
from tasks import get_task, task_names
from tasks.appearance import NEAR
from tasks.base import TaskScene
from tasks.domain import colour_words
from tasks.registry import slots
from tasks.sampling import draw_scene
from tasks.session import TaskSession

SEEDS = 60
STEPS = range(0, 400, 8)


def drawn(task: str, domain: str, seeds: int = SEEDS) -> list[TaskScene]:
    return [draw_scene(get_task(task), seed, domain) for seed in range(seeds)]


def things(spec: SceneSpec) -> list[ObjectSpec | GoalSpec]:
    return [*spec.objects, *spec.goals]


@pytest.mark.parametrize("task", task_names())
def test_only_the_look_changes_and_it_is_kept_with_the_draws(task: str) -> None:
    for seed in range(5):
        plain, varied = (draw_scene(get_task(task), seed, domain) for domain in ("default", "default+visual"))
        assert plain.spec.appearance == Appearance()
        assert varied.spec.appearance != Appearance()
        assert replace(varied.spec, appearance=Appearance()) == plain.spec
        assert (varied.words, varied.instruction) == (plain.words, plain.instruction)
        kept = json.loads(json.dumps(varied.draws)).pop("visual")
        assert {name: value for name, value in varied.draws.items() if name != "visual"} == plain.draws
        look = varied.spec.appearance
        assert kept["sensor"]["seed"] == getattr(look.sensor, "seed", None)
        assert tuple(kept["cameras"]["front"]["eye"]) == look.cameras["front"].eye
        assert set(kept["surfaces"]) == {thing.name for thing in things(varied.spec)}
        assert draw_scene(get_task(task), seed, "default+visual") == varied


def test_every_seed_looks_different_and_zero_to_four_things_lie_about() -> None:
    looks = [scene.spec.appearance for scene in drawn("pick_place", "default+visual")]
    assert len({look.lights[0].direction for look in looks}) == len(looks)
    assert len({look.sensor.seed for look in looks if look.sensor is not None}) == len(looks)
    assert {len(look.distractors) for look in looks} == {0, 1, 2, 3, 4}


def lab(rgb: tuple[float, float, float]) -> np.ndarray:
    """CIELAB of linear sRGB, in which distances are about those that people see."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    t = to_xyz @ np.asarray(rgb) / to_xyz.sum(axis=1)
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("domain", ["default+visual", "default+visual@scenes"])
def test_a_colour_keeps_its_name_and_no_distractor_has_one(domain: str) -> None:
    words = {word: lab(colour) for word, colour in colour_words().items()}
    for task in ("pick_place", "stack_blocks", "load_tray"):
        for scene in drawn(task, domain):
            look = scene.spec.appearance
            for thing in things(scene.spec):
                shown = lab(look.surfaces[thing.name].colour)
                away = {word: float(np.linalg.norm(shown - named)) for word, named in words.items()}
                assert words[min(away, key=lambda word: away[word])] == pytest.approx(lab(thing.colour))
                assert min(away.values()) < 15.0
            for distractor in look.distractors:
                assert min(np.linalg.norm(lab(distractor.surface.colour) - named) for named in words.values()) > 16.0


def _hue(rgb: tuple[float, float, float]) -> float:
    red, green, blue = rgb
    return float(np.rad2deg(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))) % 360


def _camera_figures(look: Appearance, view: str) -> tuple[float, float, float]:
    """How a camera differs from the plain one: azimuth (rad, without sign), height (m, likewise), ln of the zoom."""
    plain, now = camera_views()[view], look.cameras[view]
    from_target, now_from_target = (np.subtract(camera.eye, plain.target) for camera in (plain, now))
    angles = [np.arctan2(v[1], v[0]) for v in (from_target, now_from_target)]
    turn = abs((angles[1] - angles[0] + np.pi) % (2 * np.pi) - np.pi)
    near = 1.0 if plain.arm is None else NEAR
    return float(turn), float(abs(now_from_target[2] - from_target[2])) / near, abs(float(np.log(now.fov / plain.fov)))


FIGURES: dict[str, Callable[[Appearance], list[float]]] = {
    "temperature": lambda look: [light.temperature.at(step) for light in look.lights for step in STEPS],
    "roughness": lambda look: [surface.roughness for surface in look.surfaces.values()],
    "metallic": lambda look: [surface.metallic for surface in look.surfaces.values()],
    "distractor_roughness": lambda look: [d.surface.roughness for d in look.distractors],
    "distractor_hue": lambda look: [_hue(d.surface.colour) for d in look.distractors],
    **{
        f"room_{name}": lambda look, name=name: [  # type: ignore[misc]
            getattr(surface, name) for surface in (look.table, look.floor, look.wall)
        ]
        for name in ("roughness", "metallic")
    },
    **{
        f"{view}_{name}": lambda look, view=view, index=index: [_camera_figures(look, view)[index]]  # type: ignore[misc]
        for view in camera_views()
        for index, name in enumerate(("azimuth", "height", "zoom"))
    },
}


@pytest.fixture(scope="module")
def both_sides() -> tuple[list[Appearance], list[Appearance]]:
    train, heldout = (
        [scene.spec.appearance for task in ("pick_place", "turn_wheel", "load_tray") for scene in drawn(task, domain)]
        for domain in ("default+visual", "default+visual@scenes")
    )
    return train, heldout


@pytest.mark.parametrize("figure", FIGURES)
def test_held_out_looks_lie_beside_those_of_training(
    figure: str, both_sides: tuple[list[Appearance], list[Appearance]]
) -> None:
    """No held-out value lies between neighbours of the training's: sorted together, the sides do not mix."""
    train, heldout = ([value for look in side for value in FIGURES[figure](look)] for side in both_sides)
    assert len(train) > 100 < len(heldout)
    sides = [side for _, side in sorted([*((v, 0) for v in train), *((v, 1) for v in heldout)])]
    runs = 1 + int(np.count_nonzero(np.diff(sides)))
    assert 2 <= runs <= 3
    assert not set(train) & set(heldout)


@pytest.mark.parametrize("task", task_names())
def test_distractors_lie_off_all_that_matters(task: str) -> None:
    """Beside every object and goal, beside one another, on the table, and off the straight way from one to the next."""
    found = 0
    for scene in drawn(task, "default+visual", 30):
        spec, distractors = scene.spec, scene.spec.appearance.distractors
        points = np.array([thing.pose[:2] for thing in things(spec)])
        share = np.linspace(0.0, 1.0, 21)[:, None, None, None]
        ways = ((1 - share) * points[:, None] + share * points[None]).reshape(-1, 2)
        for index, distractor in enumerate(distractors):
            x, y, z = distractor.position
            assert z == distractor.half_size[2]
            assert max(abs(x) - 0.36, abs(y) - 0.60) <= 0.0
            assert np.hypot(*(ways - (x, y)).T).min() > 0.05 + distractor.half_size[0]
            for other in distractors[:index]:
                gap = np.hypot(x - other.position[0], y - other.position[1])
                assert gap > np.hypot(*distractor.half_size[:2]) + np.hypot(*other.half_size[:2])
            found += 1
    assert found > 10


class _Pixels(FrameByFrame):
    """An encoder that needs frames and says as little as possible about them."""

    id, needs_rgb, max_tokens, channels, dtype = "pixels", True, 1, 3, np.dtype(np.float32)

    def encode(self, observation: Observation) -> np.ndarray:
        assert observation.rgb is not None
        return observation.rgb.mean(axis=(0, 1, 2), dtype=np.float64)[None].astype(np.float32)

    def token_mask(self, observation: Observation) -> np.ndarray:
        del observation
        return np.ones(1, dtype=bool)


@pytest.fixture(scope="module")
def sessions() -> Iterator[tuple[TaskSession, TaskSession]]:
    available, why = renderer_available()
    if not available:
        pytest.skip(why)
    render = RenderConfig(cameras=("front", "left"), width=64, height=64)
    both = TaskSession(render=render), TaskSession(render=render)
    yield both
    for session in both:
        session.close()


@pytest.mark.render
@pytest.mark.parametrize("domain", ["default+visual", "default+visual@scenes"])
def test_frames_come_out_the_same_and_physics_never_knows(
    sessions: tuple[TaskSession, TaskSession], domain: str
) -> None:
    """Two sessions, one of them after other episodes; and a blind one without the stage moves bit for bit alike."""
    recipe, options = Recipe(task="pick_place", seed=5, domain=domain), RolloutOptions(tau=8, keep_rgb=True)
    one, used = sessions
    first, verdict, _ = make_episode(recipe, one, _Pixels(), options)
    make_episode(Recipe(task="turn_wheel", seed=1, domain=domain), used, _Pixels(), options)
    used.reset(Recipe(task="pick_place", seed=6, domain=domain))
    used.observe(rgb=True)
    again, _, _ = make_episode(recipe, used, _Pixels(), options)
    assert verdict.accepted, verdict.reasons
    assert first is not None
    assert again is not None
    assert first.rgb is not None
    assert compare_episodes(first, again) == []
    assert first.draws == again.draws
    assert "visual" in first.draws
    blind, plain = TaskSession(render=None), replace(recipe, domain=domain.replace("+visual", ""))
    other, _, _ = make_episode(plain, blind, StateEncoder(**slots(["pick_place"])), RolloutOptions(tau=8))
    assert other is not None
    for name in ("action", "proprio", "sim_state", "segment_id"):
        assert getattr(first, name).tobytes() == getattr(other, name).tobytes(), name
    blind.close()


@pytest.mark.render
def test_frames_are_neither_black_nor_blown_out(sessions: tuple[TaskSession, TaskSession]) -> None:
    session = sessions[0]
    for domain in ("default+visual", "default+visual@scenes"):
        for seed in range(8):
            session.reset(Recipe(task="stack_blocks", seed=seed, domain=domain))
            light = session.observe(rgb=True).rgb @ np.asarray(LUMINANCE)
            assert 50.0 < light.mean() < 215.0
            assert (light > 250.0).mean() < 0.1
            assert light.std() > 10.0
