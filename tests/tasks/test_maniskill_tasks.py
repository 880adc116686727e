"""ManiSkill's two-robot tasks against ManiSkill itself: same judgement, known ranges, plans that work over there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import mani_skill.envs  # noqa: F401  registers ManiSkill's own tasks
import numpy as np
import pytest
import sapien
import torch
from mani_skill.utils.structs import Pose

from embodichain.contracts import Recipe, UnifiedAction, seed_range
from envs import ARM_DOF, HOME_QPOS, PandaKinematics, SceneSpec, arm_base
from envs.world import DualArmWorld
from tasks import TaskSession, get_task
from tasks.base import Monitor
from tasks.judge import tilt, yaw_of
from tasks.maniskill import X_BEYOND
from tasks.motion import MotionPlanner, ToolTarget
from tasks.sampling import draw_scene
from tasks.two_robot_pick_cube import TwoRobotPickCubeMonitor
from tasks.two_robot_stack_cube import TwoRobotStackCubeMonitor

HOLD = 12  # control steps after the plan
DOMAIN = "spatial"  # the stage `physics` off: cubes are ManiSkill's to the gram


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What of ManiSkill's environment stands for what of our scene; `flags` in the order of `parts`."""

    task: str
    env_id: str
    objects: tuple[str, ...]
    goal: str
    flags: tuple[str, ...]
    goal_axes: int


TWINS = (
    Twin(
        task="two_robot_pick_cube",
        env_id="TwoRobotPickCube-v1",
        objects=("cube",),
        goal="goal_site",
        flags=("is_obj_placed", "is_right_arm_static"),
        goal_axes=3,
    ),
    Twin(
        task="two_robot_stack_cube",
        env_id="TwoRobotStackCube-v1",
        objects=("cubeB", "cubeA"),
        goal="goal_region",
        flags=("cubeB_placed", "is_cubeA_on_cubeB", "is_cubeB_grasped", "is_cubeA_grasped"),
        goal_axes=2,
    ),
)


@pytest.fixture(scope="module", params=TWINS, ids=lambda twin: twin.task)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Twin, Any]]:
    """A task and ManiSkill's own environment of it, driven by joint positions on the CPU."""
    env = gymnasium.make(
        request.param.env_id,
        obs_mode="none",
        reward_mode="none",
        sim_backend="physx_cpu",
        render_backend="none",
        control_mode="pd_joint_pos",
    )
    yield request.param, env.unwrapped
    env.close()


def agents(env: Any) -> tuple[Any, Any]:
    """ManiSkill's robots in our order: ours on the left, y > 0, is the one that it calls right."""
    return env.right_agent, env.left_agent


def copy_state(twin: Twin, env: Any, world: DualArmWorld) -> None:
    """Put ManiSkill's bodies, goal and robots where ours are, and let them move as ours do."""
    for name, pose, velocity in zip(twin.objects, world.object_pose(), world.object_velocity(), strict=True):
        actor = getattr(env, name)
        actor.set_pose(Pose.create(torch.tensor(pose)[None]))
        actor.set_linear_velocity(torch.tensor(velocity[None, :3]))
        actor.set_angular_velocity(torch.tensor(velocity[None, 3:]))
    goal = getattr(env, twin.goal)
    goal.set_pose(sapien.Pose(list(world.spec_scene.goals[0].pose[:3]), goal.pose.q[0].tolist()))
    for agent, qpos, qvel in zip(agents(env), world.arm_qpos(), world.arm_qvel(), strict=True):
        agent.robot.set_qpos(torch.tensor(qpos)[None])
        agent.robot.set_qvel(torch.tensor(qvel)[None])


def as_their_action(env: Any, action: np.ndarray) -> dict[str, np.ndarray]:
    """f32[30] -> ManiSkill's `pd_joint_pos` per robot: joint angles, and the gripper in [-1, 1]."""
    names = {agent: name for name, agent in env.agent.agents_dict.items()}
    return {
        names[agent]: np.append(action[UnifiedAction.joints(arm)], 2.0 * action[UnifiedAction.gripper(arm)] - 1.0)
        for arm, agent in enumerate(agents(env))
    }


def begin(session: TaskSession, twin: Twin, index: int) -> np.ndarray:
    """A fresh scene; its expert's actions f32[T, 30] and the hold after them."""
    session.reset(Recipe(task=twin.task, seed=seed_range("test").at(index), domain=DOMAIN))
    action = session.expert().action
    return np.concatenate([action, np.repeat(action[-1:], HOLD, axis=0)])


def parts(monitor: Monitor, world: DualArmWorld) -> tuple[bool, ...]:
    """What our predicate is made of, in the order of `Twin.flags`."""
    if isinstance(monitor, TwoRobotPickCubeMonitor):
        return monitor.placed(world), monitor.static(world)
    assert isinstance(monitor, TwoRobotStackCubeMonitor)
    return monitor.placed(world), monitor.stacked(world), *monitor.grasped(world)


@pytest.mark.parametrize("index", [0, 1])
def test_every_state_of_an_episode_is_judged_as_maniskill_judges_it(
    pair: tuple[Twin, Any], session: TaskSession, index: int
) -> None:
    """Each control step is made in both from the same state (that gives the contacts), then its end is compared."""
    twin, env = pair
    env.reset(seed=index)
    task, seed = get_task(twin.task), seed_range("test").at(index)
    monitor = task.monitor(draw_scene(task, seed, DOMAIN))
    ours, theirs, success = [], [], []
    for action in begin(session, twin, index):
        copy_state(twin, env, session.world)
        env.step(as_their_action(env, action))
        session.step(action)
        copy_state(twin, env, session.world)
        verdict = {name: bool(value) for name, value in env.evaluate().items()}
        ours.append(parts(monitor, session.world))
        theirs.append(tuple(verdict[name] for name in twin.flags))
        success.append((session.status().success, verdict["success"]))
    assert ours == theirs
    assert all(len(set(column)) == 2 for column in zip(*theirs, strict=True)), "a flag never changed: nothing compared"
    assert {here for here, there in success if not there} == {False}  # ours asks for rest besides, so it comes later
    assert success[-HOLD:] == [(True, True)] * HOLD


