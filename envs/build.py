"""Turning scene data into SAPIEN entities: the table, the objects and the goal markers.

Takes the specs of `envs.scene` and a `sapien.Scene`; owns nothing afterwards. Visuals are added only
where there is a `look`, so that a machine without a renderer never touches one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import sapien
from sapien import physx
from sapien.wrapper.actor_builder import ActorBuilder
from sapien.wrapper.articulation_builder import LinkBuilder

from envs.appearance import Appearance, Distractor, Surface
from envs.scene import BoxPart, GoalSpec, JointSpec, ObjectSpec, SceneSpec, Vec3, make_pose

RigidBody: TypeAlias = physx.PhysxRigidDynamicComponent | physx.PhysxArticulationLinkComponent
RigidBodyBuilder: TypeAlias = ActorBuilder | LinkBuilder

TABLE_HALF_SIZE: Vec3 = (0.42, 0.95, 0.02)
TABLE_FRICTION = 0.6
FLOOR_HEIGHT = -0.75  # m
POST = 0.008  # m, half the width of a goal's posts: thinner ones are below a pixel in frames of 96 to 128


def to_sapien_pose(pose: tuple[float, ...] | np.ndarray) -> sapien.Pose:
    """A 7-vector (position, wxyz) as `sapien.Pose`."""
    return sapien.Pose(p=list(pose[:3]), q=list(pose[3:]))


def _material(surface: Surface, shade: float = 1.0) -> sapien.render.RenderMaterial:
    rgb = np.clip(np.asarray(surface.colour) * shade, 0.0, 1.0)
    return sapien.render.RenderMaterial(
        base_color=[*rgb.tolist(), 1.0], roughness=surface.roughness, metallic=surface.metallic, specular=0.2
    )


def build_table(scene: sapien.Scene, spec: SceneSpec, look: Appearance | None) -> sapien.Entity:
    """A static slab whose top is z = 0, big enough to carry both arms, and the floor beneath it."""
    x, y, z = TABLE_HALF_SIZE
    builder = scene.create_actor_builder()
    physical = physx.PhysxMaterial(TABLE_FRICTION, TABLE_FRICTION, 0.0)
    pose = sapien.Pose([0.0, 0.0, -z])
    builder.add_box_collision(pose=pose, half_size=[x, y, z], material=physical)
    floor = sapien.Pose([0.0, 0.0, FLOOR_HEIGHT - 0.05])
    builder.add_box_collision(pose=floor, half_size=[8.0, 8.0, 0.05], material=physical)
    if look is not None:
        top = look.table or Surface(colour=spec.table_colour)
        builder.add_box_visual(pose=pose, half_size=[x, y, z], material=_material(top))
        _add_room(builder, look)
    return builder.build_static(name="table")


def _add_room(builder: ActorBuilder, look: Appearance) -> None:
    """What is only seen: the floor's colour, a back wall, the table's legs."""
    floor, wall = _material(look.floor), _material(look.wall)
    builder.add_box_visual(
        pose=sapien.Pose([0.0, 0.0, FLOOR_HEIGHT - 0.01]), half_size=[4.0, 4.0, 0.01], material=floor
    )
    builder.add_box_visual(pose=sapien.Pose([1.8, 0.0, 0.5]), half_size=[0.01, 4.0, 1.5], material=wall)
    legs = _material(Surface(colour=(0.2, 0.2, 0.22)))
    for x in (-0.36, 0.36):
        for y in (-0.88, 0.88):
            builder.add_box_visual(pose=sapien.Pose([x, y, -0.39]), half_size=[0.025, 0.025, 0.36], material=legs)


@dataclass(frozen=True, kw_only=True)
class BuiltObject:
    """An object in a scene: its moving rigid body, and the articulation that holds it, if it has a joint."""

    body: RigidBody
    articulation: physx.PhysxArticulation | None = None


def build_object(scene: sapien.Scene, spec: ObjectSpec, look: Appearance | None) -> BuiltObject:
    """A rigid body made of the object's boxes, at rest at its pose: free, or jointed to its fixed base."""
    if spec.joint is not None:
        return _build_jointed(scene, spec, spec.joint, look)
    builder = scene.create_actor_builder()
    _add_parts(builder, spec, spec.parts, spec.mass / spec.volume, look)
    builder.set_initial_pose(to_sapien_pose(spec.pose))
    entity = builder.build(name=spec.name)
    body = entity.find_component_by_type(physx.PhysxRigidDynamicComponent)
    _shift_mass(body, spec)
    return BuiltObject(body=body)


def _shift_mass(body: RigidBody, spec: ObjectSpec) -> None:
    """Move the centre of mass by `spec.mass_offset`, inertia included.

    A density that varies linearly through a body keeps its mass, and (where the body is symmetric about its centre)
    its inertia about that centre; about the new centre of mass it is less by that of a point there (Steiner).
    Raises `ValueError` where no density does that.
    """
    offset = np.asarray(spec.mass_offset)
    if not offset.any():
        return
    frame = body.cmass_local_pose
    axes = frame.to_transformation_matrix()[:3, :3].astype(np.float64)
    inertia = axes @ np.diag(body.inertia) @ axes.T
    inertia -= body.mass * (offset @ offset * np.eye(3) - np.outer(offset, offset))
    principal, axes = np.linalg.eigh(inertia)
    if principal.sum() <= 2.0 * principal.max():  # no mass distribution has such an inertia
        raise ValueError(f"object {spec.name!r}: mass_offset={spec.mass_offset}, too far out for its shape")
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    rotation = np.eye(4)
    rotation[:3, :3] = axes
    body.cmass_local_pose = sapien.Pose(frame.p + offset, sapien.Pose(rotation).q)
    body.inertia = principal


