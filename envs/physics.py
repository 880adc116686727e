"""Two Pandas, a table and what a `SceneSpec` puts on it, in a SAPIEN scene: built, stepped at 20 Hz, read in NumPy.

Knows neither ManiSkill nor how a scene comes to be thrown away: `envs.world` owns that.
"""

from __future__ import annotations

import numpy as np
import sapien
from sapien import physx

from embodichain.contracts import ACTION_DIM, ARMS, UnifiedAction
from envs.build import BuiltObject, RigidBody, build_distractor, build_goal, build_object, build_table, to_sapien_pose
from envs.camera import CameraRig, RenderConfig
from envs.contacts import ContactReader, ContactSummary
from envs.panda import ARM_DOF, FINGER_OPEN, FINGER_SQUEEZE, Arm, PandaFactory
from envs.scene import SceneSpec

CONTROL_HZ = 20.0
SIM_HZ = 100


def arm_base(arm: int, distance: float) -> sapien.Pose:
    """Base pose of arm 0 (left, at +y) or 1 (right, at -y), `distance` m from the middle and facing it."""
    side = 1.0 if arm == 0 else -1.0
    half = -side * np.pi / 4
    return sapien.Pose([0.0, side * distance, 0.0], [np.cos(half), 0.0, 0.0, np.sin(half)])


def _pose7(pose: sapien.Pose) -> np.ndarray:
    out = np.empty(7, dtype=np.float32)
    out[:3] = pose.p
    quat = pose.q
    out[3:] = quat if quat[0] >= 0.0 else -quat
    return out


