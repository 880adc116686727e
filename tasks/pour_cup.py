"""Pour: one arm brings a bowl to its mark and steadies it, the other one tips a cup of beads over it."""

from __future__ import annotations

import numpy as np

from embodichain.contracts import ARMS
from envs import GoalSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.containers import BOWL_HALF_HEIGHT, CUP_GRASP, beads, bowl, cup
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.frames import facing, heading, to_local, to_world
from tasks.judge import MAX_TILT, Ladder, all_at_rest, closeness, holding, reach, tilt, yaw_of
from tasks.language import arm_word
from tasks.motion import ToolTarget, nearest_turn, turn_along
from tasks.skills import PICK, SETTLE_STEPS, Script

GOAL_TOLERANCE = 0.02  # m, distance of the bowl from its goal
CUP_X, CUP_Y, BOWL_X, BOWL_Y = (-0.14, 0.06), (0.17, 0.29), (-0.12, 0.12), (-0.18, -0.10)  # m
CUP_YAW, BOWL_YAW = 0.12, 0.25  # rad; from some grasps on cups turned farther the arm cannot pour
GOAL_X, GOAL_Y = (-0.08, 0.12), (-0.04, 0.06)  # m
CUP_HALF_WIDTH, CUP_HALF_HEIGHT, BOWL_HALF_WIDTH = (0.024, 0.028), (0.044, 0.050), (0.055, 0.065)  # m
BEADS = 3
GRIP_LEAN, POUR_ANGLE, HOLD_LEAN = -1.15, 2.30, -0.25  # rad: the hand on the cup, how far it tips, hand on the bowl
LIP = (-0.020, 0.008, 0.025)  # m, where the cup's lip is while beads leave it: from the middle of the bowl's rim
FALL_STEPS = 6
PRESS = 0.006  # m, by which the bowl is pressed on the table; held in the air it would swing in the hand


