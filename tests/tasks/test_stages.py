"""The stages `physics` and `reach`: what they draw, within which bounds, and that experts make use of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import qmc

from benchmarks import reach as bench
from embodichain.contracts import Recipe, UnifiedAction, seed_range
from envs import HOME_QPOS, ArmControl, BoxPart, PandaKinematics
from tasks import TaskSession, get_task, task_names
from tasks.dynamics import GAIN_WIDTH, MASS_OFFSET, MAX_LATENCY
from tasks.grasps import JOINT_MARGIN, SIDEWAYS, choose_hold
from tasks.motion import MotionPlanner, ToolTarget, compose, tool_axis
from tasks.reach import HEIGHT, OWN_SIDE, spread_over, vary_reach
from tasks.sampling import draw_scene
from tasks.skills import BLOCK_SLACK, SHARED


@pytest.fixture(scope="module")
def session() -> TaskSession:
    return TaskSession()


@pytest.mark.parametrize("task", task_names())
def test_physics_draws_stay_in_their_ranges_and_touch_nothing_else(task: str) -> None:
    bare = draw_scene(get_task(task), 5, "spatial")
    assert bare.spec.arm_control == (ArmControl(), ArmControl())
    assert not any(any(o.mass_offset) for o in bare.spec.objects)
    latencies = set()
    for seed in range(12):
        scene = draw_scene(get_task(task), seed, "default")
        assert scene == draw_scene(get_task(task), seed, "default")
        assert json.loads(json.dumps(scene.draws)) == scene.draws
        for o in scene.spec.objects:
            assert any(o.mass_offset)
            assert (np.abs(o.mass_offset) <= MASS_OFFSET * np.asarray(o.half_extents)).all()
            assert scene.draws[f"{o.name}_mass_offset"] == list(o.mass_offset)
        for arm, control in zip(("left", "right"), scene.spec.arm_control, strict=True):
            assert max(abs(control.stiffness - 1.0), abs(control.damping - 1.0)) <= GAIN_WIDTH
            assert 0 <= control.latency <= MAX_LATENCY
            assert scene.draws[f"{arm}_latency"] == control.latency
            latencies.add(control.latency)
    assert latencies == set(range(MAX_LATENCY + 1))


@pytest.mark.parametrize("task", task_names())
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_nothing_tips_over_by_itself_wherever_its_mass_sits(session: TaskSession, task: str, side: float) -> None:
    """The socket of insert_peg once did: its centre of mass could lie beyond the edge that it stood on."""
    scene = draw_scene(get_task(task), 1, "default")
    objects = tuple(
        replace(o, mass_offset=tuple((MASS_OFFSET * np.asarray(o.half_extents) * (side, side, 1.0)).tolist()))
        for o in scene.spec.objects
    )
    session.begin(get_task(task), replace(scene, spec=replace(scene.spec, objects=objects)))
    before = session.world.object_pose()
    still = np.where(UnifiedAction.joint_control_mask(), session.observe().proprio, 0.0).astype(np.float32)
    for _ in range(10):
        session.step(still)
    np.testing.assert_allclose(session.world.object_pose(), before, atol=2e-3)


@pytest.mark.parametrize("task", task_names())
def test_reach_draws_starts_within_reach_and_touches_nothing_else(task: str) -> None:
    kinematics = PandaKinematics()
    for seed in range(6):
        plain, scene = (draw_scene(get_task(task), seed, domain) for domain in ("default", "default+reach"))
        assert plain.spec.grasp_draws == ()
        assert replace(scene.spec, arm_qpos=plain.spec.arm_qpos, grasp_draws=()) == plain.spec
        assert scene == draw_scene(get_task(task), seed, "default+reach")
        assert json.loads(json.dumps(scene.draws)) == scene.draws
        assert scene.draws["arm_qpos"] == [list(q) for q in scene.spec.arm_qpos] != plain.draws["arm_qpos"]
        for q in map(np.asarray, scene.spec.arm_qpos):
            assert (q > kinematics.lower + JOINT_MARGIN).all()
            assert (q < kinematics.upper - JOINT_MARGIN).all()
            assert np.abs(q[[2, 4]]).max() < SIDEWAYS
            tool = kinematics.forward(q)
            assert HEIGHT[0] - 1e-3 < tool[2] < HEIGHT[1] + 1e-3
            assert scene.spec.base_distance - tool[0] > OWN_SIDE - 1e-3


@pytest.mark.parametrize("task", task_names())
def test_arms_start_clear_of_everything(session: TaskSession, task: str) -> None:
    """In physics: one step after the reset no arm touches the other one, an object or the table."""
    for seed in range(3):
        session.reset(Recipe(task=task, seed=seed, domain="default+reach"))
        world = session.world
        before = world.arm_qpos()
        world._px.step()
        links = {link for arm in world.arms for link in arm.articulation.links}
        for contact in world._px.get_contacts():
            own = [body in links for body in contact.bodies]
            same_arm = all(own) and contact.bodies[0].articulation == contact.bodies[1].articulation
            assert same_arm or not any(own) or all(point.separation > 0.0 for point in contact.points)
        np.testing.assert_allclose(world.arm_qpos(), before, atol=1e-3)


def test_starts_and_grasps_of_consecutive_recipes_beat_random_ones() -> None:
    """By the draws alone: the stage against pseudo-random numbers through the same maps, on 64 recipes."""
    task, discrepancy = get_task("pick_place"), {}
    for name in ("uniform", "reach"):
        scenes = [bench.SAMPLERS[name](task, 1000 + i) for i in range(64)]
        kinematics = PandaKinematics()
        tools = [kinematics.forward(np.asarray(scene.spec.arm_qpos[0])) for scene in scenes]
        starts = np.stack([bench.start_in_cube(tool[:3]) for tool in tools])
        grasps = np.array([scene.spec.grasp_draws[0] for scene in scenes])
        discrepancy[name] = [qmc.discrepancy(np.clip(p, 0.0, 1.0)) for p in (starts, grasps)]
    for even, random in zip(discrepancy["reach"], discrepancy["uniform"], strict=True):
        assert even < 0.5 * random


def test_experts_grasp_as_drawn_and_physics_confirms_them() -> None:
    """Grasps lean to either side by their draws, on both pairs of faces, and the blocks end where they belong."""
    session, seen = bench.Watcher(bench.SAMPLERS["reach"]), bench.Seen()
    for task, count in (("pick_place", 6), ("line_up_blocks", 1)):
        for seed in range(count):
            bench.watch(session, task, seed, seen)
    assert seen.accepted == 7
    faces, tilts = np.stack(seen.approaches).T
    assert set(faces) == {0.0, 1.0}
    assert tilts.min() < -0.1
    assert tilts.max() > 0.1
    assert np.abs(tilts).max() < BLOCK_SLACK.tilt + 0.05
    assert np.ptp(seen.contacts, axis=0).min() > 0.3


def test_what_cannot_be_reached_falls_back_to_the_plain_start_and_grasp() -> None:
    scene = draw_scene(get_task("pick_place"), 0, "default")
    crowd = replace(scene.spec.objects[0], parts=(BoxPart(half_size=(2.0, 2.0, 2.0)),))
    crowded = replace(scene, spec=replace(scene.spec, objects=(crowd,)))
    assert vary_reach(crowded, spread_over("pick_place", 0)).spec.arm_qpos == scene.spec.arm_qpos
    planner = MotionPlanner(PandaKinematics(), scene.spec.base_distance)
    near, far = (ToolTarget(position=(0.0, y, 0.02), slack=BLOCK_SLACK) for y in (0.3, -0.6))
    assert choose_hold(planner, 0, near, [], (0.5,) * 4) is not None
    assert choose_hold(planner, 0, far, [], (0.5,) * 4) is None


def test_numbers_are_mapped_onto_the_tilts_within_reach() -> None:
    """Close to its base an arm cannot lean both ways; the extremes of the numbers still give grasps that it reaches."""
    planner = MotionPlanner(PandaKinematics(), 0.70)
    target = ToolTarget(position=(0.0, 0.37, 0.02), slack=replace(BLOCK_SLACK, quarter=False))
    numbers, tilts = (np.arange(50) + 0.5) / 50, []
    for number in numbers:
        hold = choose_hold(planner, 0, target, [], (0.0, number, 0.5, 0.0))
        assert hold is not None
        assert planner.kinematics.inverse(compose(planner.in_base(0, target), hold), np.asarray(HOME_QPOS)) is not None
        tilts.append(2.0 * np.arctan2(hold[5], hold[3]))
    low, high = min(tilts), max(tilts)
    assert -BLOCK_SLACK.tilt + 0.05 < low < high < BLOCK_SLACK.tilt
    drawn = (2.0 * numbers - 1.0) * BLOCK_SLACK.tilt
    np.testing.assert_allclose(np.asarray(tilts)[drawn > low], drawn[drawn > low], atol=1e-9)  # in reach: as drawn
    counts, _ = np.histogram(tilts, bins=5, range=(low, high + 1e-9))
    assert counts.min() >= 8  # of 10 each: the others fill up evenly


def test_an_arm_that_starts_where_the_other_one_works_makes_way(session: TaskSession) -> None:
    """The right arm begins 15 cm from the middle line, beside the disc on which the left one builds."""
    observation = session.reset(Recipe(task="stack_blocks", seed=1, domain="default+reach"))
    assert observation.tool_pose[1, 1] > -SHARED
    plan = session.expert()
    for row in plan.action[plan.segment_id <= plan.segment_names.index("retreat lower")]:
        observation = session.step(row)
        assert not session.world.arms_touch()
    assert observation.tool_pose[1, 1] < -SHARED
    aside = draw_scene(get_task("stack_blocks"), 1, "default")
    session.begin(get_task("stack_blocks"), aside)
    plan = session.expert()
    first = plan.action[plan.segment_id == 0][:, UnifiedAction.joints(1)]
    assert np.ptp(first, axis=0).max() == 0.0


def test_without_the_stage_the_expert_grasps_straight_down(session: TaskSession) -> None:
    session.reset(Recipe(task="pick_place", seed=seed_range("test").at(3)))
    plan = session.expert()
    for row in plan.action[plan.segment_id == 0]:
        observation = session.step(row)
    assert min(tool_axis(tool)[2] for tool in observation.tool_pose) > 0.98
