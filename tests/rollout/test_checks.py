"""What the verdict must see besides success, on real physics: each bad scene or plan ends under its own name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from embodichain.actors.worker import SimWorker
from embodichain.contracts import Episode, Observation, Recipe, UnifiedAction
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from embodichain.rollout.checks import exploded
from envs import BoxPart, PandaKinematics
from envs.world import DualArmWorld
from tasks import registry
from tasks.base import ExpertPlan, TaskScene, TaskStatus
from tasks.draws import Draws
from tasks.pick_place import PickPlace, PickPlaceMonitor
from tasks.session import TaskSession

RECIPE = Recipe(task="pick_place", seed=3)
OPTIONS = RolloutOptions()
LEFT = UnifiedAction.joints(0)


@pytest.fixture(scope="module")
def session():
    session = TaskSession(render=None)
    yield session
    session.close()


def with_scene(change: Callable[[TaskScene], TaskScene]) -> PickPlace:
    class Changed(PickPlace):
        def draw(self, draws: Draws) -> TaskScene:
            return change(super().draw(draws))

    return Changed()


def with_plan(change: Callable[[ExpertPlan], ExpertPlan]) -> PickPlace:
    class Changed(PickPlace):
        def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
            return change(super().plan(scene, world, kinematics))

    return Changed()


@pytest.fixture
def play(session: TaskSession, monkeypatch: pytest.MonkeyPatch):
    """Makes RECIPE's episode with another task in the place of `pick_place`."""

    def play(task: PickPlace, slots: int = 1):
        monkeypatch.setattr("tasks.session.get_task", lambda name: task)
        return make_episode(RECIPE, session, StateEncoder(max_objects=slots, max_goals=1), OPTIONS)[:2]

    return play


def spoiled(plan: ExpertPlan, **entries: float) -> ExpertPlan:
    action = plan.action.copy()
    action[10:, LEFT.start] += entries["by"]
    return replace(plan, action=action)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda plan: spoiled(plan, by=np.nan), "plan_not_finite"),
        (lambda plan: spoiled(plan, by=0.3), "plan_jump"),
        (lambda plan: replace(plan, action=plan.action[:, :20]), "plan_wrong_shape"),
        (lambda plan: replace(plan, action=plan.action[:0], segment_id=plan.segment_id[:0]), "plan_wrong_shape"),
        (lambda plan: replace(plan, segment_id=plan.segment_id[:-1]), "plan_wrong_shape"),
        (lambda plan: replace(plan, segment_names=plan.segment_names[:1]), "plan_wrong_shape"),
        (lambda plan: replace(plan, action=plan.action.astype(np.float64)), "plan_wrong_shape"),
    ],
)
def test_an_infeasible_plan_is_rejected_before_anything_moves(play, session, change, reason):
    episode, verdict = play(with_plan(change))
    assert episode is None
    assert verdict.reasons == (reason,)
    assert not session.world.object_velocity().any()


def test_a_plan_beyond_the_joint_limits_is_rejected(play):
    def wind_up(plan: ExpertPlan) -> ExpertPlan:
        action = plan.action.copy()
        action[:, LEFT.start] = np.arange(len(action)) * 0.1
        return replace(plan, action=action)

    assert play(with_plan(wind_up))[1].reasons == ("plan_joint_limit",)


class _PassesALimit(TaskSession):
    """One joint's limit lies, once the plan is checked, half way to where the plan takes it in passing."""

    beyond = 0

    def expert(self) -> ExpertPlan:
        plan = super().expert()
        joints = np.stack([plan.action[:, UnifiedAction.joints(arm)] for arm in (0, 1)], axis=1)
        detour = joints.max(axis=0) - np.maximum(joints[0], joints[-1])
        assert detour.max() > 0.1
        tight = joints.max(axis=0) - detour.max() / 2
        self._upper = np.where(detour == detour.max(), tight, self._upper).astype(np.float32)
        return plan

    def step(self, action: np.ndarray) -> Observation:
        observation = super().step(action)
        self.beyond += bool((self.world.arm_qpos()[:, :7] >= self._upper).any())
        return observation


def test_a_measured_joint_beyond_its_limit_rejects_an_episode_that_succeeds_all_the_same():
    """Even if it comes back: what was measured during some steps counts at the end."""
    session = _PassesALimit(render=None)
    episode, verdict, _ = make_episode(RECIPE, session, StateEncoder(), OPTIONS)
    session.close()
    assert episode is not None
    assert episode.success
    assert 0 < session.beyond < episode.pairs / 2
    assert verdict.reasons == ("joint_limit",)


def twins(scene: TaskScene, apart: float) -> TaskScene:
    """A second cube spawned into the first, `apart` m beside it."""
    cube = scene.spec.objects[0]
    twin = replace(cube, name="twin", pose=(cube.pose[0] + apart, *cube.pose[1:]))
    return replace(scene, spec=replace(scene.spec, objects=(cube, twin)))


