"""Handover: the left arm picks up a bar, the right arm takes it over in mid-air and puts it on a disc.

The bar lies on the left, the disc on the right. Physics' own history decides: the left arm alone must
have held the bar in the air, then both arms, then the right arm alone.
"""

from __future__ import annotations

import numpy as np

from envs import BoxPart, ObjectSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.assets import disc
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.judge import Ladder, closeness, holding, left_alone, lies_on, planar_distance, yaw_of
from tasks.materials import WOOD
from tasks.motion import Slack, ToolTarget, nearest_turn
from tasks.skills import CLOSED, GRASP_STEPS, PICK, PLACE, RELEASE_ABOVE, SETTLE_STEPS, Script

GOAL_TOLERANCE = 0.025  # m, in the table plane
BAR_X, BAR_Y = (-0.20, 0.20), (0.13, 0.31)
GOAL_X, GOAL_Y = (-0.20, 0.20), (-0.31, -0.11)
YAW_LIMIT = 1.10  # rad
END_MARGIN = 0.025  # m, from a bar's end to where it is grasped
MEETING_POINT = (0.0, 0.0, 0.24)  # m, the bar's centre at the handover
AIR_HEIGHT = 0.03  # m above its height on the table: the bar is in the air
TAKE_BELOW = 0.010  # m, how far under the bar's axis the right tool point takes it
TAKE_NOISE = 0.3  # share of the execution noise: all of it moves two hands apart by more than a bar is thick
BAR_SLACK = Slack(along=0.012, tilt=0.43)  # m, rad: of the left arm's grasp
LOWEST_TOOL = 0.011  # m, keeps fingertips off the table


class Handover:
    """The task `handover`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="handover",
            family="handover",
            arms="both",
            split="train",
            horizon=230,
            segments=(*PICK, "meet", "take", "give", *PLACE),
            description="Pick up a bar with the left arm, pass it on in the air, place it with the right arm.",
            instructions=(
                "[pass|hand] the {bar} bar from the left to the right arm and [put|set] it on the {goal} disc",
                "[pick up|take] the {bar} bar with the left arm, [hand|pass] it on, put it on the {goal} disc",
                "hand the {bar} bar over in the air and [place|lay] it on the {goal} disc",
            ),
            heldout_instructions=(
                "the {bar} bar goes from the left hand to the right hand and then onto the {goal} disc",
                "[let|have] the right arm take the {bar} bar from the left one and lay it on the {goal} disc",
            ),
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A bar on the left and a disc on the right."""
        length = draws.size("bar_half_length", 0.100, 0.120)
        width = draws.size("bar_half_width", 0.012, 0.015)
        bar_xy = (draws.position("bar_x", *BAR_X), draws.position("bar_y", *BAR_Y))
        goal_xy = (draws.position("goal_x", *GOAL_X), draws.position("goal_y", *GOAL_Y))
        yaw = draws.yaw("bar_yaw", YAW_LIMIT)
        bar_word, goal_word = draws.colours("colours", ("blue", "yellow"))
        words = colour_words()
        parts = (BoxPart(half_size=(width, length, width)),)
        bar = ObjectSpec(
            name="bar",
            parts=parts,
            pose=make_pose((*bar_xy, width), yaw),
            mass=draws.mass("mass", WOOD, parts),
            friction=draws.physical("friction", 1.0),
            colour=words[bar_word],
            grasps=((0.0, length - END_MARGIN, 0.0), (0.0, END_MARGIN - length, 0.0)),
        )
        goal = disc("goal", goal_xy, width, GOAL_TOLERANCE, goal_word, radius=0.05)
        return TaskScene(spec=draws.scene((bar,), (goal,)), words={"bar": bar_word, "goal": goal_word})

    def monitor(self, scene: TaskScene) -> HandoverMonitor:
        """A fresh judge."""
        return HandoverMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Left: reach, grasp, to the meeting point. Right: there too, take, carry, let go, rise."""
        pose = world.object_pose()[0]
        goal = scene.spec.goals[0].pose
        grasp_offset = scene.spec.objects[0].half_extents[1] - END_MARGIN
        turn = nearest_turn(yaw_of(pose), np.pi)
        along = np.array([-np.sin(turn), np.cos(turn)])
        x, y = pose[:2] + grasp_offset * along
        mx, my, mz = MEETING_POINT
        script = Script(world, kinematics)
        left, right = script.arms
        script.pick({0: ToolTarget(position=(x, y, float(pose[2])), turn=turn, slack=BAR_SLACK)})
        give = ToolTarget(position=(mx, my + grasp_offset, mz))
        take = ToolTarget(position=(mx, my - grasp_offset, mz - TAKE_BELOW))
        left.go(give, depart=0.14, slow=1.1)
        right.go(take.raised(0.10))
        script.end("meet")
        right.go(take, depart=-0.03, approach=0.05)
        right.wait(SETTLE_STEPS)
        right.grip(CLOSED, GRASP_STEPS)
        script.end("take", noise=TAKE_NOISE)
        left.let_go(give, 0.10)
        script.end("give")
        height = max(goal[2] + RELEASE_ABOVE - TAKE_BELOW, LOWEST_TOOL)
        script.place(
            {1: ToolTarget(position=(goal[0], goal[1] - grasp_offset, height))}, depart=0.0, slow=1.1, noise=0.5
        )
        return script.plan()


class HandoverMonitor:
    """Judges a handover episode by who has held the bar in the air, in which order."""

    def __init__(self, scene: TaskScene) -> None:
        self._goal = scene.spec.goals[0].pose
        self._rest_height = scene.spec.objects[0].pose[2]
        self._stage = 0  # 1 left held it in the air, 2 both did, 3 right alone did
        self._ladder = Ladder(5)

    def _follow(self, held: np.ndarray, touched: np.ndarray, in_air: bool) -> None:
        """Advance the stage: left alone in the air, then both, then right alone."""
        left, right = bool(held[0]), bool(held[1])
        if not in_air:
            self._stage = self._stage if self._stage == 3 else 0
        elif self._stage == 0 and left and not touched[1]:
            self._stage = 1
        elif self._stage == 1 and left and right:
            self._stage = 2
        elif self._stage == 2 and right and not touched[0]:
            self._stage = 3

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: handed over in the air, within 2.5 cm of the disc's centre, let go by both, at rest."""
        pose = world.object_pose()[0]
        touch = world.finger_contacts(0)
        in_air = float(pose[2]) > self._rest_height + AIR_HEIGHT
        self._follow(holding(touch), np.logical_or(touch[:, 0], touch[:, 1]), in_air)
        distance = planar_distance(pose, self._goal)
        there = lies_on(pose, self._goal, self._rest_height, GOAL_TOLERANCE)
        if self._stage == 3 and there and left_alone(world, [touch]):
            return TaskStatus(success=True, progress=1.0)
        tools = world.tool_pose()[:, :3]
        if self._stage == 3:
            progress = self._ladder.climb(5) if there else self._ladder.climb(4, closeness(distance, 0.5))
        elif self._stage == 2:
            progress = self._ladder.climb(3)
        elif self._stage == 1:
            progress = self._ladder.climb(2, closeness(float(np.linalg.norm(tools[1] - pose[:3])), 0.5))
        elif holding(touch)[0]:
            progress = self._ladder.climb(1)
        else:
            progress = self._ladder.climb(0, closeness(float(np.linalg.norm(tools[0] - pose[:3])), 0.5))
        return TaskStatus(success=False, progress=progress)
