"""Sweep: both hands wipe crumbs over a line with one tool and set the tool down at its place."""

from __future__ import annotations

import numpy as np

from envs import GoalSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.assets import block
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.devices import BLADE_HALF, wiper
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.judge import MAX_TILT, Ladder, closeness, holding, in_frame, left_alone, planar_distance, tilt, yaw_of
from tasks.motion import ToolTarget, nearest_turn
from tasks.skills import PICK, PLACE, SETTLE_STEPS, Script, grips_on

START_X, START_Y, YAW_LIMIT = (0.05, 0.15), (-0.07, 0.07), 0.35  # m, m, rad
HALF_LENGTH = (0.145, 0.165)  # m, of the wiper
CRUMB_HALF = (0.008, 0.010)  # m
AHEAD, ASIDE = (0.055, 0.110), 0.030  # m: of the crumbs before the wiper, and to either side of their lane
LANES = (-0.075, 0.0, 0.075)  # m, one crumb in each, so that none starts inside another
LINE = (0.16, 0.24)  # m, from the wiper to the zone's edge
ZONE_HALF = 0.030  # m, half depth of the zone
PAST_LINE = 0.008  # m, how far the blade pushes past the line
PARK_AHEAD, PARK_ASIDE, PARK_TOLERANCE = (-0.03, 0.04), (-0.07, 0.07), 0.02  # m, the wiper's place from its start
ARC = 0.05  # m, how much its way there bends upwards
PRESS = 0.003  # m, how far below the table the hands aim: the force of a light push
SWEEP_NOISE = 0.4  # share of the execution noise: all of it lifts the blade off the table
SWEEP_SLOW = 1.8


