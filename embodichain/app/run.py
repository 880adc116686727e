"""The main job: generate, stream, learn, evaluate, log, in one driver loop.

    actors ──episodes──► shards ──windows──► learner ──checkpoint──► evaluators ──► MLflow, report

The driver moves no arrays: it hands recipes to the pool, checkpoints to the evaluators, and numbers to
the logger. Nothing in its loop waits long for anything, so that Ctrl-C is heard at once.
"""

from __future__ import annotations

import signal
import time
from dataclasses import asdict
from functools import partial

import ray

from embodichain.actors.flight import start_recorder
from embodichain.actors.pool import ActorPool
from embodichain.actors.quarantine import Quarantine
from embodichain.app.archiving import RunArchive, open_stream
from embodichain.app.board import start_board
from embodichain.app.components import make_encoder, start_encoders, start_evaluator, start_sim_actor
from embodichain.app.config import RunConfig
from embodichain.app.config_checks import check_components
from embodichain.app.folder import RunFolder, RunState
from embodichain.app.heldout import HeldoutTracker, step_of
from embodichain.app.learn import LearnerJob, LearnerThread
from embodichain.app.progress import Progress
from embodichain.app.shards import ShardWatch
from embodichain.app.summary import build_summary
from embodichain.archive import Location
from embodichain.contracts import Recipe
from embodichain.evaluation.planner import CheckpointResult, EvaluationPlanner
from embodichain.replay.routing import route
from embodichain.replay.shard import start_shards
from learner.checkpoint import list_checkpoints, read_info

TELEMETRY_SECONDS = 2.0
STATE_SECONDS = 5.0
USED_UP_SECONDS = 10.0
SETTLE_SECONDS = 15.0  # longer than the learner takes to end after its last checkpoint


