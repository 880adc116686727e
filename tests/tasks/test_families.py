"""The predicates of the composed families: half a job, or the job done another way, is no success."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embodichain.contracts import ARMS, UnifiedAction
from tasks import ExpertPlan, TaskSession
from tasks.frames import to_local, to_world
from tasks.judge import tilt
from tasks.registry import get_task, slots
from tasks.sampling import draw_scene

Reset = Callable[..., ExpertPlan]  # the fixture of conftest.py


def execute(session: TaskSession, action: np.ndarray, settle: int = 30) -> bool:
    """Play actions, then hold the last one; whether success was ever seen."""
    seen = False
    for row in (*action, *([action[-1]] * settle)):
        session.step(row)
        seen = seen or session.status().success
    return seen


def until(plan: ExpertPlan, segment: str, action: np.ndarray | None = None) -> np.ndarray:
    """The plan's actions, or these in their stead, before `segment` begins."""
    return (plan.action if action is None else action)[plan.segment_id < plan.segment_names.index(segment)]


def only(plan: ExpertPlan, arm: int) -> np.ndarray:
    """The plan with the other arm frozen where it begins, gripper open."""
    action = plan.action.copy()
    other = 1 - arm
    for part in (UnifiedAction.eef(other), UnifiedAction.joints(other), UnifiedAction.gripper(other)):
        action[:, part] = action[0, part]
    return action


@pytest.mark.parametrize(
    ("task", "segment"),
    [
        ("stack_blocks", "reach upper"),
        ("stack_blocks", "release upper"),
        ("line_up_blocks", "reach large"),
        ("dual_place", "release"),
        ("load_tray", "reach tray"),
        ("push_bar", "push"),
        ("turn_wheel", "turn"),
        ("stow_block", "leave"),
        ("stow_block", "reach to close"),
        ("two_robot_pick_cube", "reach to take"),
        ("two_robot_stack_cube", "carry upper"),
        ("swap_blocks", "reach second home"),
        ("carry_basket", "reach basket"),
        ("carry_basket", "release basket"),
        ("sweep_crumbs", "carry"),
        ("sweep_crumbs", "release"),
        ("throw_switch", "throw"),
        ("open_lid_place", "carry block"),
        ("open_lid_place", "close"),
        ("hang_ring", "hang"),
        ("pour_cup", "pour"),
        ("insert_peg", "insert"),
    ],
)
def test_a_plan_that_is_cut_short_makes_progress_but_no_success(
    session: TaskSession, reset: Reset, task: str, segment: str
) -> None:
    plan = reset(task, 1)
    begin = session.status().progress
    assert not execute(session, until(plan, segment))
    assert begin < session.status().progress < 1.0


@pytest.mark.parametrize(
    "task",
    [
        "stack_blocks",
        "line_up_blocks",
        "dual_place",
        "load_tray",
        "push_bar",
        "turn_wheel",
        "stow_block",
        "two_robot_pick_cube",
        "two_robot_stack_cube",
        "swap_blocks",
        "carry_basket",
        "sweep_crumbs",
        "throw_switch",
        "open_lid_place",
        "hang_ring",
        "pour_cup",
        "insert_peg",
    ],
)
@pytest.mark.parametrize("arm", [0, 1])
def test_one_arm_alone_cannot_do_it(session: TaskSession, reset: Reset, task: str, arm: int) -> None:
    # of the fourth seeds, each has work for both arms
    plan = reset(task, 4)
    assert not execute(session, only(plan, arm))


def test_blocks_that_are_placed_one_after_the_other_are_no_dual_placement(session: TaskSession, reset: Reset) -> None:
    plan = reset("dual_place", 0)
    left_first, right_then = only(plan, 0), only(plan, 1)
    for part in (UnifiedAction.joints(0), UnifiedAction.gripper(0)):
        right_then[:, part] = left_first[-1, part]
    assert not execute(session, np.concatenate([left_first, right_then]))
    distance = session.observe().object_pose[:, :2] - session.observe().goal_pose[:, :2]
    assert (np.linalg.norm(distance, axis=1) < 0.03).all()  # although both lie on their discs


