"""Carry: each arm drops its block into the basket, then both carry it by its handles and set it down elsewhere."""

from __future__ import annotations

import numpy as np

from envs import GoalSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.assets import GRIP_HALF, block
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.devices import BASKET_LENGTH, FLOOR_TOP, basket
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.judge import (
    Ladder,
    closeness,
    holding,
    in_frame,
    left_alone,
    lies_on,
    lifted_level,
    planar_distance,
    reach,
    yaw_of,
)
from tasks.motion import ToolTarget, nearest_turn
from tasks.skills import PICK, PLACE, RELEASE_ABOVE, Script, grips_on, on_block, segments

GOAL_TOLERANCE, MAX_YAW = 0.025, float(np.deg2rad(6.0))  # m, of the basket in the table plane; off the frame's
BASKET_X, GOAL_X, MIDDLE_Y = (0.05, 0.13), (0.05, 0.13), (-0.05, 0.05)  # m
BASKET_YAW, GOAL_YAW = 0.15, 0.30  # rad
BLOCK_X, BLOCK_SIDE = (0.10, 0.19), (0.10, 0.26)  # m: where the basket shall go, so that they must leave
WIDTH, LENGTH = (0.064, 0.070), (0.088, 0.096)  # m, half extents of the basket's inside
DROP_Y, DROP_ABOVE = 0.042, 0.008  # m: of the blocks in the basket, and of what falls above its floor
PART_OPEN = 0.85  # gripper command that lets a block go between the walls
MIN_LIFT = 0.02  # m, that both hands must have raised the loaded basket by
ARC = 0.10  # m, how much the way of the basket bends upwards
NAMES = ("left", "right")


