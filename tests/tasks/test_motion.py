"""Tilted tools: what a `ToolTarget` says is where the arm's fingers are and how they point, in the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from envs import ARM_DOF, HOME_QPOS, PandaKinematics, make_pose
from envs.scene import SceneSpec
from envs.world import DualArmWorld
from tasks.frames import rotation, to_local, to_world
from tasks.motion import MotionPlanner, ToolTarget, between, tool_axis, turn_along
from tasks.skills import Pen

AHEAD = {0: np.array([0.0, -1.0, 0.0]), 1: np.array([0.0, 1.0, 0.0])}  # of either arm, in the world


@pytest.fixture(scope="module")
def world() -> DualArmWorld:
    return DualArmWorld()


@pytest.fixture(scope="module")
def planner() -> MotionPlanner:
    return MotionPlanner(
        PandaKinematics(), SceneSpec(objects=(), goals=(), arm_qpos=(HOME_QPOS, HOME_QPOS)).base_distance
    )


def posture(world: DualArmWorld, planner: MotionPlanner, arm: int, target: ToolTarget) -> np.ndarray:
    """The frame f64[3, 3] of the tool, and checks its place, with the arm where the planner's path ends."""
    knots = planner.arch(np.asarray(HOME_QPOS), planner.in_base(arm, target))
    qpos = [HOME_QPOS, HOME_QPOS]
    qpos[arm] = tuple(float(v) for v in knots[-1])
    world.rebuild(SceneSpec(objects=(), goals=(), arm_qpos=(qpos[0], qpos[1])))
    pose = world.tool_pose()[arm]
    np.testing.assert_allclose(pose[:3], target.position, atol=5e-4)
    return rotation(pose)


@pytest.mark.parametrize("arm", [0, 1])
@pytest.mark.parametrize("tilt", [-0.5, 0.0, 0.6])
def test_a_tilt_leans_the_hand_away_from_its_base_about_the_closing_axis(
    world: DualArmWorld, planner: MotionPlanner, arm: int, tilt: float
) -> None:
    side = 1.0 if arm == 0 else -1.0
    frame = posture(world, planner, arm, ToolTarget(position=(0.05, 0.15 * side, 0.15), tilt=tilt))
    np.testing.assert_allclose(frame[:, 2], np.sin(tilt) * AHEAD[arm] + np.cos(tilt) * np.array([0, 0, 1]), atol=2e-3)
    assert abs(abs(frame[0, 1]) - 1.0) < 1e-3  # fingers close along x, whatever the tilt


@pytest.mark.parametrize("arm", [0, 1])
@pytest.mark.parametrize("tilt", [-1.4, 0.7, 1.4])
def test_turned_along_a_yaw_the_hand_leans_there(
    world: DualArmWorld, planner: MotionPlanner, arm: int, tilt: float
) -> None:
    yaw = 0.2 if arm == 0 else 0.2 + np.pi
    side = 1.0 if arm == 0 else -1.0
    target = ToolTarget(position=(0.02, 0.10 * side, 0.18), turn=turn_along(arm, yaw), tilt=tilt)
    towards = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    frame = posture(world, planner, arm, target)
    np.testing.assert_allclose(frame[:, 2], np.sin(tilt) * towards + np.cos(tilt) * np.array([0, 0, 1]), atol=2e-3)


def test_a_hand_backs_off_along_its_own_axis(planner: MotionPlanner) -> None:
    here = ToolTarget(position=(0.02, 0.10, 0.18), turn=np.pi / 2, tilt=-1.2)
    pen = Pen(0, planner.arch(np.asarray(HOME_QPOS), planner.in_base(0, here))[-1], np.asarray(HOME_QPOS), planner)
    start = planner.kinematics.forward(pen.q)
    pen.back_off(here, 0.1)
    end = planner.kinematics.forward(pen.q)
    np.testing.assert_allclose(end[:3] - start[:3], 0.1 * tool_axis(start), atol=1e-3)
    assert pen.commands[0] == 1.0


def test_the_kinematics_return_a_tilted_target(planner: MotionPlanner) -> None:
    for tilt in np.linspace(-1.5, 1.5, 7):
        target = ToolTarget(position=(0.0, 0.15, 0.2), turn=np.pi / 2, tilt=float(tilt))
        pose = planner.in_base(0, target)
        q = planner.arch(np.asarray(HOME_QPOS), pose)[-1]
        reached = planner.kinematics.forward(q)
        assert q.shape == (ARM_DOF,)
        np.testing.assert_allclose(reached[:3], pose[:3], atol=2e-4)
        assert abs(float(reached[3:] @ pose[3:])) > 1.0 - 1e-6
        np.testing.assert_allclose(tool_axis(reached), tool_axis(pose), atol=1e-3)


def test_a_path_keeps_the_posture_that_it_starts_in(planner: MotionPlanner) -> None:
    """A leaning hand that moves on does not swing its elbow over to another posture half way."""
    start = ToolTarget(position=(-0.02, 0.22, 0.06), turn=np.pi / 2, tilt=-1.15)
    q = planner.arch(np.asarray(HOME_QPOS), planner.in_base(0, start))[-1]
    end = ToolTarget(position=(0.0, 0.05, 0.2), turn=np.pi / 2, tilt=-1.15)
    knots = planner.arch(q, planner.in_base(0, end), depart=0.1)
    assert np.abs(np.diff(knots, axis=0)).max() < 0.5


def test_targets_between_two_lie_on_a_line() -> None:
    ends = ToolTarget(position=(0.0, 0.1, 0.2), turn=0.4), ToolTarget(position=(0.1, 0.1, 0.0), turn=0.4, tilt=1.0)
    row = between(*ends, 5)
    assert (row[0], row[-1]) == ends
    np.testing.assert_allclose(row[2].position, (0.05, 0.1, 0.1))
    assert row[2].tilt == pytest.approx(0.5)


def test_points_go_to_the_world_and_back() -> None:
    pose = make_pose((0.1, -0.2, 0.3), 0.5 * np.pi)
    np.testing.assert_allclose(to_world(pose, (1.0, 0.0, 0.0)), (0.1, 0.8, 0.3), atol=1e-12)
    np.testing.assert_allclose(to_local(pose, to_world(pose, (0.3, 0.2, 0.1))), (0.3, 0.2, 0.1), atol=1e-12)