def test_an_empty_tray_does_not_count(session: TaskSession, reset: Reset) -> None:
    plan = reset("load_tray", 1)
    action = plan.action.copy()
    loading = plan.segment_id < plan.segment_names.index("reach tray")
    for arm in (0, 1):
        action[loading, UnifiedAction.gripper(arm)] = 1.0
    assert not execute(session, action)


def test_a_block_on_the_cabinet_is_not_in_the_drawer(session: TaskSession, reset: Reset) -> None:
    reset("stow_block", 0)
    pose = session.observe().goal_pose[0].copy()
    pose[2] += 0.08
    session.world.place_object(1, pose)
    for _ in range(20):
        session.step(np.asarray(session.observe().proprio))
    assert session.world.joint_position(0) < 0.015
    assert not session.status().success


def hold(session: TaskSession, steps: int = 20) -> bool:
    """Hold still; whether success was ever seen."""
    return execute(session, np.asarray(session.observe().proprio)[None], steps)


def raised(pose: np.ndarray, height: float) -> np.ndarray:
    """`pose` f32[7], `height` m higher."""
    return pose + np.array([0.0, 0.0, height, 0.0, 0.0, 0.0, 0.0], dtype=np.float32)


def test_blocks_on_each_others_discs_are_not_swapped_and_on_their_own_they_are(
    session: TaskSession, reset: Reset
) -> None:
    reset("swap_blocks", 1)
    goals = session.observe().goal_pose
    for index, height in enumerate(session.observe().object_size[:, 2]):
        session.world.place_object(index, np.array([*goals[1 - index][:2], height, 1.0, 0.0, 0.0, 0.0]))
    assert not hold(session)
    for index, height in enumerate(session.observe().object_size[:, 2]):
        session.world.place_object(index, np.array([*goals[index][:2], height, 1.0, 0.0, 0.0, 0.0]))
    assert hold(session)


def test_a_basket_with_one_block_left_out_or_never_carried_does_not_count(session: TaskSession, reset: Reset) -> None:
    plan = reset("carry_basket", 1)
    action = plan.action.copy()
    for segment in ("grasp left", "carry left"):
        action[plan.segment_id == plan.segment_names.index(segment), UnifiedAction.gripper(0)] = 1.0
    assert not execute(session, action)
    observation = session.observe()
    assert np.linalg.norm(observation.object_pose[0, :2] - observation.goal_pose[0, :2]) < 0.03  # but carried
    reset("carry_basket", 1)
    goal = session.observe().goal_pose[0]
    session.world.place_object(0, goal)
    for index in (1, 2):
        session.world.place_object(index, raised(goal, 0.02))
    assert not hold(session, 40)


def test_crumbs_in_the_zone_that_no_wiper_swept_there_do_not_count(session: TaskSession, reset: Reset) -> None:
    reset("sweep_crumbs", 1)
    zone = session.observe().goal_pose[0]
    for index in (1, 2, 3):
        aside = np.array([0.0, 0.03 * (index - 2), 0.004], dtype=np.float32)
        session.world.place_object(index, np.concatenate([zone[:3] + aside, zone[3:]]))
    assert not hold(session)


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_the_bar_keeps_the_switch_from_being_thrown(session: TaskSession, reset: Reset, index: int) -> None:
    """The throwing arm does all of its part, the other one never presses the bar."""
    plan = reset("throw_switch", index)
    switch, bar = session.observe().object_pose
    pushing = only(plan, 0 if switch[1] > bar[1] else 1)
    for row in until(plan, "back off", pushing):
        session.step(row)
    assert session.world.finger_contacts(0).any()
    assert session.world.joint_position(0) < 0.2


def settle(session: TaskSession, plan: ExpertPlan, steps: int, open_arm: int | None = None) -> None:
    """Hold the plan's last action, one gripper opened if so asked."""
    last = plan.action[-1].copy()
    if open_arm is not None:
        last[UnifiedAction.gripper(open_arm)] = 1.0
    for _ in range(steps):
        session.step(last)


def test_a_lid_that_is_let_go_falls_shut(session: TaskSession, reset: Reset) -> None:
    plan = reset("open_lid_place", 0)
    opening = until(plan, "carry block")
    execute(session, opening, settle=10)
    assert session.world.joint_position(0) > 1.2
    last = opening[-1].copy()
    last[UnifiedAction.gripper(0)] = last[UnifiedAction.gripper(1)] = 1.0
    for _ in range(30):
        session.step(last)
    assert session.world.joint_position(0) < 0.06


