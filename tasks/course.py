"""What an expert does through a whole episode, one control step at a time.

A plan is followed, under the domain's execution noise. With the stage `recovery` it is followed in a closed loop: a
`Mishap` may befall it, a `Watch` sees errors, whatever their cause, and then the arms set down what they hold, rise,
go home, and the task's own expert plans again from the world as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embodichain.contracts import ARMS, Recipe, UnifiedAction
from tasks.base import ExpertPlan, PlanFailure
from tasks.disturbance import execution_noise
from tasks.domain import parse_domain
from tasks.judge import at_rest, holding
from tasks.mishaps import Mishap, draw_mishap
from tasks.sampling import stream
from tasks.session import TaskSession
from tasks.skills import OPEN, RELEASE_STEPS, Pen
from tasks.watch import Alarm, Watch

MAX_REPLANS = 3
MAX_REST_STEPS = 30  # how long the arms wait for what they dropped to come to rest
RISE, SAFE_HEIGHT = 0.10, 0.16  # m: how far a hand rises, and from where on it need not
AWAY = 0.15  # rad: an arm nearer to home than that stays there


class Course:
    """The actions of one episode, from a freshly reset session.

    Attributes:
        target: what was to be done at each step so far, f32[30] each.
        segment: index of each step's segment in the task's `TaskInfo.segments`; one past them: a recovery.
        label_valid: whether a step's target is what should have been done. Where it is not, `target` holds what the
            arms were told instead.
        stuck: an error was seen, and no plan was found to get out of it.
    """

    def __init__(self, recipe: Recipe, session: TaskSession, plan: ExpertPlan) -> None:
        self._recipe, self._session = recipe, session
        self._names = (*session.info.segments, "recover")
        self._recovers = recipe.source == "recovery" or "recovery" in parse_domain(recipe.domain)
        self._mishap: Mishap | None = None
        if self._recovers:
            rng = stream(recipe.task, recipe.seed, "recovery")
            self._mishap = draw_mishap(plan, session.world, session.kinematics, rng)
        self._drawn, self._alarms, self._replans = self._mishap, list[Alarm](), 0
        self.stuck = False
        self._noise = execution_noise(recipe, len(plan.action))
        self.target, self.segment, self.label_valid = list[np.ndarray](), list[int](), list[bool]()
        self._told: list[np.ndarray] = []
        self._begin(plan)

    def _begin(self, plan: ExpertPlan, watched: bool = True) -> None:
        self._plan, self._start = plan, len(self.target)
        self._watch = Watch(self._session, self._start) if self._recovers and watched else None
        self._rested = 0

    @property
    def over(self) -> int:
        """Control steps since the last one of the plan; 0 or less while it goes on."""
        return len(self.target) - self._start - len(self._plan.action)

    def next(self) -> np.ndarray:
        """The action f32[30] to execute now: the plan's, or its last one again, with noise and mishap upon it."""
        step = len(self.target)
        inside = step - self._start < len(self._plan.action)
        at = min(step - self._start, len(self._plan.action) - 1)
        target = told = self._plan.action[at]
        mishap = self._mishap
        if mishap is not None and mishap.start <= step < mishap.stop:
            told = target + mishap.deviation[step - mishap.start]
        if mishap is not None and step == mishap.start and mishap.item is not None and mishap.velocity is not None:
            self._session.world.kick_object(mishap.item, mishap.velocity)
        self.target.append(target)
        self.segment.append(self._names.index(self._plan.segment_names[self._plan.segment_id[at]]))
        self.label_valid.append(mishap is None or mishap.kind != "slip" or not mishap.start <= step < mishap.stop)
        self._told.append(told)
        return told + self._bear(step, at) if inside else told

    def _bear(self, step: int, at: int) -> np.ndarray:
        """Execution noise f32[30] of a step of the episode that is step `at` of the plan."""
        if step >= len(self._noise):
            self._noise = execution_noise(self._recipe, 2 * step)
        share = self._plan.disturbance
        return self._noise[step] if share is None else self._noise[step] * share[at]

    def look(self) -> None:
        """After the step was executed: is all well? If not, the plan changes."""
        if self._watch is not None:
            alarm = self._watch.update(len(self.target) - 1, self._plan.action[self._at()])
            if alarm is not None:
                self._recover(alarm)
        elif self._recovering() and self.over >= 0:
            world = self._session.world
            self._rested += 1
            resting = all(at_rest(world, i) for i in range(len(world.spec_scene.objects)))
            if resting or self._rested > MAX_REST_STEPS:
                self._replan()

    def not_done(self) -> bool:
        """Told that the plan came to its end without success: whether there will be another one."""
        if self._watch is None or self._replans >= MAX_REPLANS:
            return False
        self._recover(self._watch.over(len(self.target) - 1))
        return not self.stuck

    @property
    def gave_up(self) -> bool:
        """Whether an error was seen that nothing more is, or was, tried against."""
        return self.stuck or self._replans >= MAX_REPLANS

    def stored(self) -> np.ndarray:
        """f32[T, 30]: targets, and where those are no labels, what the arms were told."""
        valid = np.asarray(self.label_valid)[:, None]
        return np.where(valid, np.stack(self.target), np.stack(self._told)).astype(np.float32)

    def draws(self) -> dict[str, object]:
        """What befell the episode, JSON-able; nothing without the stage `recovery`."""
        if not self._recovers:
            return {}
        drawn = self._drawn
        injected = None if drawn is None else {"kind": drawn.kind, "step": drawn.start, **drawn.detail}
        seen = [{"kind": a.kind, "step": a.step, "since": a.since} for a in self._alarms]
        return {"recovery": {"injected": injected, "detected": seen, "replans": self._replans}}

    def _at(self) -> int:
        return min(len(self.target) - 1 - self._start, len(self._plan.action) - 1)

    def _recovering(self) -> bool:
        return self._plan.segment_names == ("recover",)

    def _recover(self, alarm: Alarm) -> None:
        """Unlabel what was done in error, and get the arms out of it."""
        self._alarms.append(alarm)
        self.label_valid[alarm.since :] = [False] * (len(self.label_valid) - alarm.since)
        self._mishap = None
        if self._replans >= MAX_REPLANS:
            self._watch = None
            return
        command = self._plan.action[self._at()]
        try:
            self._begin(retreat(self._session, command, home=alarm.kind != "object_moved"), watched=False)
        except PlanFailure:
            self.stuck = True

    def _replan(self) -> None:
        self._replans += 1
        try:
            self._begin(self._session.expert())
        except PlanFailure:
            self.stuck = True