@pytest.mark.parametrize("apart", [0.001, 0.015, 0.030])
def test_objects_spawned_inside_one_another_are_rejected(play, apart):
    _, verdict = play(with_scene(lambda scene: twins(scene, apart)), slots=2)
    assert "penetration" in verdict.reasons


def test_an_object_sunk_into_the_table_is_rejected(play):
    def sink(scene: TaskScene) -> TaskScene:
        slab = BoxPart(half_size=(0.05, 0.05, 0.03))
        cube = replace(scene.spec.objects[0], parts=(slab,), pose=(0.0, 0.2, 0.0, 1.0, 0.0, 0.0, 0.0))
        return replace(scene, spec=replace(scene.spec, objects=(cube,)))

    assert "penetration" in play(with_scene(sink))[1].reasons


def test_arms_that_press_on_each_other_are_rejected(play, session):
    """Both arms turn their hands into the middle; what they do there is seen by name."""

    def collide(plan: ExpertPlan) -> ExpertPlan:
        kinematics = PandaKinematics()
        start = session.world.arm_qpos()[:, :7].astype(np.float64)
        steps, action = 60, np.repeat(plan.action[:1], 90, axis=0)
        for arm in (0, 1):
            pose = kinematics.forward(start[arm])
            pose[0] += 0.30
            goal = kinematics.inverse(pose, start[arm])
            assert goal is not None
            along = np.minimum(np.arange(1, 91) / steps, 1.0)[:, None]
            action[:, UnifiedAction.joints(arm)] = start[arm] + along * (goal - start[arm])
        return replace(plan, action=action, segment_id=np.zeros(90, dtype=np.int16), disturbance=None)

    assert "arm_contact" in play(with_plan(collide))[1].reasons


@pytest.mark.parametrize(
    ("column", "value", "bad"),
    [(0, 3.5, True), (0, 0.5, False), (8, -6.0, True), (8, 2.0, False), (13 + 18, 6.0, True), (13 + 18, 2.0, False)],
)
def test_exploded_means_out_of_the_room_or_far_too_fast(column, value, bad):
    """Columns of one object's state and two arms': x, the speed along y, the first joint's speed."""
    state = np.zeros((5, 13 + 36), dtype=np.float32)
    assert not exploded(state)
    state[3, column] = value
    assert exploded(state) == bad


def test_a_scene_that_flies_apart_is_rejected_as_exploded(play, session):
    """Physics throws the cube away faster than anything in a room moves, while the expert is at work."""

    class Bursting(PickPlace):
        def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
            plan = super().plan(scene, world, kinematics)
            world.kick_object(0, np.array([7.0, 0.0, 7.0]))
            return plan

    assert "exploded" in play(Bursting())[1].reasons


class _Always(PickPlaceMonitor):
    def update(self, world: DualArmWorld) -> TaskStatus:
        return TaskStatus(success=True, progress=1.0)


class _Raises(PickPlaceMonitor):
    def update(self, world: DualArmWorld) -> TaskStatus:
        raise ArithmeticError("no predicate")


def test_success_does_not_count_while_anything_moves(play, session):
    """A judge that is always content does not end the episode before the objects are at rest."""

    class Content(PickPlace):
        def monitor(self, scene: TaskScene) -> PickPlaceMonitor:
            return _Always(scene)

    episode, verdict = play(Content())
    assert verdict.accepted
    speed = np.linalg.norm(episode.sim_state[:, 7:10], axis=1)
    assert speed.max() > 0.1
    assert speed[-10:].max() < 0.03
    session.world.place_object(0, np.array([0.0, 0.2, 0.3, 1, 0, 0, 0], dtype=np.float32))
    session.step(episode.action[-1])
    assert not session.status().success


class _Hostile(PickPlace):
    """A pick_place whose judge raises, or whose cube has no size, as the seed says."""

    def draw(self, draws: Draws) -> TaskScene:
        scene = super().draw(draws)
        if self.flat:
            replace(scene.spec.objects[0], parts=(BoxPart(half_size=(0.02, 0.02, 0.0)),))
        return scene

    def monitor(self, scene: TaskScene) -> PickPlaceMonitor:
        return _Raises(scene)

    flat = False


def test_after_a_raising_judge_and_a_flat_object_the_worker_goes_on(monkeypatch):
    """Neither gives an episode to the replay; the pool turns the error into `error_<type>` (tests/actors)."""
    taken: list[Episode] = []

    def append(episode: Episode) -> bool:
        taken.append(episode)
        return True

    worker = SimWorker(TaskSession(render=None), StateEncoder(), OPTIONS, append)
    hostile = _Hostile()
    with monkeypatch.context() as patch:
        patch.setattr("tasks.session.get_task", lambda name: hostile)
        with pytest.raises(ArithmeticError, match="no predicate"):
            worker.produce(RECIPE)
        hostile.flat = True
        with pytest.raises(ValueError, match="no size"):
            worker.produce(RECIPE)
    assert not taken
    assert registry.get_task("pick_place") is not hostile
    assert worker.produce(RECIPE).accepted
    assert [episode.recipe for episode in taken] == [RECIPE]
