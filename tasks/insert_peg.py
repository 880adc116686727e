"""Hold and insert: one arm holds a socket out in the air, the other one puts a peg into its hole."""

from __future__ import annotations

import numpy as np

from embodichain.contracts import ARMS
from envs import BoxPart, GoalSpec, ObjectSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.containers import SOCKET_HALF_HEIGHT, SOCKET_WALL, socket
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.frames import facing, heading, to_local, to_world
from tasks.judge import MAX_TILT, Ladder, all_at_rest, closeness, holding, reach, tilt, yaw_of
from tasks.language import arm_word
from tasks.materials import PVC
from tasks.motion import ToolTarget, nearest_turn
from tasks.skills import PICK, RELEASE_ABOVE, SETTLE_STEPS, Script

GOAL_TOLERANCE = 0.03  # m, distance of the socket from its goal
SOCKET_X, SOCKET_Y, PEG_X, PEG_Y, YAW = (-0.12, 0.12), (0.12, 0.18), (-0.14, 0.14), (-0.28, -0.18), 0.35  # m, rad
GOAL_X, GOAL_Y, LIFT = (-0.04, 0.04), (-0.01, 0.03), (0.10, 0.14)  # m
PEG_HALF, PEG_HALF_LENGTH, GAP = (0.012, 0.014), (0.042, 0.050), 0.003  # m; the gap is on either side of the peg
LEAN = -0.30  # rad, by which either hand leans towards its own base, away from the other one
ABOVE = 0.08  # m, from where the peg goes straight down
PEG_GRASP = 0.012  # m, below the peg's upper end
SEATED = 0.008  # m, by which the peg may stand off the floor of its hole