class PhysicalScene:
    """What stands in a scene, its physics and its pictures.

    Args:
        render: what to render; None builds no renderer at all.

    Attributes:
        spec_scene: what was built; set before `_fill`.
        arms: the left and the right one.
        spawn_penetration: m, how deep bodies lay inside one another when the scene was built, known from its first
            physics step on; PhysX drives them apart within one control step.
    """

    spec_scene: SceneSpec
    _sim_steps_per_control: int

    def __init__(self, render: RenderConfig | None) -> None:
        self._render_config = render
        visuals = "none" if render is None else render.robot_visuals
        if render is not None:  # before any material: the first use of the renderer settles its device
            self._first_render_system = sapien.render.RenderSystem(render.device())
        self._factory = PandaFactory(visuals=visuals)
        self.arms: tuple[Arm, ...] = ()
        self._objects: list[BuiltObject] = []
        self._bodies: list[RigidBody] = []
        self._contacts: ContactSummary | None = None
        self.spawn_penetration: float | None = None
        self._rig: CameraRig | None = None
        self._control_steps = 0

    def apply(self, action: np.ndarray) -> None:
        """Execute one control step of the unified action f32[30]: joints and grippers, absolute targets.

        A gripper command g in [0, 1] drives each finger to -10 + 50 g mm, so that 0 squeezes.
        Raises `ValueError` for a wrong shape or a non-finite entry; nothing moves then.
        """
        if action.shape != (ACTION_DIM,):
            raise ValueError(f"action has shape {action.shape}, expected ({ACTION_DIM},)")
        values = action.astype(np.float64).tolist()
        if not np.isfinite(action).all():
            raise ValueError("action is not finite")
        self._step_physics(values)

    def _step_physics(self, values: list[float] | None = None) -> None:
        """One control step of physics, in which the arms' drives get the targets of an action when these arrive."""
        self._contacts, self._pose_before = None, self.object_pose()
        step = self._px.step
        for late in range(self._sim_steps_per_control):
            for index, arm in enumerate(self.arms):
                if values is not None and arm.latency == late:
                    self._drive(index, values)
            step()
            if self.spawn_penetration is None:  # contacts are those found before the bodies moved
                self.spawn_penetration = self._contact_reader.read(self._px.get_contacts()).penetration
        self._control_steps += 1

    def _drive(self, index: int, values: list[float]) -> None:
        """Set the drive targets of one arm from an action."""
        start, joints = UnifiedAction.joints(index).start, self.arms[index].joints
        for j in range(ARM_DOF):
            joints[j].set_drive_target(values[start + j])
        grip = min(max(values[start + ARM_DOF], 0.0), 1.0)
        target = FINGER_SQUEEZE + (FINGER_OPEN - FINGER_SQUEEZE) * grip
        joints[ARM_DOF].set_drive_target(target)
        joints[ARM_DOF + 1].set_drive_target(target)

    def proprio(self) -> np.ndarray:
        """f32[30] measured, unified layout; the gripper entry is the opening in [0, 1]."""
        out = np.empty(ACTION_DIM, dtype=np.float32)
        for index, arm in enumerate(self.arms):
            qpos = arm.articulation.qpos
            out[UnifiedAction.eef(index)] = _pose7(arm.base_inverse * arm.tool_pose())
            out[UnifiedAction.joints(index)] = qpos[:ARM_DOF]
            opening = float(qpos[ARM_DOF] + qpos[ARM_DOF + 1]) / (2.0 * FINGER_OPEN)
            out[UnifiedAction.gripper(index)] = min(max(opening, 0.0), 1.0)
        return out

    def object_pose(self) -> np.ndarray:
        """f32[O, 7], world frame."""
        return np.stack([_pose7(b.entity_pose) for b in self._bodies]) if self._bodies else np.zeros((0, 7), np.float32)

    def object_grasp(self) -> np.ndarray:
        """f32[O, 2, 3], world frame: of each object's grasp points, the one nearest to either arm's base."""
        out = np.empty((len(self._bodies), len(ARMS), 3), dtype=np.float32)
        for i, (body, grasps) in enumerate(zip(self._bodies, self._grasps, strict=True)):
            transform = body.entity_pose.to_transformation_matrix()
            points = grasps @ transform[:3, :3].T + transform[:3, 3]
            away = np.linalg.norm(points[:, None] - self._base_points, axis=2)
            out[i] = points[np.argmin(away, axis=0)]
        return out

    def joint_position(self, index: int) -> float:
        """Where object `index` stands on its joint, m or rad. Raises `ValueError` for a free one."""
        articulation = self._objects[index].articulation
        if articulation is None:
            raise ValueError(f"object {index} has no joint")
        return float(articulation.qpos[0])

    def object_velocity(self) -> np.ndarray:
        """f32[O, 6]: linear (m/s) and angular (rad/s) velocity, world frame."""
        rows = [np.concatenate([b.linear_velocity, b.angular_velocity]) for b in self._bodies]
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, 6), np.float32)

    def object_motion(self) -> np.ndarray:
        """f32[O, 2]: mean speed (m/s) and rate of turning (rad/s) over the last control step; 0 in a fresh scene.

        Of what a gripper squeezes this is the true one: PhysX reports several rad/s for a light body that stays put.
        """
        before, now = self._pose_before, self.object_pose()
        moved = np.linalg.norm(now[:, :3] - before[:, :3], axis=1)
        turned = 2.0 * np.arccos(np.clip(np.abs(np.sum(before[:, 3:] * now[:, 3:], axis=1)), 0.0, 1.0))
        return np.stack([moved, turned], axis=1) * np.float32(CONTROL_HZ)

    def tool_pose(self) -> np.ndarray:
        """f32[2, 7], world frame."""
        return np.stack([_pose7(arm.tool_pose()) for arm in self.arms])

    def arm_qpos(self) -> np.ndarray:
        """f32[2, 9]: seven joints (rad) and two fingers (m) per arm."""
        return np.stack([arm.articulation.qpos for arm in self.arms])

    def arm_qvel(self) -> np.ndarray:
        """f32[2, 9]."""
        return np.stack([arm.articulation.qvel for arm in self.arms])

    def sim_state(self) -> np.ndarray:
        """f32[S]: per object pose and velocity (13), then both arms' positions (18) and velocities (18)."""
        objects = np.concatenate([self.object_pose(), self.object_velocity()], axis=1)
        parts = [objects.ravel(), self.arm_qpos().ravel(), self.arm_qvel().ravel()]
        return np.concatenate(parts).astype(np.float32)

    def contacts(self) -> ContactSummary:
        """Who touched whom in the last physics step; read once per control step, however often it is asked for."""
        if self._contacts is None:
            self._contacts = self._contact_reader.read(self._px.get_contacts())
        return self._contacts

    def finger_contacts(self, index: int) -> np.ndarray:
        """bool[2, 2]: whether finger f of arm a presses on object `index` in the last physics step."""
        return self.contacts().fingers[index].copy()

    def arms_touch(self) -> bool:
        """Whether any link of one arm pressed on any link of the other in the last physics step."""
        return self.contacts().arms

    def place_object(self, index: int, pose: np.ndarray) -> None:
        """Put object `index` at `pose` f32[7] (world frame), at rest. Raises `ValueError` for a jointed one."""
        body = self._bodies[index]
        if not isinstance(body, physx.PhysxRigidDynamicComponent):
            raise ValueError(f"object {index} is held by a joint")
        body.entity.pose = to_sapien_pose(pose)
        body.linear_velocity = body.angular_velocity = np.zeros(3)

    def kick_object(self, index: int, velocity: np.ndarray) -> None:
        """Give object `index` a linear velocity f32[3], m/s. Raises `ValueError` for a jointed one."""
        body = self._bodies[index]
        if not isinstance(body, physx.PhysxRigidDynamicComponent):
            raise ValueError(f"object {index} is held by a joint")
        body.wake_up()
        body.linear_velocity = velocity

    def render_observation(self) -> np.ndarray:
        """u8[V, H, W, 3]. Raises `ValueError` in a world without a renderer."""
        return self._need_rig().observe(self._control_steps)

    def render_video_frame(self) -> np.ndarray:
        """u8[H, W, 3] for people. Raises `ValueError` in a world without a renderer."""
        return self._need_rig().video_frame(self._control_steps)

    def _need_rig(self) -> CameraRig:
        if self._rig is None:
            raise ValueError("this world was built without a renderer: pass a RenderConfig to get frames")
        return self._rig

    def _fill(self, scene: sapien.Scene) -> None:
        spec = self.spec_scene
        look = None if self._render_config is None else spec.appearance
        self._control_steps = 0
        self._px = scene.physx_system
        self._sapien_scene = scene
        self._table = build_table(scene, spec, look)
        self.arms = tuple(
            self._factory.build(
                scene,
                name=f"scene-0_{name}",
                base=arm_base(i, spec.base_distance),
                qpos=np.asarray(qpos),
                control=control,
            )
            for i, (name, qpos, control) in enumerate(zip(ARMS, spec.arm_qpos, spec.arm_control, strict=True))
        )
        slowest = max(arm.latency for arm in self.arms)
        if slowest >= self._sim_steps_per_control:
            raise ValueError(f"scene: latency={slowest}, expected less than a control step's {SIM_HZ / CONTROL_HZ:.0f}")
        self._objects = [build_object(scene, o, look) for o in spec.objects]
        self._bodies = [built.body for built in self._objects]
        self._pose_before = self.object_pose()
        self._grasps = [np.asarray(o.grasps) for o in spec.objects]
        self._base_points = np.stack([arm.base.p for arm in self.arms])
        self._contact_reader = ContactReader(self.arms, self._bodies)
        self._contacts = self.spawn_penetration = None
        self._rig = None
        if self._render_config is not None:
            for goal in spec.goals:
                build_goal(scene, goal, spec.appearance)
            for index, distractor in enumerate(spec.appearance.distractors):
                build_distractor(scene, distractor, f"distractor_{index}")
            self._rig = CameraRig(scene, self._render_config, spec.appearance, self.arms)