def retreat(session: TaskSession, command: np.ndarray, *, home: bool) -> ExpertPlan:
    """Set down what is held, let go, rise, and, if `home`, go there. Raises `PlanFailure`.

    `command` f32[30] is what the arms were told last.
    """
    world, script = session.world, session.script()
    touch = [world.finger_contacts(i) for i in range(len(world.spec_scene.objects))]
    held = [next((i for i, t in enumerate(touch) if holding(t)[arm]), None) for arm in range(len(ARMS))]
    drops = []
    for pen, item in zip(script.arms, held, strict=True):
        pen.command = float(command[UnifiedAction.gripper(pen.arm)][0])
        lift = 0.0 if item is None else float(world.object_pose()[item, 2] - world.spec_scene.objects[item].pose[2])
        drops.append(-max(lift, 0.0))
    if min(drops) < -0.005:
        script.in_step([_straight(pen, drop) for pen, drop in zip(script.arms, drops, strict=True)], 1.0)
        script.wait(2)
    for pen in script.arms:
        away = float(np.abs(pen.q - pen.home).max()) > AWAY
        if pen.command != OPEN:
            pen.grip(OPEN, RELEASE_STEPS)
        height = float(script.planner.tool_now(pen.q)[2])
        if away and height < SAFE_HEIGHT:
            pen.follow(script.planner.retime(_straight(pen, RISE)))
        if away and home:
            pen.leave()
    script.wait(2)
    script.end("recover")
    return script.plan()


def _straight(pen: Pen, rise: float) -> np.ndarray:
    """Joint knots f64[N, 7] straight up by `rise` m (down if negative). Raises `PlanFailure`."""
    start = pen.planner.tool_now(pen.q)
    poses: Sequence[np.ndarray] = [start + np.array([0, 0, s, 0, 0, 0, 0]) for s in np.linspace(0.0, rise, 10)]
    return pen.planner.follow(pen.q, np.stack(poses))