class InsertPeg:
    """The task `insert_peg`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="insert_peg",
            family="insert_peg",
            arms="both",
            split="heldout",
            horizon=190,
            segments=(*PICK, "lift", "insert", "let go"),
            description="Hold a socket out with one arm and put a peg into its hole with the other one.",
            instructions=(
                "[put|insert|plug] the {peg} peg into the {socket} socket while the {arm} arm holds the socket up",
                "[lift|raise] the {socket} socket with the {arm} arm and [insert|put] the {peg} peg",
                "hold the {socket} socket up between the {goal} posts and [put|push|insert] the {peg} peg into it",
            ),
            heldout_instructions=("[join|assemble] the {peg} peg and the {socket} socket in the air",),
            objects=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A socket on one arm's side, a peg standing on the other's, a place in the air between them."""
        side = draws.sign("side")
        half, length = draws.size("peg_half_width", *PEG_HALF), draws.size("peg_half_length", *PEG_HALF_LENGTH)
        socket_word, peg_word, goal_word = draws.colours("colours", ("blue", "yellow", "cyan"))
        xy = (draws.position("socket_x", *SOCKET_X), draws.position("socket_y", *SOCKET_Y))
        body = socket(draws, side, xy, draws.yaw("socket_yaw", YAW), half + GAP, socket_word)
        where = facing(side, draws.position("peg_x", *PEG_X), draws.position("peg_y", *PEG_Y))
        parts = (BoxPart(half_size=(half, half, length)),)
        peg = ObjectSpec(
            name="peg",
            parts=parts,
            pose=make_pose((*where, length), draws.yaw("peg_yaw", YAW)),
            mass=draws.mass("peg_mass", PVC, parts),
            friction=draws.physical("peg_friction", 0.6),
            colour=colour_words()[peg_word],
            grasps=((0.0, 0.0, length - PEG_GRASP),),
        )
        there = facing(side, draws.position("goal_x", *GOAL_X), draws.position("goal_y", *GOAL_Y))
        goal = GoalSpec(
            name="goal",
            pose=make_pose((*there, SOCKET_HALF_HEIGHT + draws.position("lift", *LIFT)), heading(side)),
            tolerance=(GOAL_TOLERANCE,) * 3,
            marker="frame",
            marker_half_size=(0.05, 0.04, 0.012),
            colour=colour_words()[goal_word],
        )
        words = {"socket": socket_word, "peg": peg_word, "goal": goal_word, "arm": arm_word(side)}
        return TaskScene(spec=draws.scene((body, peg), (goal,)), words=words)

    def monitor(self, scene: TaskScene) -> InsertPegMonitor:
        """A fresh judge."""
        return InsertPegMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Both take hold; one lifts the socket to its goal, the other one lowers the peg into it and lets go."""
        body, peg = world.object_pose()
        holder = ARMS.index(scene.words["arm"])
        putter = 1 - holder
        goal, (tab, *_), (top, *_) = scene.spec.goals[0].pose, *(o.grasps for o in scene.spec.objects)

        def at(frame: np.ndarray | tuple[float, ...], point: tuple[float, ...], symmetry: float) -> ToolTarget:
            x, y, z = (float(v) for v in to_world(frame, point))
            return ToolTarget(position=(x, y, z), turn=nearest_turn(yaw_of(frame), symmetry), tilt=LEAN)

        script = Script(world, kinematics)
        hold, put = script.arms[holder], script.arms[putter]
        script.pick({holder: at(body, tab, np.pi), putter: at(peg, top, np.pi / 2)}, noise=0.1, settle=5)
        hold.go(at(goal, tab, np.pi), depart=0.05, slow=1.2)
        hold.wait(SETTLE_STEPS)
        bottom = 2 * SOCKET_WALL - SOCKET_HALF_HEIGHT  # the hole's floor in the socket's frame
        length = scene.spec.objects[1].half_extents[2]
        seated = at(goal, (0.0, 0.0, bottom + 2 * length - PEG_GRASP + RELEASE_ABOVE), np.pi)
        above = seated.raised(ABOVE)
        put.go(above, depart=0.10, slow=1.1)
        script.end("lift", noise=0.5)
        script.wait(2 * SETTLE_STEPS)
        put.slide(above, seated, slow=1.5)
        put.wait(SETTLE_STEPS)
        script.end("insert", noise=0.0)
        put.back_off(seated, 0.10)
        script.end("let go", noise=0.0)
        return script.plan()


class InsertPegMonitor:
    """Judges a peg in a held socket: seated, socket level in the air at its goal, held by one arm, peg let go."""

    def __init__(self, scene: TaskScene) -> None:
        self._goal = np.asarray(scene.spec.goals[0].pose)
        length = scene.spec.objects[1].half_extents[2]
        self._seat = (0.0, 0.0, 2 * SOCKET_WALL - SOCKET_HALF_HEIGHT + length)  # of the peg's middle
        self._ladder = Ladder(4)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: the peg stands on the hole's floor, untouched; the socket is held within 3 cm of its goal; rest."""
        body, peg = world.object_pose()
        held, touch = holding(world.finger_contacts(0)), world.finger_contacts(1)
        off = np.abs(to_local(body, peg[:3]) - self._seat)
        seated = bool(off[0] < 2 * GAP and off[1] < 2 * GAP and off[2] < SEATED)
        away = float(np.linalg.norm(body[:3] - self._goal[:3]))
        raised = bool(held.any()) and away < GOAL_TOLERANCE and tilt(body) < MAX_TILT
        if seated and raised and not touch.any() and all_at_rest(world):
            return TaskStatus(success=True, progress=1.0)
        if raised and holding(touch).any():
            progress = self._ladder.climb(4 if seated else 3, closeness(float(np.linalg.norm(off)), 0.3))
        elif held.any() and holding(touch).any():
            progress = self._ladder.climb(2, closeness(away, 0.3))
        elif held.any() or holding(touch).any():
            progress = self._ladder.climb(1)
        else:
            progress = self._ladder.climb(0, closeness(max(reach(world, 0), reach(world, 1)), 0.5))
        return TaskStatus(success=False, progress=progress)
