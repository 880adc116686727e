"""The physical world: robots, table, cameras and scenes as data. Knows no goals and no learning."""

from envs.appearance import Appearance, CameraView, camera_views
from envs.camera import RenderConfig
from envs.kinematics import PandaKinematics
from envs.panda import ARM_DOF, HOME_QPOS, PandaDrive, PandaFactory
from envs.physics import CONTROL_HZ, arm_base
from envs.scene import ArmControl, BoxPart, GoalSpec, JointSpec, ObjectSpec, SceneSpec, make_pose
from envs.world import DualArmWorld, action_space

__all__ = [
    "ARM_DOF",
    "CONTROL_HZ",
    "HOME_QPOS",
    "Appearance",
    "ArmControl",
    "BoxPart",
    "CameraView",
    "DualArmWorld",
    "GoalSpec",
    "JointSpec",
    "ObjectSpec",
    "PandaDrive",
    "PandaFactory",
    "PandaKinematics",
    "RenderConfig",
    "SceneSpec",
    "action_space",
    "arm_base",
    "camera_views",
    "make_pose",
]
