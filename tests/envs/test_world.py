"""The world: kinematics against physics, bit-exact rebuilds, the control step, rejected input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embodichain.contracts import ACTION_DIM, UnifiedAction
from envs import (
    HOME_QPOS,
    ArmControl,
    BoxPart,
    CameraView,
    DualArmWorld,
    GoalSpec,
    JointSpec,
    ObjectSpec,
    PandaFactory,
    PandaKinematics,
    RenderConfig,
    SceneSpec,
    camera_views,
    make_pose,
)


@pytest.fixture(scope="module")
def world() -> DualArmWorld:
    return DualArmWorld()


def cube_scene(y: float = 0.2, qpos: tuple[float, ...] = HOME_QPOS) -> SceneSpec:
    cube = ObjectSpec(
        name="cube", parts=(BoxPart(half_size=(0.02, 0.02, 0.02)),), pose=make_pose((0.0, y, 0.02)), mass=0.1
    )
    return SceneSpec(objects=(cube,), goals=(), arm_qpos=(qpos, qpos))


def hold_action(world: DualArmWorld) -> np.ndarray:
    action = world.proprio()
    action[[14, 29]] = 1.0
    return action


def test_forward_kinematics_agrees_with_physics(world: DualArmWorld) -> None:
    kinematics, rng = PandaKinematics(), np.random.default_rng(0)
    for _ in range(5):
        q = np.asarray(HOME_QPOS) + rng.uniform(-0.4, 0.4, 7)
        world.rebuild(cube_scene(qpos=tuple(q)))
        expected = kinematics.forward(q)
        for arm in (0, 1):
            np.testing.assert_allclose(world.proprio()[UnifiedAction.eef(arm)], expected, atol=2e-4)


def test_inverse_kinematics_reaches_and_depends_on_the_pose_alone() -> None:
    kinematics, rng = PandaKinematics(), np.random.default_rng(1)
    for _ in range(10):
        pose = np.array([rng.uniform(0.4, 0.62), rng.uniform(-0.2, 0.2), rng.uniform(0.02, 0.3), 1.0, 0.0, 0.0, 0.0])
        first = kinematics.inverse(pose, np.asarray(HOME_QPOS))
        second = kinematics.inverse(pose, np.asarray(HOME_QPOS) + rng.uniform(-0.2, 0.2, 7))
        assert first is not None
        assert second is not None
        np.testing.assert_allclose(kinematics.forward(first)[:3], pose[:3], atol=1e-4)
        np.testing.assert_allclose(first, second, atol=2e-3)


def test_inverse_kinematics_refuses_what_is_out_of_reach() -> None:
    pose = np.array([1.2, 0.0, 0.1, 1.0, 0.0, 0.0, 0.0])
    assert PandaKinematics().inverse(pose, np.asarray(HOME_QPOS)) is None


def test_motion_is_what_an_object_moved_in_a_control_step(world: DualArmWorld) -> None:
    world.rebuild(cube_scene())
    assert not world.object_motion().any()
    high = world.object_pose()[0]
    high[2] += 0.2
    world.place_object(0, high)
    world.apply(hold_action(world))
    assert world.object_motion()[0, 0] == pytest.approx((high[2] - world.object_pose()[0, 2]) * 20.0, rel=1e-4)
    assert world.object_motion()[0, 0] > 0.1
    for _ in range(30):
        world.apply(hold_action(world))
    assert world.object_motion()[0, 0] < 1e-3


def test_a_held_arm_stays_and_a_cube_rests(world: DualArmWorld) -> None:
    world.rebuild(cube_scene())
    before = world.sim_state()
    action = hold_action(world)
    for _ in range(20):
        world.apply(action)
    np.testing.assert_allclose(world.sim_state(), before, atol=1e-3)
    assert np.abs(world.object_velocity()).max() < 1e-3


def test_joint_targets_are_reached_and_grippers_close(world: DualArmWorld) -> None:
    world.rebuild(cube_scene())
    action = hold_action(world)
    action[UnifiedAction.joints(1)] += 0.2
    action[UnifiedAction.gripper(0)] = 0.0
    for _ in range(30):
        world.apply(action)
    proprio = world.proprio()
    np.testing.assert_allclose(proprio[UnifiedAction.joints(1)], action[UnifiedAction.joints(1)], atol=5e-3)
    assert proprio[14] < 0.01
    assert proprio[29] > 0.99


def test_rebuild_is_bit_exact_whatever_ran_before(world: DualArmWorld) -> None:
    rng = np.random.default_rng(2)

    def run() -> bytes:
        world.rebuild(cube_scene(0.15))
        action = hold_action(world)
        steps = np.random.default_rng(7).normal(0.0, 0.05, (25, ACTION_DIM)).astype(np.float32)
        states = []
        for noise in steps:
            world.apply(action + noise)
            states.append(world.sim_state())
        return np.stack(states).tobytes()

    first = run()
    world.rebuild(cube_scene(-0.2))
    for _ in range(10):
        world.apply(hold_action(world) + rng.normal(0.0, 0.2, ACTION_DIM).astype(np.float32))
    assert run() == first


def test_bad_actions_are_refused_and_nothing_moves(world: DualArmWorld) -> None:
    world.rebuild(cube_scene())
    before = world.sim_state()
    with pytest.raises(ValueError, match="shape"):
        world.apply(np.zeros(29, dtype=np.float32))
    with pytest.raises(ValueError, match="finite"):
        world.apply(np.full(ACTION_DIM, np.nan, dtype=np.float32))
    assert world.sim_state().tobytes() == before.tobytes()


def test_a_world_without_renderer_says_so(world: DualArmWorld) -> None:
    world.rebuild(cube_scene())
    with pytest.raises(ValueError, match="RenderConfig"):
        world.render_observation()


def test_quaternions_have_a_non_negative_real_part(world: DualArmWorld) -> None:
    world.rebuild(cube_scene())
    assert (world.tool_pose()[:, 3] >= 0).all()
    assert world.proprio()[3] > 0.99  # straight down is the identity in the arm's base frame


def jointed_scene(
    kind: str, axis: tuple[float, float, float], limits: tuple[float, float], *, friction: float = 0.0, arm: float = 0.0
) -> SceneSpec:
    """A cube, `arm` m off its joint's anchor."""
    slider = ObjectSpec(
        name="slider",
        parts=(BoxPart(half_size=(0.02, 0.02, 0.02), position=(arm, 0.0, 0.0)),),
        base=(BoxPart(half_size=(0.05, 0.05, 0.005), position=(0.0, 0.0, -0.1)),),
        joint=JointSpec(kind=kind, axis=axis, limits=limits, friction=friction, damping=0.0),
        pose=make_pose((0.0, 0.2, 0.3), 0.4),
        mass=0.2,
    )
    return SceneSpec(objects=(slider,), goals=(), arm_qpos=(HOME_QPOS, HOME_QPOS))