class Run:
    """One start of one run (a resumed run is started again).

    Args:
        config, folder, state: what to do, where, and how far it got.
        progress: shows and logs what happens.
        render: whether a renderer is there; without, no videos are made.
        sim_hash: stamped on every recipe.
    """

    def __init__(
        self, config: RunConfig, folder: RunFolder, state: RunState, progress: Progress, *, render: bool, sim_hash: str
    ) -> None:
        self.config, self.folder, self.state, self.progress = config, folder, state, progress
        self.render, self.sim_hash = render, sim_hash
        self.stop_requested = False
        self._waits_since = time.monotonic()
        self._interrupts = 0
        self._resumed_s = state.elapsed_s
        self._started = time.monotonic()
        self._last_state = self._last_telemetry = 0.0
        self._complete = [False] * config.replay.shards  # by shard, in static mode
        self.archive = RunArchive(config, state, progress.note)
        self._appeared: dict[str, float] = {}
        measured = {int(error["step"]) for error in state.heldout}
        scored = {str(entry["checkpoint"]) for entry in state.evaluations}
        self._seen_checkpoints = {path for path in scored if step_of(path) in measured}

    def execute(self) -> str:
        """Run to the end of the budget, or until interrupted; returns the final status.

        Raises:
            RuntimeError: a part failed for good (simulators cannot start, the learner gave up).
        """
        previous = signal.signal(signal.SIGINT, self._on_interrupt)
        self.state.starts += 1
        self.state.status = "running"
        self.state.nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        self.folder.write_state(self.state)
        try:
            self._start_parts()
            self._learn()
            self._drain()
            if not self.stop_requested:
                self._final_evaluation()
            self.state.status = "stopped" if self.stop_requested else "done"
        except BaseException:
            self.state.status = "failed"
            raise
        finally:
            signal.signal(signal.SIGINT, previous)
            self.archive.finish()
            self._save_state()
            self._write_summary()
        return self.state.status

    @property
    def elapsed_s(self) -> float:
        """Wall time of the run, over all its starts."""
        return self._resumed_s + time.monotonic() - self._started

    def _on_interrupt(self, *_: object) -> None:
        """First Ctrl-C drains; a second one gives up at once."""
        self._interrupts += 1
        self.stop_requested = True
        if self._interrupts > 1:
            raise KeyboardInterrupt

    def _start_parts(self) -> None:
        config = self.config
        self.progress.phase("starting")
        encoder = make_encoder(config)
        check_components(config.learner.network, encoder.channels)
        self.shards = start_shards(
            config.sharded_replay,
            config.window,
            directory=self.folder.ledgers,
            seed=config.seed,
            num_cpus=0.0,
            archive=self.archive.open(),
            labels=config.placement.shard_labels(),
        )
        ray.get([shard.ping.remote() for shard in self.shards])
        self.watch = ShardWatch(self.shards, self.state.counts, self.progress.note)
        self._restore_shards()
        self.board = start_board()
        self.learner = LearnerThread(
            LearnerJob(
                config=config,
                folder=self.folder.path,
                shards=self.shards,
                board=self.board,
                tokens=encoder.max_tokens,
                channels=encoder.channels,
                encoder_id=encoder.id,
            )
        )
        self.recipes = open_stream(config, self.sim_hash, self.state.recipes_drawn)
        recorder = start_recorder()
        self.pool = ActorPool(
            config.actors,
            partial(start_sim_actor, config, self.shards, recorder, start_encoders(config)),
            self._next_recipe,
            lambda: not self.progress.replay_full,
            recorder,
            Quarantine(self.folder.quarantine, self.progress.note),
            self.state.counts,
        )
        self.planner = EvaluationPlanner(
            partial(start_evaluator, config, self.render and config.evaluation.videos > 0),
            count=config.evaluation.evaluators,
            tasks=sorted(config.active_tasks),
            domain=config.scored_domains[0],
            sim_hash=self.sim_hash,
            step_limit_ratio=config.evaluation.step_limit_ratio,
            lengths=self.state.lengths,
            seed_range=config.evaluation.seed_range,
        )
        self._heldout = HeldoutTracker(config, self.planner, self.sim_hash, self.state.heldout)

    def _learn(self) -> None:
        """Until the learner is done, or a stop was asked for."""
        static = self.config.replay.mode == "static"
        if static and not self._generate_set():
            return
        self.progress.phase("learning")
        self.learner.start()
        while self.learner.is_alive():
            if static:
                time.sleep(0.2)  # nobody produces any more
            else:
                self.pool.poll(timeout_s=0.2)
            self._tick()
            if self.stop_requested:
                self.progress.phase("stopping: the learner checkpoints")
            elif ended := self._ended():
                self.progress.note(ended)
            else:
                continue
            self.board.request_stop.remote()
            self.learner.join(timeout=180)
            break
        if self.learner.error is not None:
            raise RuntimeError(f"the learner gave up: {str(self.learner.error).strip().splitlines()[-1]}")

    def _generate_set(self) -> bool:
        """Static mode: until every shard's part of the set is complete, or its archive at the end; False if stopped."""
        self.progress.phase("generating the fixed set")
        while not self.stop_requested:
            self._complete = [bool(part.complete_sets) for part in self.watch.stats()]
            if all(self._complete) or self.pool.exhausted:
                self.pool.stop()
                self.watch.fix(self._snapshots())
                return True
            self.pool.poll(timeout_s=0.2)
            self._tick()
        return False

    def _next_recipe(self) -> Recipe | None:
        """The stream's next recipe, if it has one; in static mode one whose shard still takes episodes, if any does."""
        while True:
            recipe = self.recipes.next()
            if recipe is None:
                return None
            if not self._complete[route(recipe.id, len(self._complete))] or all(self._complete):
                return recipe

    def _ended(self) -> str:
        """Why the learner need not reach the end of its budget; empty if it has to."""
        if self.archive.complete:
            return "the archive holds as many pairs as were wanted"
        return "every episode of the archive is used up" if self._used_up() else ""

    def _used_up(self) -> bool:
        """Whether nothing can come any more, and the learner has waited in vain for a while. A static set never is."""
        if self.config.replay.mode == "static":
            return False
        learner = (self.progress.last or {}).get("learner", {})
        if not self.pool.exhausted or learner.get("phase") != "waiting for data":
            self._waits_since = time.monotonic()
        return time.monotonic() - self._waits_since > USED_UP_SECONDS

    def _tick(self) -> None:
        """What happens every turn of the loop: evaluate new checkpoints, log, save the small state."""
        self._submit_new_checkpoints()
        self._poll_evaluators()
        self._save_now_and_then()
        if self._telemetry_is_due():
            self.archive.poll(self.shards)
            if self.config.source_archive:  # recipes for simulators never end
                self.watch.expect(not self.pool.exhausted)
            self.progress.update(self.snapshot())

    def _poll_evaluators(self, *, record: bool = True) -> None:
        for result in self.planner.poll():
            if record:
                self._record(result)
        for errors in self._heldout.poll():
            self.progress.heldout(errors)

    def _save_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._last_state > STATE_SECONDS:
            self._last_state = now
            self._save_state()

    def _telemetry_is_due(self) -> bool:
        """Whether to look at everything and log it."""
        now = time.monotonic()
        if now - self._last_telemetry <= TELEMETRY_SECONDS:
            return False
        self._last_telemetry = now
        return True

    def _submit_new_checkpoints(self, *, last: str | None = None) -> None:
        """Held-out error for every new checkpoint; closed-loop scores for all but `last`, which is scored in full.

        While the learner lives a checkpoint waits `SETTLE_SECONDS`, since it may turn out to be the last one.
        """
        for step in list_checkpoints(str(self.folder.checkpoints)):
            path = self.folder.checkpoint(step)
            if path in self._seen_checkpoints:
                continue
            since = self._appeared.setdefault(path, time.monotonic())
            if str(step) not in self.state.checkpoints:
                counts = self.state.counts
                made = {"simulators_core_s": counts.cpu_s, "accepted_pairs": counts.accepted_pairs}
                made |= {"episodes": counts.generated, "at_s": self.elapsed_s}
                self.state.checkpoints[str(step)] = {**read_info(path).extra, **made}
            if last is None and time.monotonic() - since < SETTLE_SECONDS:
                continue
            self._seen_checkpoints.add(path)
            self._heldout.submit(path)
            # Those at steps that were asked for are read-offs; of the others the evaluators may miss some.
            asked_for = self.config.learner.checkpoint_steps is not None
            busy_behind = not asked_for and self.planner.blocks_left > 2 * len(self.config.active_tasks)
            if path != last and self.config.evaluation.seeds_between and not busy_behind:
                self.planner.submit(path, step, self.config.evaluation.seeds_between)

    def _drain(self) -> None:
        """The learner is done: take its last word, stop generation, keep what the shards hold."""
        self.progress.update(self.snapshot())
        self.pool.stop()
        if self.stop_requested:
            self.progress.phase("stopping: the shards save")
        self.watch.save(self._snapshots())

    def _snapshots(self) -> list[Location]:
        return [self.folder.snapshots / f"shard-{index}.npz" for index in range(self.config.replay.shards)]

    def _restore_shards(self) -> None:
        """Give the shards back what they held at the last clean stop; without, their ledgers still bind them."""
        self.watch.restore(self._snapshots())
        if self.state.starts > 1:
            held = sum(stats.episodes_held for stats in self.watch.stats())
            self.progress.note(f"resumed: {held} episodes restored to {len(self.shards)} shards")

    def _final_evaluation(self) -> None:
        """Score the last checkpoint on all seeds, then film it."""
        latest = self.folder.latest_checkpoint()
        if latest is None:
            return
        self.progress.phase("evaluating the last checkpoint")
        self._submit_new_checkpoints(last=latest)
        evaluation = self.config.evaluation
        for domain in self.config.scored_domains:
            self.planner.submit(latest, step_of(latest), evaluation.seeds, domain)
        total = self.planner.blocks_left
        self._until_evaluated(total)
        if self.render and evaluation.videos and not self.stop_requested:
            self.progress.phase("filming")
            videos = {task: str(self.folder.videos / f"{task}.mp4") for task in sorted(self.config.active_tasks)}
            self.planner.film(latest, step_of(latest), videos, evaluation.videos, evaluation.video_every)
            self._until_evaluated(self.planner.blocks_left, record=False)

    def _until_evaluated(self, total: int, *, record: bool = True) -> None:
        while (self.planner.busy or self._heldout.busy) and not self.stop_requested:
            self._poll_evaluators(record=record)
            self._save_now_and_then()
            if self._telemetry_is_due():
                self.progress.update(self.snapshot(evaluation_left=(self.planner.blocks_left, total)))
            time.sleep(0.1)
        self.progress.update(self.snapshot())

    def _record(self, result: CheckpointResult) -> None:
        entry = {
            "checkpoint": result.checkpoint,
            "step": result.step,
            "domain": result.domain,
            "scores": [score.to_dict() for score in result.scores],
            "results": {task: [asdict(trial) for trial in trials] for task, trials in result.results.items()},
        }
        self.state.evaluations.append(entry)
        self.progress.scored(entry)

    def snapshot(self, evaluation_left: tuple[int, int] = (0, 0)) -> dict[str, object]:
        """Plain data about the whole run, for the screen, MLflow and the summary."""
        status, metrics = ray.get(self.board.read.remote())
        return self.progress.snapshot(
            state=self.state,
            elapsed_s=self.elapsed_s,
            learner=status,
            learner_metrics=metrics,
            shards=self.watch.stats(),
            evaluator_faults=self.planner.faults,
            evaluation_left=evaluation_left,
        )

    def _save_state(self) -> None:
        self.state.elapsed_s = self.elapsed_s
        self.state.recipes_drawn = self.recipes.drawn if hasattr(self, "recipes") else self.state.recipes_drawn
        self.folder.write_state(self.state)

    def _write_summary(self) -> None:
        if self.progress.last is not None:
            build_summary(self.config, self.folder, self.state, self.progress.last)