def test_plans_succeed_in_maniskills_own_physics(pair: tuple[Twin, Any], session: TaskSession) -> None:
    twin, env = pair
    for index in range(3):
        env.reset(seed=index)
        actions = begin(session, twin, index)
        copy_state(twin, env, session.world)
        assert not env.evaluate()["success"].item()
        for action in actions:
            *_, info = env.step(as_their_action(env, action))
        assert info["success"].item(), f"{twin.task}, seed {index}"


@pytest.mark.parametrize("distance", [0.65, 0.75])
def test_tools_go_where_they_are_sent_and_lean_away_from_their_base(session: TaskSession, distance: float) -> None:
    kinematics = PandaKinematics()
    planner = MotionPlanner(kinematics, distance)
    targets = [ToolTarget(position=(0.05, y, 0.1), turn=0.4, tilt=-0.3) for y in (0.1, -0.1)]
    reached = [kinematics.inverse(planner.in_base(a, t), np.asarray(HOME_QPOS)) for a, t in enumerate(targets)]
    qpos = tuple(tuple(q.tolist()) for q in reached if q is not None)
    assert len(qpos) == 2
    session.world.rebuild(SceneSpec(objects=(), goals=(), arm_qpos=qpos, base_distance=distance))
    for arm, (pose, target) in enumerate(zip(session.world.tool_pose(), targets, strict=True)):
        np.testing.assert_allclose(pose[:3], target.position, atol=1e-3)
        assert tilt(pose) == pytest.approx(0.3, abs=2e-3)
        fingertips = -sapien.Pose(pose[:3], pose[3:]).to_transformation_matrix()[:3, 2]
        assert fingertips[1] * (1.0, -1.0)[arm] < -0.2  # from its base at +y (left) or -y (right), outwards


def test_a_cube_held_firmly_is_at_rest_whatever_its_reported_velocity(session: TaskSession) -> None:
    for action in begin(session, TWINS[0], 0):
        session.step(action)
    before = session.world.object_pose()
    session.step(action)
    assert np.abs(session.world.object_pose() - before).max() < 1e-5
    assert np.linalg.norm(session.world.object_velocity()[0, 3:]) > 1.0  # rad/s, says PhysX
    assert session.status().success


def beyond(count: int, axes: int) -> np.ndarray:
    """By how much our ranges pass ManiSkill's at either end, m, in the order of `places`: along x alone."""
    return np.concatenate([np.tile([X_BEYOND, 0.0, 0.0, 0.0], count), [X_BEYOND, *[0.0] * (axes - 1)]])


def places(poses: list[np.ndarray], goal: np.ndarray) -> np.ndarray:
    """Everything that a scene draws about where things lie: positions and yaws of the cubes, and the goal."""
    return np.concatenate([*(np.append(pose[:3], yaw_of(pose)) for pose in poses), goal])


def test_scenes_cover_what_maniskill_draws_and_more_along_x(pair: tuple[Twin, Any]) -> None:
    """The bounds of 200 scenes each: a uniform draw leaves out 6 % of its range at one end once in 250 000 times."""
    twin, env = pair
    task, axes = get_task(twin.task), twin.goal_axes
    ours, theirs = [], []
    for seed in range(200):
        spec = draw_scene(task, seed, DOMAIN).spec
        ours.append(places([np.asarray(o.pose) for o in spec.objects], np.asarray(spec.goals[0].pose[:axes])))
        env.reset(seed=seed)
        poses = [getattr(env, name).pose.raw_pose[0].numpy() for name in twin.objects]
        theirs.append(places(poses, getattr(env, twin.goal).pose.p[0].numpy()[:axes]))
    more = beyond(len(twin.objects), axes)
    slack = 1e-6 + 0.06 * (np.ptp(theirs, axis=0) + 2.0 * more)
    for bound, outwards in ((np.min, -1.0), (np.max, 1.0)):
        assert (np.abs(bound(ours, axis=0) - bound(theirs, axis=0) - outwards * more) <= slack).all()


def test_arms_and_cubes_are_maniskills(pair: tuple[Twin, Any]) -> None:
    twin, env = pair
    env.reset(seed=0)
    spec = draw_scene(get_task(twin.task), 0, "clean").spec
    for arm, agent in enumerate(agents(env)):
        base, robot = arm_base(arm, spec.base_distance), agent.robot
        np.testing.assert_allclose(robot.pose.p[0].numpy(), base.p, atol=1e-6)
        np.testing.assert_allclose(abs(float(robot.pose.q[0].numpy() @ base.q)), 1.0, atol=1e-6)
        assert np.abs(robot.qpos[0, :ARM_DOF].numpy() - spec.arm_qpos[arm]).max() < 0.1  # five sigmas of its noise
    for name, ours in zip(twin.objects, spec.objects, strict=True):
        shape = getattr(env, name)._bodies[0].collision_shapes[0]
        np.testing.assert_allclose(ours.half_extents, shape.half_size, rtol=1e-6)
        np.testing.assert_allclose(ours.mass, getattr(env, name).mass.item(), rtol=1e-5)
        np.testing.assert_allclose(ours.friction, shape.physical_material.dynamic_friction, rtol=1e-6)
