"""The Franka Panda as ManiSkill ships it: parsed once, then built into any scene in about a millisecond.

Takes the package's URDF and SRDF, hands out SAPIEN articulations with ManiSkill's own drive gains and
finger friction. `PandaFactory` holds the parsed description; it is made once per process by whoever
owns a world, and passed in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import mani_skill
import numpy as np
import sapien
from sapien import physx
from sapien.wrapper.articulation_builder import ArticulationBuilder
from sapien.wrapper.urdf_loader import URDFLoader

from envs.scene import ArmControl

ARM_DOF = 7
FINGER_OPEN = 0.04  # m, travel of one finger
FINGER_SQUEEZE = -0.01  # m, the target that command 0 stands for: closed, with force to spare
TCP_LINK = "panda_hand_tcp"
TOOL_IN_TCP = (0.0, 1.0, 0.0, 0.0)  # wxyz: half a turn about x, see `Arm.tool_pose`
FINGER_LINKS = ("panda_leftfinger", "panda_rightfinger")

# The configuration an arm rests in: tool straight down, 0.42 m before its base, 0.26 m above the table.
HOME_QPOS: tuple[float, ...] = (0.0, -0.293109, 0.0, -2.577445, 0.0, 2.284336, 0.785398)


def panda_urdf() -> Path:
    """Path of the Panda description inside the installed ManiSkill package."""
    return Path(mani_skill.PACKAGE_ASSET_DIR) / "robots" / "panda" / "panda_v2.urdf"


@dataclass(frozen=True, kw_only=True)
class PandaDrive:
    """Joint drive of ManiSkill's `pd_joint_pos` controller for the Panda.

    Attributes:
        stiffness: N m / rad (N / m for a finger).
        damping: N m s / rad.
        force_limit: N m (N).
        finger_friction: friction coefficient of the fingers.
        finger_patch_radius: m, the torsional friction patch of a fingertip.
    """

    stiffness: float = 1e3
    damping: float = 1e2
    force_limit: float = 100.0
    finger_friction: float = 2.0
    finger_patch_radius: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm in a scene: the articulation and the parts of it that are read every step.

    The *tool frame* sits at the tool point between the fingertips and equals the base frame's rotation
    when the gripper points straight down (it is ManiSkill's `panda_hand_tcp` turned by half a turn about
    x). So a quaternion with `qw >= 0` never flips its sign in table-top work; fingers close along its y.
    """

    articulation: physx.PhysxArticulation
    joints: tuple[physx.PhysxArticulationJoint, ...]
    tcp: physx.PhysxArticulationLinkComponent
    fingers: tuple[physx.PhysxArticulationLinkComponent, ...]
    latency: int
    base: sapien.Pose
    base_inverse: sapien.Pose = field(repr=False)
    tool_in_tcp: sapien.Pose = field(repr=False)

    def tool_pose(self) -> sapien.Pose:
        """Pose of the tool frame in the world."""
        return self.tcp.entity_pose * self.tool_in_tcp


class PandaFactory:
    """Builds Pandas from a description that is parsed once.

    Args:
        drive: gains and finger friction.
        visuals: "none" builds physics only and never touches a renderer; "light" draws the collision
            meshes (2 924 triangles); "stock" draws the package's meshes (135 548 triangles).
    """

    def __init__(self, *, drive: PandaDrive | None = None, visuals: str = "none") -> None:
        if visuals not in ("none", "light", "stock"):
            raise ValueError(f"visuals={visuals!r}: expected 'none', 'light' or 'stock'")
        self.drive = drive or PandaDrive()
        self._builder = self._parse()
        if visuals != "stock":
            for link in self._builder.link_builders:
                link.visual_records.clear()
        if visuals == "light":
            self._add_light_visuals()

    def _parse(self) -> ArticulationBuilder:
        loader = URDFLoader()
        loader.set_scene(sapien.Scene([physx.PhysxCpuSystem()]))
        friction, patch = self.drive.finger_friction, self.drive.finger_patch_radius
        for name in FINGER_LINKS:
            loader.set_link_material(name, friction, friction, 0.0)
            loader.set_link_patch_radius(name, patch)
            loader.set_link_min_patch_radius(name, patch)
        articulations, _, _ = loader.parse(str(panda_urdf()))
        return articulations[0]

    def _add_light_visuals(self) -> None:
        light = sapien.render.RenderMaterial(base_color=[0.86, 0.87, 0.88, 1.0], roughness=0.6, metallic=0.1)
        dark = sapien.render.RenderMaterial(base_color=[0.13, 0.14, 0.16, 1.0], roughness=0.6, metallic=0.2)
        for link in self._builder.link_builders:
            material = dark if "hand" in link.name or "finger" in link.name or link.name.endswith("link0") else light
            for record in link.collision_records:
                if record.type == "box":
                    link.add_box_visual(pose=record.pose, half_size=record.scale, material=material)
                else:
                    link.add_visual_from_file(
                        filename=record.filename, pose=record.pose, scale=record.scale, material=material
                    )

    def build(self, scene: sapien.Scene, *, name: str, base: sapien.Pose, qpos: np.ndarray, control: ArmControl) -> Arm:
        """Add one arm to `scene`, at rest at `qpos` (f64[7], radians), gripper open."""
        builder = self._builder
        builder.set_scene(scene)
        builder.set_initial_pose(base)
        articulation = builder.build(fix_root_link=True)
        articulation.name = name
        start = np.concatenate([np.asarray(qpos, dtype=np.float32), np.full(2, FINGER_OPEN, dtype=np.float32)])
        articulation.set_qpos(start)
        joints = tuple(articulation.active_joints)
        stiffness, damping = self.drive.stiffness * control.stiffness, self.drive.damping * control.damping
        for joint, target in zip(joints, start, strict=True):
            joint.set_drive_properties(stiffness, damping, self.drive.force_limit, "force")
            joint.set_friction(0.0)
            joint.set_drive_target(float(target))
        links = {link.entity.name: link for link in articulation.links}
        for link in articulation.links:
            link.disable_gravity = True
        return Arm(
            articulation=articulation,
            joints=joints,
            tcp=links[TCP_LINK],
            fingers=tuple(links[f] for f in FINGER_LINKS),
            latency=control.latency,
            base=base,
            base_inverse=base.inv(),
            tool_in_tcp=sapien.Pose(q=list(TOOL_IN_TCP)),
        )