def test_a_block_on_the_lid_is_not_in_the_chest(session: TaskSession, reset: Reset) -> None:
    reset("open_lid_place", 0)
    pose = session.observe().goal_pose[0].copy()
    pose[2] += 0.09
    session.world.place_object(1, pose)
    for _ in range(20):
        session.step(np.asarray(session.observe().proprio))
    assert session.world.joint_position(0) < 0.06
    assert not session.status().success


def test_a_ring_beside_its_peg_or_around_the_post_does_not_hang(session: TaskSession, reset: Reset) -> None:
    plan = reset("hang_ring", 2)
    assert execute(session, plan.action)
    ring, stand = session.world.object_pose()
    for shift in ((0.0, 0.0, -0.07), (0.0, 0.06, 0.0), (-0.06, 0.0, 0.0)):  # below, beside, before the peg's tip
        moved = ring.copy()
        moved[:3] = to_world(stand, to_local(stand, ring[:3]) + np.array(shift))
        session.world.place_object(0, moved)
        session.step(plan.action[-1])
        settle(session, plan, 1)
        assert not session.status().success


def test_the_stand_tips_over_without_the_arm_that_holds_it(session: TaskSession, reset: Reset) -> None:
    plan = reset("hang_ring", 2)
    assert execute(session, plan.action)
    holder = 1 if session.draws["side"] == 1 else 0
    settle(session, plan, 40, open_arm=holder)
    assert tilt(session.world.object_pose()[1]) > 0.5
    assert not session.status().success


def test_a_bead_beside_the_bowl_spoils_the_pour(session: TaskSession, reset: Reset) -> None:
    plan = reset("pour_cup", 1)
    assert execute(session, plan.action)
    assert session.status().success
    pose = session.world.object_pose()[4].copy()
    pose[:3] += (0.0, 0.0, 0.12)  # above the bowl is not in it
    session.world.place_object(4, pose)
    session.step(plan.action[-1])
    assert not session.status().success
    pose[:3] = (0.25, 0.0, 0.01)
    session.world.place_object(4, pose)
    settle(session, plan, 20)
    assert not session.status().success


def test_a_cup_that_stands_in_the_bowl_has_not_been_poured() -> None:
    """The beads lie in the bowl then, inside the cup."""
    task = get_task("pour_cup")
    scene = draw_scene(task, 1, "default")
    pourer = ARMS.index(scene.words["arm"])
    holds = np.zeros((2, 2), dtype=bool)
    holds[1 - pourer] = True
    dish = np.asarray(scene.spec.goals[0].pose)
    for cup_off, success in ((0.0, False), (0.3, True)):
        cup = dish + np.eye(7)[0] * cup_off
        poses = np.stack([cup, dish, *([dish] * (len(scene.spec.objects) - 2))])
        world: Any = SimpleNamespace(
            object_pose=lambda poses=poses: poses,
            object_motion=lambda poses=poses: np.zeros((len(poses), 2)),
            finger_contacts=lambda index: holds & (index == 1),
            spec_scene=scene.spec,
            tool_pose=lambda: np.zeros((2, 7)),
        )
        assert task.monitor(scene).update(world).success is success


def test_a_peg_on_the_rim_is_not_inserted_and_a_dropped_socket_does_not_count(
    session: TaskSession, reset: Reset
) -> None:
    plan = reset("insert_peg", 1)
    assert execute(session, plan.action)
    assert session.status().success
    pose = session.world.object_pose()[1].copy()
    pose[2] += 0.03
    session.world.place_object(1, pose)
    session.step(plan.action[-1])
    assert not session.status().success
    settle(session, plan, 20)
    assert session.status().success  # it slid back into its hole
    settle(session, plan, 20, open_arm=0 if session.draws["side"] == 1 else 1)
    assert not session.status().success


def test_slots_cover_every_task_of_a_run() -> None:
    assert slots(["pick_place"]) == {"max_objects": 1, "max_goals": 1}
    assert slots(["dual_place", "stack_blocks", "line_up_blocks"]) == {"max_objects": 3, "max_goals": 3}
    with pytest.raises(KeyError, match="pick_place"):
        slots(["juggle"])