class CarryBasket:
    """The task `carry_basket`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="carry_basket",
            family="carry_basket",
            arms="both",
            split="train",
            horizon=320,
            segments=(
                *(segment for name in NAMES for segment in segments((*PICK, *PLACE), name)),
                *segments((*PICK, *PLACE), "basket"),
            ),
            description="Put a block of either side into a basket, then carry the basket away with both arms.",
            instructions=(
                "[put|drop|collect] both blocks [into|in] the {basket} basket and carry it to the {goal} frame",
                "fill the {basket} basket with the {left} and the {right} block, [carry|take] it to the {goal} frame",
                "[put|drop] {left} and {right} into the basket, then both arms [carry|bring] it to the {goal} posts",
            ),
            heldout_instructions=(
                "the {left} and the {right} block shall [travel|go] in the {basket} basket to the {goal} posts",
            ),
            objects=3,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A basket at the near or far end of the middle, its goal at the other end, a block on either side of that."""
        width, length = draws.size("basket_half_width", *WIDTH), draws.size("basket_half_length", *LENGTH)
        way = draws.sign("direction")
        start = (-way * draws.position("basket_x", *BASKET_X), draws.position("basket_y", *MIDDLE_Y))
        end = (way * draws.position("goal_x", *GOAL_X), draws.position("goal_y", *MIDDLE_Y))
        turn, goal_turn = draws.yaw("basket_yaw", BASKET_YAW), draws.yaw("goal_yaw", GOAL_YAW)
        words = draws.colours("colours", ("orange", "red", "blue", "white"))
        body = basket(draws, start, turn, width, length, words[0])
        loads = []
        for i, (name, side) in enumerate(zip(NAMES, (1.0, -1.0), strict=True)):
            x, y = draws.position(f"{name}_x", *BLOCK_X), draws.position(f"{name}_y", *BLOCK_SIDE)
            loads.append(block(draws, name, (way * x, side * y), words[i + 1]))
        goal = GoalSpec(
            name="goal",
            pose=make_pose((*end, GRIP_HALF[2]), goal_turn),
            tolerance=(GOAL_TOLERANCE, GOAL_TOLERANCE, 0.01),
            marker="frame",
            marker_half_size=(width + 0.02, BASKET_LENGTH, 0.008),
            colour=colour_words()[words[3]],
        )
        return TaskScene(
            spec=draws.scene((body, *loads), (goal,)),
            words=dict(zip(("basket", *NAMES, "goal"), words, strict=True)),
        )

    def monitor(self, scene: TaskScene) -> CarryBasketMonitor:
        """A fresh judge."""
        return CarryBasketMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Left drops its block on its side of the basket, right too; both carry, in step, and set down."""
        body, *loads = world.object_pose()
        goal = np.asarray(scene.spec.goals[0].pose)
        turn = nearest_turn(yaw_of(body), np.pi)
        script = Script(world, kinematics)
        for arm, (name, side) in enumerate(zip(NAMES, (1.0, -1.0), strict=True)):
            x, y = body[:2] + side * DROP_Y * np.array([-np.sin(turn), np.cos(turn)])
            height = float(body[2]) + FLOOR_TOP + scene.spec.objects[1 + arm].half_extents[2] + DROP_ABOVE
            script.pick({arm: on_block(loads[arm])}, of=name)
            drop = ToolTarget(position=(float(x), float(y), height), turn=turn)
            script.place({arm: drop}, of=name, noise=0.5, opening=PART_OPEN)
            if arm == 0:
                script.arms[arm].leave()
        grips = grips_on(world, 0, turn)
        script.grasp_together(grips, of="basket")
        bend = yaw_of(goal) - yaw_of(body)
        c, s = np.cos(bend), np.sin(bend)
        ends = []
        for grip in grips:
            dx, dy, dz = np.asarray(grip.position) - body[:3]
            x, y, z = goal[:3] + np.array([c * dx - s * dy, s * dx + c * dy, dz + RELEASE_ABOVE])
            ends.append(ToolTarget(position=(float(x), float(y), float(z)), turn=turn + bend))
        script.place_together(ends, of="basket", arc=ARC, slow=1.5, noise=0.5)
        return script.plan()


class CarryBasketMonitor:
    """Judges the basket: both blocks inside, carried by both arms, set down at its goal, left alone, at rest."""

    def __init__(self, scene: TaskScene) -> None:
        body, *loads = scene.spec.objects
        self._goal = scene.spec.goals[0].pose
        wall_x, wall_y = body.parts[2].position[0], body.parts[4].position[1]
        self._inside = np.array([wall_x, wall_y])
        self._half = [load.half_extents[2] for load in loads]
        self._way = planar_distance(body.pose, self._goal)
        self._carried = False
        self._ladder = Ladder(5)

    def _in_basket(self, load: np.ndarray, body: np.ndarray, half: float) -> bool:
        where = in_frame(load, body)
        return bool((np.abs(where[:2]) < self._inside).all()) and abs(where[2] - FLOOR_TOP - half) < 0.03

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: loaded, carried by both hands, within 2.5 cm and 6 degrees of the goal, untouched, at rest."""
        body, *loads = world.object_pose()
        touch = [world.finger_contacts(i) for i in range(3)]
        inside = [
            self._in_basket(load, body, half) and not touched.any()
            for load, half, touched in zip(loads, self._half, touch[1:], strict=True)
        ]
        held = holding(touch[0])
        raised = float(body[2]) - GRIP_HALF[2]
        self._carried = self._carried or (all(inside) and lifted_level(body, held) and raised > MIN_LIFT)
        aligned = abs(yaw_of(body) - yaw_of(self._goal)) < MAX_YAW
        there = aligned and lies_on(body, self._goal, GRIP_HALF[2], GOAL_TOLERANCE)
        if all(inside) and self._carried and there and left_alone(world, touch):
            return TaskStatus(success=True, progress=1.0)
        if all(inside) and self._carried:
            progress = self._ladder.climb(4, closeness(planar_distance(body, self._goal), self._way))
        elif all(inside):
            progress = self._ladder.climb(3, 0.5 * float(held.any()))
        elif any(inside):
            progress = self._ladder.climb(2)
        elif any(holding(t).any() for t in touch[1:]):
            progress = self._ladder.climb(1)
        else:
            progress = self._ladder.climb(0, closeness(min(reach(world, i) for i in (1, 2)), 0.4))
        return TaskStatus(success=False, progress=progress)
