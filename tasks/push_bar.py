"""Push together: a bar too thick to be grasped is pushed into a slanted frame by both closed hands."""

from __future__ import annotations

import numpy as np

from envs import BoxPart, GoalSpec, ObjectSpec, PandaKinematics, make_pose
from envs.scene import Pose7
from envs.world import DualArmWorld
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.judge import Ladder, closeness, left_alone, yaw_of
from tasks.materials import WOOD
from tasks.motion import ToolTarget
from tasks.skills import CLOSED, SETTLE_STEPS, Script

GOAL_TOLERANCE, SIDE_TOLERANCE = 0.012, 0.04  # m, along the push and across it
MAX_YAW = float(np.deg2rad(4.0))  # off the frame's
START, TRAVEL, CENTRE_Y = (0.02, 0.22), (0.10, 0.32), (-0.12, 0.12)  # m, before and after the middle; across
START_YAW, GOAL_YAW = 0.30, 0.50  # rad
HALF_LENGTH, HALF_WIDTH, HALF_HEIGHT = (0.15, 0.19), (0.045, 0.055), (0.020, 0.025)  # m; hands open to 0.08
HAND_HEIGHT = 0.022  # m, of the tool points while pushing
HAND_HALF = 0.0135  # m, from a closed hand's middle to its pushing face
COAST = 0.004  # m, that the bar slides on when the hands stop
APPROACH = 0.05  # m, behind the bar, where the hands come down
INSET = 0.05  # m, from the bar's ends to where the hands push
PUSH_SLOW = 2.0
ARRIVE, ARRIVE_NOISE, ARRIVE_STEPS = 0.03, 0.1, 4  # m, the last of the way; its share of noise; control steps


class PushBar:
    """The task `push_bar`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="push_bar",
            family="push_bar",
            arms="both",
            split="train",
            horizon=110,
            segments=("reach", "push", "retreat"),
            description="Push a thick bar into a slanted frame with both closed hands.",
            instructions=(
                "[push|shove|slide] the {bar} bar [with both hands|with both arms] into the {goal} frame",
                "with both [hands|arms], push the {bar} bar [ahead|forward] into the {goal} frame",
            ),
            heldout_instructions=("[move|drive] the {bar} bar between the {goal} posts, both arms pushing",),
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A bar across the table and where it shall go: away from the viewer or towards."""
        half = (
            draws.size("bar_half_width", *HALF_WIDTH),
            draws.size("bar_half_length", *HALF_LENGTH),
            draws.size("bar_half_height", *HALF_HEIGHT),
        )
        way = draws.sign("direction")
        x, y = -way * draws.position("bar_x", *START), draws.position("bar_y", *CENTRE_Y)
        end = x + way * draws.position("travel", *TRAVEL)
        yaw, slant = draws.yaw("bar_yaw", START_YAW), draws.yaw("goal_yaw", GOAL_YAW)
        bar_word, goal_word = draws.colours("colours", ("purple", "white"))
        parts = (BoxPart(half_size=half),)
        bar = ObjectSpec(
            name="bar",
            parts=parts,
            pose=make_pose((x, y, half[2]), yaw),
            mass=draws.mass("mass", WOOD, parts),
            friction=draws.physical("friction", 0.6),
            colour=colour_words()[bar_word],
            grasps=tuple((-way * half[0], side * (half[1] - INSET), 0.0) for side in (1.0, -1.0)),
        )
        goal = GoalSpec(
            name="goal",
            pose=make_pose((end, y, half[2]), slant),
            tolerance=(GOAL_TOLERANCE, SIDE_TOLERANCE, 0.01),
            marker="frame",
            marker_half_size=(half[0] + 0.01, half[1] + 0.01, 0.012),
            colour=colour_words()[goal_word],
        )
        return TaskScene(spec=draws.scene((bar,), (goal,)), words={"bar": bar_word, "goal": goal_word})

    def monitor(self, scene: TaskScene) -> PushBarMonitor:
        """A fresh judge."""
        return PushBarMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Close the hands on the way down behind the bar, push in step, back off and rise."""
        start, goal = scene.spec.objects[0].pose, scene.spec.goals[0].pose
        grasps = np.asarray(scene.spec.objects[0].grasps)[:, :2]
        script = Script(world, kinematics)

        def hands(pose: Pose7, behind: float, height: float) -> list[ToolTarget]:
            """Both hands `behind` m behind where they push a bar that lies at `pose`."""
            yaw = yaw_of(pose)
            turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
            points = (grasps + np.sign(grasps[0, 0]) * np.array([HAND_HALF + behind, 0.0])) @ turn.T + pose[:2]
            return [ToolTarget(position=(float(x), float(y), height), turn=yaw) for x, y in points]

        script.grip(CLOSED, SETTLE_STEPS)
        script.together(*hands(start, APPROACH - HAND_HALF, HAND_HEIGHT), approach=0.15)
        script.end("reach")
        script.together(*hands(goal, ARRIVE, HAND_HEIGHT), slow=PUSH_SLOW)
        script.end("push")
        script.together(*hands(goal, COAST, HAND_HEIGHT), slow=PUSH_SLOW)
        script.wait(ARRIVE_STEPS)
        script.end("push", noise=ARRIVE_NOISE)
        script.together(*hands(goal, APPROACH, HAND_HEIGHT + 0.06))
        script.end("retreat")
        return script.plan()


class PushBarMonitor:
    """Judges a push: there, aligned, pushed by both hands on the table, left alone, at rest."""

    def __init__(self, scene: TaskScene) -> None:
        self._start, self._goal = scene.spec.objects[0].pose, scene.spec.goals[0].pose
        self._both = False
        self._ladder = Ladder(3)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: within 1.2 cm along x, 4 cm along y and 4 degrees, pushed by both hands, left alone, at rest."""
        pose = world.object_pose()[0]
        touch = world.finger_contacts(0)
        self._both = self._both or bool(touch.any(axis=1).all())
        off = abs(float(pose[0]) - self._goal[0])
        beside = abs(float(pose[1]) - self._goal[1]) < SIDE_TOLERANCE
        aligned = beside and abs(yaw_of(pose) - yaw_of(self._goal)) < MAX_YAW
        if self._both and off < GOAL_TOLERANCE and aligned and left_alone(world, [touch]):
            return TaskStatus(success=True, progress=1.0)
        hands = world.tool_pose()[:, :3]
        away = float(np.max(np.linalg.norm(hands - world.object_grasp()[0], axis=1)))
        if self._both:
            rung = 3 if off < GOAL_TOLERANCE and aligned else 2
            progress = self._ladder.climb(rung, closeness(off, abs(self._goal[0] - self._start[0])))
        else:
            progress = self._ladder.climb(1 if touch.any() else 0, closeness(away, 0.4))
        return TaskStatus(success=False, progress=progress)