class SweepCrumbs:
    """The task `sweep_crumbs`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="sweep_crumbs",
            family="sweep_crumbs",
            arms="both",
            split="train",
            horizon=190,
            segments=(*PICK, "sweep", *PLACE),
            description="Sweep crumbs into a zone with a wiper held in both hands, and set the wiper down on its disc.",
            instructions=(
                "[sweep|wipe|push] the {crumbs} crumbs into the {zone} zone with the {wiper} wiper, then put it away",
                "with both hands, [sweep|wipe] the {crumbs} crumbs between the {zone} posts, put the wiper away",
                "[take|hold] the {wiper} wiper [in both hands|with both arms] and sweep the {crumbs} crumbs away",
                "clean the table: the {crumbs} crumbs [belong|go] between the {zone} posts, the wiper on its disc",
            ),
            heldout_instructions=("with the {wiper} wiper, leave no {crumbs} crumb on this side of the {zone} posts",),
            objects=1 + len(LANES),
            goals=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A wiper across the table, crumbs before it in lanes, a zone beyond them, to either side along x."""
        length, way = draws.size("wiper_half_length", *HALF_LENGTH), draws.sign("way")
        start = (-way * draws.position("wiper_x", *START_X), draws.position("wiper_y", *START_Y))
        yaw = draws.yaw("wiper_yaw", YAW_LIMIT) + (0.0 if way > 0 else np.pi)
        wiper_word, crumb_word, zone_word = draws.colours("colours", ("green", "white", "red"))
        body = wiper(draws, start, yaw, length, wiper_word)

        def along(forward: float, aside: float) -> tuple[float, float]:
            c, s = np.cos(yaw), np.sin(yaw)
            return (float(start[0] + c * forward - s * aside), float(start[1] + s * forward + c * aside))

        crumbs = []
        park_xy = along(draws.position("park_ahead", *PARK_AHEAD), draws.position("park_aside", *PARK_ASIDE))
        for i, lane in enumerate(LANES):
            aside = lane + draws.position(f"crumb_{i}_aside", -ASIDE, ASIDE)
            xy = along(draws.position(f"crumb_{i}_ahead", *AHEAD), aside)
            crumbs.append(block(draws, f"crumb_{i}", xy, crumb_word, half=CRUMB_HALF))
        line = draws.position("line", *LINE)
        zone = GoalSpec(
            name="zone",
            pose=make_pose((*along(line + ZONE_HALF, 0.0), 0.008), yaw),
            tolerance=(ZONE_HALF, length + 0.02, 0.01),
            marker="frame",
            marker_half_size=(ZONE_HALF, length + 0.02, 0.008),
            colour=colour_words()[zone_word],
        )
        park = GoalSpec(
            name="park",
            pose=make_pose((*park_xy, body.pose[2]), yaw),
            tolerance=(PARK_TOLERANCE, PARK_TOLERANCE, 0.01),
            marker_half_size=(0.03, 0.03, 0.001),
            colour=colour_words()[wiper_word],
        )
        return TaskScene(
            spec=draws.scene((body, *crumbs), (zone, park)),
            words={"wiper": wiper_word, "crumbs": crumb_word, "zone": zone_word},
        )

    def monitor(self, scene: TaskScene) -> SweepCrumbsMonitor:
        """A fresh judge."""
        return SweepCrumbsMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Take the wiper by both grips, push it past the line, lightly down; carry it to its place, let go."""
        body = world.object_pose()[0]
        yaw = yaw_of(body)
        reach = in_frame(np.asarray(scene.spec.goals[0].pose), body)[0] - ZONE_HALF + PAST_LINE - BLADE_HALF[0]
        grips = grips_on(world, 0, nearest_turn(yaw, np.pi))
        script = Script(world, kinematics)
        script.grasp_together(grips)

        def moved(dx: float, dy: float, dz: float) -> list[ToolTarget]:
            places = [np.asarray(grip.position) + np.array([dx, dy, dz]) for grip in grips]
            return [
                ToolTarget(position=(float(x), float(y), float(z)), turn=grip.turn)
                for (x, y, z), grip in zip(places, grips, strict=True)
            ]

        script.together(*moved(np.cos(yaw) * reach, np.sin(yaw) * reach, -PRESS), slow=SWEEP_SLOW)
        script.wait(SETTLE_STEPS)
        script.end("sweep", noise=SWEEP_NOISE)
        px, py, pz = np.asarray(scene.spec.goals[1].pose[:3]) - body[:3]
        script.place_together(moved(px, py, pz), arc=ARC, slow=1.3, noise=SWEEP_NOISE)
        return script.plan()


class SweepCrumbsMonitor:
    """Judges a sweep: crumbs in the zone by the wiper in both hands and no finger, wiper at its place, left alone."""

    def __init__(self, scene: TaskScene) -> None:
        self._zone, self._park = (goal.pose for goal in scene.spec.goals)
        self._half = np.asarray(scene.spec.goals[0].tolerance[:2])
        self._start = scene.spec.objects[0].pose
        self._way = planar_distance(self._zone, self._start) - ZONE_HALF
        self._swept, self._fingered = False, False
        self._ladder = Ladder(3)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: every crumb in the zone, swept there, the wiper within 2 cm of its disc, untouched, at rest."""
        body, *crumbs = world.object_pose()
        touch = [world.finger_contacts(i) for i in range(1 + len(LANES))]
        held = holding(touch[0])
        moved, off = planar_distance(body, self._start), planar_distance(body, self._park)
        self._fingered = self._fingered or any(t.any() for t in touch[1:])
        self._swept = self._swept or (bool(held.all()) and moved > 0.8 * self._way)
        there = [bool((np.abs(in_frame(crumb, self._zone)[:2]) < self._half).all()) for crumb in crumbs]
        clean = all(there) and self._swept and not self._fingered
        if clean and off < PARK_TOLERANCE and tilt(body) < MAX_TILT and left_alone(world, touch):
            return TaskStatus(success=True, progress=1.0)
        if clean:
            progress = self._ladder.climb(3, closeness(off, self._way))
        elif held.all():
            progress = self._ladder.climb(2, moved / self._way)
        else:
            away = np.linalg.norm(world.tool_pose()[:, :3] - world.object_grasp()[0], axis=1)
            progress = self._ladder.climb(1 if held.any() else 0, closeness(float(away.max()), 0.4))
        return TaskStatus(success=False, progress=progress)