@pytest.mark.parametrize(("friction", "end"), [(0.0, 0.5), (20.0, 0.0)])
def test_a_weight_falls_about_a_free_hinge_and_stays_on_a_rough_one(
    world: DualArmWorld, friction: float, end: float
) -> None:
    world.rebuild(jointed_scene("hinge", (0.0, 1.0, 0.0), (0.0, 0.5), friction=friction, arm=0.05))
    for _ in range(30):
        world.apply(hold_action(world))
    assert world.joint_position(0) == pytest.approx(end, abs=0.01)


def test_a_slide_falls_to_its_limit_along_its_axis_and_a_hinge_about_it_stays(world: DualArmWorld) -> None:
    world.rebuild(jointed_scene("slide", (0.0, 0.0, -1.0), (0.0, 0.05)))
    start = world.object_pose()[0]
    np.testing.assert_allclose(start, make_pose((0.0, 0.2, 0.3), 0.4), atol=1e-6)
    for _ in range(40):
        world.apply(hold_action(world))
    assert world.joint_position(0) == pytest.approx(0.05, abs=2e-3)
    np.testing.assert_allclose(world.object_pose()[0, :3], start[:3] - [0.0, 0.0, world.joint_position(0)], atol=1e-4)
    with pytest.raises(ValueError, match="held by a joint"):
        world.place_object(0, start)
    world.rebuild(jointed_scene("hinge", (0.0, 0.0, 1.0), (-1.0, 1.0)))
    for _ in range(10):
        world.apply(hold_action(world))
    assert abs(world.joint_position(0)) < 1e-3  # gravity has no moment about the vertical
    world.rebuild(cube_scene())
    with pytest.raises(ValueError, match="no joint"):
        world.joint_position(0)


