"""Scores checkpoints over a few evaluator processes: blocks of seeds out, table rows in.

Driven by `poll()` from one thread. A block whose evaluator dies or hangs goes to a new process; after
`MAX_ATTEMPTS` it is given up and its seeds are missing from n, which the result shows.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle

from embodichain.contracts import Recipe
from embodichain.evaluation.closed_loop import MOST_TRIED, TrialResult, eval_recipes
from embodichain.evaluation.evaluator import EvalReply, EvalRequest
from embodichain.evaluation.scores import TaskScore, score

BLOCK_SEEDS = 5
BLOCK_TIMEOUT_S = 240.0
MAX_ATTEMPTS = 3


@dataclass(kw_only=True)
class CheckpointResult:
    """Everything known about one checkpoint.

    Attributes:
        step: learner step.
        scores: one row per task.
        results: task -> trials in seed order (the same seeds for every checkpoint: paired).
        heldout: errors on the fixed set, empty until they arrive.
        domain: what the scores are of.
        given_up: task -> seeds of blocks that were given up, by the fault of the last attempt; they are in no score.
    """

    checkpoint: str
    step: int
    scores: list[TaskScore] = field(default_factory=list)
    results: dict[str, list[TrialResult]] = field(default_factory=dict)
    heldout: dict[str, float] = field(default_factory=dict)
    domain: str = ""
    given_up: dict[str, Counter[str]] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Block:
    request: EvalRequest
    task: str
    job: _Job
    attempts: int = 0


@dataclass(kw_only=True)
class _Job:
    """One checkpoint being scored on `seeds` seeds per task; `tried`: how many of each were queued so far."""

    result: CheckpointResult
    seeds: int
    open_blocks: int = 0
    tried: dict[str, int] = field(default_factory=dict)
    replies: dict[str, list[EvalReply]] = field(default_factory=dict)

    def left_out(self, task: str) -> int:
        """Seeds of those tried that the expert failed on."""
        return sum(not steps for reply in self.replies.get(task, []) for steps in reply.lengths.values())


@dataclass(kw_only=True)
class _Slot:
    actor: ActorHandle
    ready: ray.ObjectRef | None
    block: _Block | None = None
    ref: ray.ObjectRef | None = None
    reserved: ray.ObjectRef | None = None
    since: float = field(default_factory=time.monotonic)


class EvaluationPlanner:
    """Args are the run's: tasks, domain, evaluator factory.

    Args:
        start_evaluator: makes one `EvaluatorActor`.
        count: evaluator processes.
        tasks, domain, sim_hash: what is scored, unless `submit` names another domain.
        step_limit_ratio: see `run_trial`.
        lengths: seed -> expert steps per task (in another domain: per `task domain`); filled as blocks come back, saved
            with the run.
        seed_range: `eval`, or `tune` while settings are being chosen.
        block_timeout_s: a block, or a video, that takes longer counts as hung.

    Attributes:
        faults: evaluators that died, hung or did not start, and blocks given up.
    """

    def __init__(
        self,
        start_evaluator: Callable[[], ActorHandle],
        *,
        count: int,
        tasks: list[str],
        domain: str,
        sim_hash: str,
        step_limit_ratio: float,
        lengths: dict[str, dict[int, int]],
        seed_range: str = "eval",
        block_timeout_s: float = BLOCK_TIMEOUT_S,
    ) -> None:
        self._start_evaluator = start_evaluator
        self._tasks, self._domain, self._sim_hash = tasks, domain, sim_hash
        self._seed_range = seed_range
        self._step_limit_ratio, self._block_timeout_s = step_limit_ratio, block_timeout_s
        self.lengths = lengths
        self.faults: Counter[str] = Counter()
        self._queue: deque[_Block] = deque()
        self._slots = [self._new_slot() for _ in range(count)]

    @property
    def busy(self) -> bool:
        """Whether any block is queued or running."""
        return bool(self._queue) or any(slot.block for slot in self._slots)

    @property
    def blocks_left(self) -> int:
        """Blocks queued or running."""
        return len(self._queue) + sum(slot.block is not None for slot in self._slots)

    def submit(self, checkpoint: str, step: int, seeds: int, domain: str = "") -> None:
        """Queue a checkpoint; for every seed that the expert fails on, the next one is tried after these."""
        domain = domain or self._domain
        job = _Job(result=CheckpointResult(checkpoint=checkpoint, step=step, domain=domain), seeds=seeds)
        self._try(job, dict.fromkeys(self._tasks, seeds))

    def film(self, checkpoint: str, step: int, videos: dict[str, str], seeds: int, every: int) -> None:
        """Queue one video per task: the first `seeds` seeds that count, one after the other."""
        result = CheckpointResult(checkpoint=checkpoint, step=step, domain=self._domain)
        job = _Job(result=result, seeds=seeds)
        for task, path in videos.items():
            counted = [seed for seed, steps in sorted(self.lengths.get(task, {}).items()) if steps]
            indices = range(len(self.lengths.get(task, {})) or seeds)
            recipes = [r for r in self._recipes(task, indices, self._domain) if r.seed in counted]
            self._enqueue(job, task, tuple(recipes[:seeds]), checkpoint, film=path, every=every)

    def poll(self) -> list[CheckpointResult]:
        """Hand out blocks and collect replies; returns the checkpoints that are now complete."""
        finished = []
        for slot in self._slots:
            if slot.ready is not None and not self._started(slot):
                continue
            if slot.block is not None:
                job = self._collect(slot)
                if job is not None and job.open_blocks == 0 and not self._top_up(job):
                    finished.append(self._finish(job))
            if slot.reserved is not None and ray.wait([slot.reserved], timeout=0)[0]:
                slot.reserved = None
            if slot.block is None and slot.ready is None and slot.reserved is None and self._queue:
                block = self._queue.popleft()
                block.attempts += 1
                slot.block, slot.since = block, time.monotonic()
                slot.ref = slot.actor.evaluate.remote(self._with_lengths(block))
        return finished

    def actors(self) -> list[ActorHandle]:
        """The present evaluator processes."""
        return [slot.actor for slot in self._slots]

    def reserve(self, actor: ActorHandle, work: ray.ObjectRef) -> None:
        """This evaluator is doing something else: it gets no block, whose time would run, before that is over."""
        for slot in self._slots:
            if slot.actor == actor:
                slot.reserved = work

    def lost(self, actor: ActorHandle) -> None:
        """Somebody found this evaluator dead: it is replaced, unless it has a block, whose loss is seen anyway."""
        for slot in self._slots:
            if slot.actor == actor and slot.block is None and slot.ready is None:
                self._replace(slot, "evaluator_died")

    def stop(self) -> None:
        """Kill every evaluator; queued work is dropped."""
        self._queue.clear()
        for slot in self._slots:
            ray.kill(slot.actor, no_restart=True)
        self._slots = []

    def _try(self, job: _Job, upto: dict[str, int]) -> None:
        """Queue the seeds of each task up to a number, the tasks in turn."""
        starts = [
            (start, task) for task, end in upto.items() for start in range(job.tried.get(task, 0), end, BLOCK_SEEDS)
        ]
        for start, task in sorted(starts, key=lambda block: block[0]):
            indices = range(start, min(start + BLOCK_SEEDS, upto[task]))
            recipes = self._recipes(task, indices, job.result.domain)
            self._enqueue(job, task, tuple(recipes), job.result.checkpoint)
        job.tried |= upto

    def _top_up(self, job: _Job) -> bool:
        """Queue as many more seeds as the expert failed on; whether there are any. What was given up stays missing."""
        wanted = {task: min(job.seeds + job.left_out(task), MOST_TRIED * job.seeds) for task in job.tried}
        more = {task: upto for task, upto in wanted.items() if upto > job.tried[task]}
        self._try(job, more)
        return bool(more)

    def _recipes(self, task: str, indices: range, domain: str) -> list[Recipe]:
        return eval_recipes(task, domain, indices, self._sim_hash, self._seed_range)

    def _lengths_key(self, block: _Block) -> str:
        domain = block.job.result.domain
        return block.task if domain == self._domain else f"{block.task} {domain}"

    def _enqueue(
        self, job: _Job, task: str, recipes: tuple, checkpoint: str, film: str | None = None, every: int = 3
    ) -> None:
        request = EvalRequest(
            checkpoint=checkpoint,
            recipes=recipes,
            known_lengths={},
            step_limit_ratio=self._step_limit_ratio,
            film=film,
            film_every=every,
        )
        job.open_blocks += 1
        self._queue.append(_Block(request=request, task=task, job=job))

    def _with_lengths(self, block: _Block) -> EvalRequest:
        known = self.lengths.get(self._lengths_key(block), {})
        seeds = {recipe.seed for recipe in block.request.recipes}
        fields = {**block.request.__dict__, "known_lengths": {s: n for s, n in known.items() if s in seeds}}
        return EvalRequest(**fields)

    def _new_slot(self) -> _Slot:
        actor = self._start_evaluator()
        return _Slot(actor=actor, ready=actor.ready.remote())

    def _replace(self, slot: _Slot, fault: str) -> None:
        self.faults[fault] += 1
        ray.kill(slot.actor, no_restart=True)
        fresh = self._new_slot()
        slot.actor, slot.ready, slot.since = fresh.actor, fresh.ready, fresh.since
        slot.block = slot.ref = slot.reserved = None

    def _started(self, slot: _Slot) -> bool:
        assert slot.ready is not None
        done, _ = ray.wait([slot.ready], timeout=0)
        if not done:
            return False
        try:
            ray.get(slot.ready)
        except ray.exceptions.RayError as error:
            if self.faults["evaluator_start"] >= MAX_ATTEMPTS:
                raise RuntimeError(f"evaluators keep failing to start; the last: {error}") from error
            self._replace(slot, "evaluator_start")
            return False
        slot.ready = None
        return True

    def _collect(self, slot: _Slot) -> _Job | None:
        """The job of a block that has just ended, or None."""
        block = slot.block
        assert block is not None
        assert slot.ref is not None
        done, _ = ray.wait([slot.ref], timeout=0)
        if not done:
            if time.monotonic() - slot.since > self._block_timeout_s:
                self._replace(slot, "evaluator_hung")
                return self._retry(block, "evaluator_hung")
            return None
        try:
            reply: EvalReply = ray.get(slot.ref)
        except ray.exceptions.RayTaskError as error:
            # a bug or a bad checkpoint: the same error would come back for ever
            raise RuntimeError(f"scoring {block.request.checkpoint}: {error.cause}") from error
        except ray.exceptions.RayError:
            self._replace(slot, "evaluator_died")
            return self._retry(block, "evaluator_died")
        slot.block, slot.ref = None, None
        self.lengths.setdefault(self._lengths_key(block), {}).update(reply.lengths)
        block.job.open_blocks -= 1
        block.job.replies.setdefault(block.task, []).append(reply)
        return block.job

    def _retry(self, block: _Block, fault: str) -> _Job | None:
        if block.attempts < MAX_ATTEMPTS:
            self._queue.appendleft(block)
            return None
        self.faults["evaluation_block_given_up"] += 1
        block.job.result.given_up.setdefault(block.task, Counter())[fault] += len(block.request.recipes)
        block.job.open_blocks -= 1
        return block.job

    def _finish(self, job: _Job) -> CheckpointResult:
        for task in self._tasks:
            trials = sorted((t for reply in job.replies.get(task, []) for t in reply.results), key=lambda t: t.seed)
            if trials:
                left_out, step = job.left_out(task), job.result.step
                job.result.results[task] = trials
                job.result.scores.append(score(task, job.result.domain, trials, left_out, step))
        return job.result
