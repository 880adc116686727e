"""Two-arm lift: a long heavy tray with a grip at either end, lifted level to a place aside by both arms and held.

One gripper cannot do it: lifted at one end, the tray tips about the other, and success asks for it level
and well above the table, held by both arms.
"""

from __future__ import annotations

import numpy as np

from envs import PandaKinematics
from envs.world import DualArmWorld
from tasks.assets import GRIP_HALF, TRAY_GRASP_ABOVE, raised_tray, tray
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.draws import Draws
from tasks.judge import Ladder, at_rest, closeness, holding, lifted_level, yaw_of
from tasks.motion import ToolTarget, nearest_turn
from tasks.skills import PICK, Script

GOAL_TOLERANCE = 0.02  # m, distance of the tray's centre from its goal
MIN_LIFT = 0.07  # m above the table height
TRAY_X, TRAY_Y = (-0.16, 0.16), (-0.07, 0.07)
LIFT_RANGE, ASIDE = (0.10, 0.22), 0.07  # m, up and to either side, of the goal
YAW_LIMIT = 0.45  # rad


class TwoArmLift:
    """The task `two_arm_lift`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="two_arm_lift",
            family="two_arm_lift",
            arms="both",
            split="train",
            horizon=80,
            segments=(*PICK, "lift"),
            description="Lift a heavy tray level with both arms and hold it at its target height.",
            instructions=(
                "[lift|raise] the {tray} tray with both arms and [hold|keep] it level",
                "with both [arms|hands], [lift|raise] the {tray} tray to the {goal} [posts|marks]",
            ),
            heldout_instructions=(
                "[together|as one], both arms bring the {tray} tray up between the {goal} posts",
                "hold the {tray} tray level in the air",
            ),
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A tray across the middle of the table and a target above and aside."""
        length = draws.size("tray_half_length", 0.150, 0.180)
        width = draws.size("tray_half_width", 0.050, 0.080)
        xy = (draws.position("tray_x", *TRAY_X), draws.position("tray_y", *TRAY_Y))
        yaw = draws.yaw("tray_yaw", YAW_LIMIT)
        lift = draws.position("lift", *LIFT_RANGE)
        tray_word, goal_word = draws.colours("colours", ("orange", "cyan"))
        aside = (xy[0] + draws.position("aside_x", -ASIDE, ASIDE), xy[1] + draws.position("aside_y", -ASIDE, ASIDE))
        body = tray(draws, xy, yaw, length, width, tray_word)
        goal = raised_tray(aside, yaw, lift, length, width, GOAL_TOLERANCE, goal_word)
        return TaskScene(spec=draws.scene((body,), (goal,)), words={"tray": tray_word, "goal": goal_word})

    def monitor(self, scene: TaskScene) -> TwoArmLiftMonitor:
        """A fresh judge."""
        return TwoArmLiftMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Both arms reach their grips at once, close, and rise in step."""
        pose = world.object_pose()[0]
        goal = scene.spec.goals[0].pose
        spec = scene.spec.objects[0]
        turn = nearest_turn(yaw_of(pose), np.pi)
        along = np.array([-np.sin(turn), np.cos(turn)])
        offset = spec.half_extents[1] - GRIP_HALF[1]
        grips = []
        for side in (1.0, -1.0):
            x, y = pose[:2] + side * offset * along
            grips.append(ToolTarget(position=(float(x), float(y), float(pose[2]) + TRAY_GRASP_ABOVE), turn=turn))
        script = Script(world, kinematics)
        script.lift_together(grips, float(goal[2] - pose[2]) + 0.004, aside=(goal[0] - pose[0], goal[1] - pose[1]))
        return script.plan()


class TwoArmLiftMonitor:
    """Judges a lift: both hold, level, at the target, at rest."""

    def __init__(self, scene: TaskScene) -> None:
        self._goal = np.asarray(scene.spec.goals[0].pose)
        self._start = np.asarray(scene.spec.objects[0].pose)
        self._ladder = Ladder(3)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: within 2 cm of the goal, 7 cm up, tilted less than 10 degrees, held by both, at rest."""
        pose = world.object_pose()[0]
        held = holding(world.finger_contacts(0))
        off = float(np.linalg.norm(pose[:3] - self._goal[:3]))
        raised = float(pose[2] - self._start[2])
        level = lifted_level(pose, held)
        if level and raised >= MIN_LIFT and off < GOAL_TOLERANCE:
            if at_rest(world):
                return TaskStatus(success=True, progress=1.0)
            progress = self._ladder.climb(3)
        elif level:
            progress = self._ladder.climb(2, raised / float(self._goal[2] - self._start[2]))
        elif held.any():
            progress = self._ladder.climb(1)
        else:
            tools = world.tool_pose()[:, :3]
            reach = float(np.mean(np.linalg.norm(tools - pose[:3], axis=1)))
            progress = self._ladder.climb(0, closeness(reach, 0.6))
        return TaskStatus(success=False, progress=progress)