class PourCup:
    """The task `pour_cup`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="pour_cup",
            family="pour_cup",
            arms="both",
            split="heldout",
            horizon=300,
            segments=(*PICK, "bring", "pour", "right"),
            description="Hold a bowl on its mark with one arm, pour a cup of beads into it with the other one.",
            instructions=(
                "[pour|tip|empty] the {cup} cup into the {bowl} bowl while the other arm holds the bowl",
                "with the {arm} arm, [pour|tip|empty] the {cup} cup into the {bowl} bowl",
                "hold the {bowl} bowl [steady|still] between the {goal} posts and [pour|empty] the {cup} cup into it",
            ),
            heldout_instructions=("the {bowl} bowl shall [hold|contain] what is in the {cup} cup",),
            objects=2 + BEADS,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A full cup on the side of the arm that pours, a bowl on the other's, a place between them for the bowl."""
        side = draws.sign("side")
        half = (draws.size("cup_half_width", *CUP_HALF_WIDTH), draws.size("cup_half_height", *CUP_HALF_HEIGHT))
        width = draws.size("bowl_half_width", *BOWL_HALF_WIDTH)
        cup_word, bowl_word, bead_word, goal_word = draws.colours("colours", ("blue", "orange", "red", "cyan"))
        cup_xy = (draws.position("cup_x", *CUP_X), draws.position("cup_y", *CUP_Y))
        full = cup(draws, side, cup_xy, draws.yaw("cup_yaw", CUP_YAW), half, cup_word)
        bowl_xy = (draws.position("bowl_x", *BOWL_X), draws.position("bowl_y", *BOWL_Y))
        dish = bowl(draws, side, bowl_xy, draws.yaw("bowl_yaw", BOWL_YAW), width, bowl_word)
        there = facing(side, draws.position("goal_x", *GOAL_X), draws.position("goal_y", *GOAL_Y))
        goal = GoalSpec(
            name="goal",
            pose=make_pose((*there, BOWL_HALF_HEIGHT), heading(side)),
            tolerance=(GOAL_TOLERANCE,) * 3,
            marker="frame",
            marker_half_size=(width + 0.02, width + 0.02, 0.012),
            colour=colour_words()[goal_word],
        )
        return TaskScene(
            spec=draws.scene((full, dish, *beads(draws, full, BEADS, bead_word)), (goal,)),
            words={"cup": cup_word, "bowl": bowl_word, "goal": goal_word, "arm": arm_word(side)},
        )

    def monitor(self, scene: TaskScene) -> PourCupMonitor:
        """A fresh judge."""
        return PourCupMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Both take hold and bring cup and bowl together; the cup turns about its lip, over the bowl, and back."""
        full, dish = world.object_pose()[:2]
        pourer = ARMS.index(scene.words["arm"])
        holder = 1 - pourer
        goal, (width, _, height) = scene.spec.goals[0].pose, scene.spec.objects[0].half_extents

        def on_handle(pose: np.ndarray | tuple[float, ...]) -> ToolTarget:
            x, y, z = (float(v) for v in to_world(pose, scene.spec.objects[1].grasps[0]))
            return ToolTarget(position=(x, y, z), turn=nearest_turn(yaw_of(pose), np.pi), tilt=HOLD_LEAN)

        def on_cup(frame: np.ndarray | tuple[float, ...], point: np.ndarray, angle: float) -> ToolTarget:
            x, y, z = (float(v) for v in to_world(frame, point))
            turn = turn_along(pourer, yaw_of(frame))
            return ToolTarget(position=(x, y, z), turn=turn, tilt=GRIP_LEAN + angle)

        def tipped(angle: float) -> ToolTarget:
            x, y, z = np.asarray(CUP_GRASP) - (width, 0.0, height)  # from the lip to the tool, upright
            c, s = np.cos(angle), np.sin(angle)
            clear = max((2.0 * height + 0.02) * c, 0.0)  # so that the foot of the cup passes over the rim
            lip = np.asarray(LIP) + np.array([0.0, 0.0, BOWL_HALF_HEIGHT + clear])
            return on_cup(goal, lip + np.array([x * c + z * s, y, z * c - x * s]), angle)

        script = Script(world, kinematics)
        pour, hold = script.arms[pourer], script.arms[holder]
        script.pick({pourer: on_cup(full, np.asarray(CUP_GRASP), 0.0), holder: on_handle(dish)}, noise=0.1, settle=5)
        hold.go(on_handle(goal).raised(-PRESS), depart=0.03, approach=0.03, slow=1.2)
        pour.go(tipped(0.0), depart=0.12, slow=1.3)
        script.wait(SETTLE_STEPS)
        script.end("bring", noise=0.5)
        arc = [tipped(angle) for angle in np.linspace(0.0, POUR_ANGLE, script.planner.limits.knots)]
        pour.sweep(arc, slow=2.0)
        pour.wait(FALL_STEPS)
        script.end("pour", noise=0.3)
        pour.sweep(arc[::-1], slow=1.3)
        script.end("right", noise=0.3)
        return script.plan()


def within(vessel: np.ndarray, bead: np.ndarray, half_extents: np.ndarray) -> bool:
    """Whether a bead's centre lies in the box of a vessel; poses f[7]."""
    return bool((np.abs(to_local(vessel, bead[:3])) < half_extents).all())


class PourCupMonitor:
    """Judges a pour: every bead in the bowl and out of the cup, the bowl held level at its goal, all at rest."""

    def __init__(self, scene: TaskScene) -> None:
        self._goal = np.asarray(scene.spec.goals[0].pose)
        self._pourer = ARMS.index(scene.words["arm"])
        self._inside = np.array([scene.spec.objects[1].half_extents[0]] * 2 + [BOWL_HALF_HEIGHT])
        self._cup = np.array(scene.spec.objects[0].half_extents)
        self._ladder = Ladder(4)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: all beads in the bowl; the other arm holds it level within 2 cm of its goal; all at rest."""
        poses = world.object_pose()
        full, dish = poses[:2]
        inside = [within(dish, bead, self._inside) and not within(full, bead, self._cup) for bead in poses[2:]]
        held, cup_held = holding(world.finger_contacts(1)), holding(world.finger_contacts(0))
        away = float(np.linalg.norm(dish[:3] - self._goal[:3]))
        raised = bool(held[1 - self._pourer]) and away < GOAL_TOLERANCE and tilt(dish) < MAX_TILT
        if raised and all(inside) and all_at_rest(world):
            return TaskStatus(success=True, progress=1.0)
        if raised and cup_held.any():
            near = closeness(float(np.linalg.norm(full[:3] - dish[:3])), 0.4)
            progress = self._ladder.climb(4 if any(inside) else 3, sum(inside) / BEADS if any(inside) else near)
        elif held.any() and cup_held.any():
            progress = self._ladder.climb(2, closeness(away, 0.3))
        elif held.any() or cup_held.any():
            progress = self._ladder.climb(1)
        else:
            progress = self._ladder.climb(0, closeness(max(reach(world, 0), reach(world, 1)), 0.5))
        return TaskStatus(success=False, progress=progress)