def test_a_density_that_varies_linearly_moves_the_mass_and_the_inertia_follows(world: DualArmWorld) -> None:
    """Against the integral of the density over a grid of points, for a long box."""
    half, offset, mass = np.array([0.02, 0.10, 0.03]), np.array([0.002, -0.008, 0.001]), 0.4
    bar = replace(
        cube_scene().objects[0], parts=(BoxPart(half_size=tuple(half)),), mass=mass, mass_offset=tuple(offset)
    )
    world.rebuild(replace(cube_scene(), objects=(bar,)))
    axis = (np.arange(40) + 0.5) / 20.0 - 1.0
    points = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3) * half
    weights = 1.0 + points @ (3.0 * offset / half**2)
    assert weights.min() > 0.0
    weights *= mass / weights.sum()
    centre = weights @ points / mass
    off = points - centre
    square = (off**2).sum(1)[:, None, None] * np.eye(3)
    inertia = np.einsum("n,nij->ij", weights, square - off[:, :, None] * off[:, None])
    body = world._bodies[0]
    np.testing.assert_allclose(body.cmass_local_pose.p, offset, atol=1e-7)
    np.testing.assert_allclose(centre, offset, rtol=2e-3)
    axes = body.cmass_local_pose.to_transformation_matrix()[:3, :3]
    np.testing.assert_allclose(axes @ np.diag(body.inertia) @ axes.T, inertia, rtol=5e-3, atol=1e-7)
    assert body.mass == pytest.approx(mass, rel=1e-5)
    with pytest.raises(ValueError, match="too far out"):
        world.rebuild(replace(cube_scene(), objects=(replace(bar, mass_offset=(0.0, 0.09, 0.0)),)))


def test_a_late_command_arrives_as_many_physics_steps_later(world: DualArmWorld) -> None:
    """The command takes effect in the third of five physics steps, and the arm lags behind the prompt one since."""

    def first_joints(latency: int) -> np.ndarray:
        world.rebuild(replace(cube_scene(), arm_control=(ArmControl(latency=latency), ArmControl())))
        action, seen = hold_action(world), []
        action[[7, 22]] += 0.3  # the first joint of either arm
        for _ in range(6):
            world.apply(action)
            seen.append(world.arm_qpos()[:, 0])
        return np.asarray(seen)

    prompt, late, later = (first_joints(latency)[:, 0] for latency in (0, 2, 4))
    assert (np.diff([later, late, prompt], axis=0) > 0.0).all()
    speed = np.gradient(prompt, 0.05)[1:4]
    np.testing.assert_allclose((prompt - late)[1:4] / speed, 0.02, atol=0.008)  # two steps of 10 ms
    np.testing.assert_array_equal(first_joints(0)[:, 1], first_joints(4)[:, 1])  # the other arm knows nothing of it
    with pytest.raises(ValueError, match="latency=5"):
        world.rebuild(replace(cube_scene(), arm_control=(ArmControl(latency=5), ArmControl())))