def _build_jointed(scene: sapien.Scene, spec: ObjectSpec, joint: JointSpec, look: Appearance | None) -> BuiltObject:
    builder = scene.create_articulation_builder()
    base = builder.create_link_builder()
    base.set_name(f"{spec.name}_base")
    _add_parts(base, spec, spec.base, 1000.0, look)
    moving = builder.create_link_builder(base)
    moving.set_name(spec.name)
    _add_parts(moving, spec, spec.parts, spec.mass / spec.volume, look)
    frame = sapien.Pose(list(joint.anchor), _from_x(joint.axis))  # SAPIEN's joints move along, or about, x
    kind = "prismatic" if joint.kind == "slide" else "revolute"
    moving.set_joint_properties(kind, [list(joint.limits)], frame, frame, damping=joint.damping)
    builder.set_initial_pose(to_sapien_pose(spec.pose))
    articulation = builder.build(fix_root_link=True)
    articulation.name = spec.name
    articulation.active_joints[0].set_friction(joint.friction)  # SAPIEN's builder takes one and leaves it unused
    articulation.set_qpos(np.zeros(1, dtype=np.float32))
    body = articulation.links[1]
    _shift_mass(body, spec)
    return BuiltObject(body=body, articulation=articulation)


def _add_parts(
    builder: RigidBodyBuilder, spec: ObjectSpec, parts: tuple[BoxPart, ...], density: float, look: Appearance | None
) -> None:
    physical = physx.PhysxMaterial(spec.friction, spec.friction, 0.0)
    for part in parts:
        pose, half_size = sapien.Pose(list(part.position)), list(part.half_size)
        builder.add_box_collision(pose=pose, half_size=half_size, material=physical, density=density)
        if look is not None:
            surface = look.surfaces.get(spec.name, Surface(colour=spec.colour))
            builder.add_box_visual(pose=pose, half_size=half_size, material=_material(surface, part.shade))


def _from_x(axis: Vec3) -> list[float]:
    """The shortest rotation that takes x to `axis`, wxyz."""
    x, y, z = axis
    if x < -1.0 + 1e-9:
        return [0.0, 0.0, 0.0, 1.0]
    quaternion = np.array([1.0 + x, 0.0, -z, y])
    return list((quaternion / np.linalg.norm(quaternion)).tolist())


def build_goal(scene: sapien.Scene, spec: GoalSpec, look: Appearance) -> sapien.Entity:
    """A marker without collision shapes: a disc on the table, or four posts hanging in the air."""
    builder = scene.create_actor_builder()
    material = _material(look.surfaces.get(spec.name, Surface(colour=spec.colour, roughness=0.9)))
    x, y, z = spec.marker_half_size
    if spec.marker == "disc":
        builder.add_cylinder_visual(pose=_upright(), radius=x, half_length=0.001, material=material)
        px, py, _ = spec.pose[:3]
        builder.set_initial_pose(sapien.Pose([px, py, 0.001]))
    else:
        for sx in (-1.0, 1.0):
            for sy in (-1.0, 1.0):
                corner = sapien.Pose([sx * x, sy * y, 0.0])
                builder.add_box_visual(pose=corner, half_size=[POST, POST, z], material=material)
        builder.set_initial_pose(to_sapien_pose(spec.pose))
    return _add_seen(scene, builder, spec.name)


def build_distractor(scene: sapien.Scene, spec: Distractor, name: str) -> sapien.Entity:
    """A thing without collision shapes: physics does not know that it is there."""
    builder = scene.create_actor_builder()
    material, (x, _, z) = _material(spec.surface), spec.half_size
    if spec.shape == "ball":
        builder.add_sphere_visual(radius=x, material=material)
    elif spec.shape == "cylinder":
        builder.add_cylinder_visual(pose=_upright(), radius=x, half_length=z, material=material)
    else:
        builder.add_box_visual(half_size=list(spec.half_size), material=material)
    builder.set_initial_pose(to_sapien_pose(make_pose(spec.position, spec.yaw)))
    return _add_seen(scene, builder, name)


def _upright() -> sapien.Pose:
    """Turns a cylinder's axis from x to z."""
    return sapien.Pose([0.0, 0.0, 0.0], [np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0])


def _add_seen(scene: sapien.Scene, builder: ActorBuilder, name: str) -> sapien.Entity:
    """What `builder` describes, as something that is only rendered."""
    entity = sapien.Entity()
    entity.add_component(builder.build_render_component())
    entity.name = name
    entity.pose = builder.initial_pose
    scene.add_entity(entity)
    return entity