def test_a_stiffer_arm_follows_closer(world: DualArmWorld) -> None:
    world.rebuild(replace(cube_scene(), arm_control=(ArmControl(stiffness=1.15), ArmControl(stiffness=0.85))))
    action = hold_action(world)
    action[[7, 22]] += 0.3
    for _ in range(3):
        world.apply(action)
    stiff, soft = world.arm_qpos()[:, 0]
    assert stiff > soft + 0.01


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        (lambda: RenderConfig(cameras=("moon",)), "moon"),
        (lambda: RenderConfig(width=4), "width"),
        (lambda: RenderConfig(supersample=5), "supersample=5"),
        (lambda: RenderConfig(backend="tpu"), "tpu"),
        (lambda: PandaFactory(visuals="gold"), "gold"),
        (lambda: GoalSpec(name="g", pose=make_pose((0, 0, 0)), tolerance=(1, 1, 1), marker="star"), "star"),
        (lambda: ObjectSpec(name="o", parts=(), pose=make_pose((0, 0, 0)), mass=1.0), "part"),
        (lambda: replace(cube_scene().objects[0], grasps=()), "grasp"),
        (lambda: replace(cube_scene().objects[0], parts=(BoxPart(half_size=(0.02, 0.0, 0.02)),)), "no size"),
        (lambda: replace(cube_scene().objects[0], parts=(BoxPart(half_size=(0.02, -0.01, 0.02)),)), "no size"),
        (lambda: replace(cube_scene().objects[0], parts=(BoxPart(half_size=(0.02, np.nan, 0.02)),)), "no size"),
        (lambda: replace(cube_scene().objects[0], mass=0.0), "mass=0.0"),
        (lambda: replace(cube_scene().objects[0], mass=np.inf), "mass=inf"),
        (lambda: replace(cube_scene().objects[0], friction=-0.5), "friction=-0.5"),
        (lambda: replace(cube_scene().objects[0], friction=0.0), "friction=0.0"),
        (lambda: replace(cube_scene().objects[0], pose=(0.0, np.nan, 0.1, 1.0, 0.0, 0.0, 0.0)), "finite"),
        (lambda: replace(cube_scene().objects[0], pose=(0.0,) * 7), "unit quaternion"),
        (lambda: JointSpec(kind="slide", axis=(1, 0, 0), limits=(0, 1), damping=-1.0), "damping=-1.0"),
        (lambda: JointSpec(kind="slide", axis=(1, 0, 0), limits=(0, np.inf)), "limits"),
        (lambda: GoalSpec(name="g", pose=make_pose((0, 0, 0)), tolerance=(1, 0, 1)), "tolerance"),
        (lambda: SceneSpec(objects=(), goals=(), arm_qpos=((0.0,) * 7, (np.nan,) * 7)), "arm_qpos"),
        (lambda: replace(cube_scene().objects[0], base=(BoxPart(half_size=(0.1, 0.1, 0.1)),)), "without a joint"),
        (lambda: JointSpec(kind="ball", axis=(1, 0, 0), limits=(0, 1)), "'ball'"),
        (lambda: JointSpec(kind="slide", axis=(1, 1, 0), limits=(0, 1)), "unit vector"),
        (lambda: JointSpec(kind="hinge", axis=(1, 0, 0), limits=(0.5, 1)), "interval around 0"),
        (lambda: SceneSpec(objects=(), goals=(), arm_qpos=((0.0,) * 7, (0.0,) * 6)), "seven"),
        (lambda: replace(cube_scene(), base_distance=0.0), "base_distance"),
        (lambda: ArmControl(latency=-1), "latency"),
        (lambda: ArmControl(stiffness=0.0), "gains"),
    ],
)
def test_impossible_data_is_refused(broken, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        broken()


def test_views_are_named() -> None:
    assert all(isinstance(view, CameraView) for view in camera_views().values())
    assert {"front", "video"} <= set(camera_views())


@pytest.mark.render
def test_rendering_leaves_physics_alone(world: DualArmWorld) -> None:
    """Frames show the scene, and the rendered world moves bit for bit like the blind one."""
    seeing = DualArmWorld(render=RenderConfig(width=64, height=48))
    for each in (world, seeing):
        each.rebuild(cube_scene())
        action = hold_action(each)
        action[UnifiedAction.joints(0)] -= 0.1
        for _ in range(10):
            each.apply(action)
            if each is seeing:
                frame = each.render_observation()
    assert frame.shape == (1, 48, 64, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 5.0
    assert seeing.sim_state().tobytes() == world.sim_state().tobytes()
