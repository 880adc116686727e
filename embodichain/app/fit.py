"""Learning from an archive in one process, without Ray, simulator or MLflow: what `embodichain fit` does.

A fit writes `runs/<name>/{fit.yaml, config.yaml, episodes.json, losses.jsonl, checkpoints/, replay/, summary.json}`.
The last two checkpoints go with the store's counters and random state (`replay/step_N.npz`, without the arrays, which
the archive has), so a fit that was killed goes on from its last checkpoint, with a budget of steps bit for bit: one of
minutes lets the schedule follow the clock.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from embodichain.app.feed import Feed, next_batch
from embodichain.app.fit_folder import FitConfig, LossRow, chosen_episodes, make_folder, open_archive, read_losses
from embodichain.app.settings import ConfigError, device_for, full_keys, merged
from embodichain.app.texts import archive_text_encoder
from embodichain.archive import DamagedEntry, Location
from embodichain.contracts import Batch, Episode
from embodichain.replay import ShardStore
from embodichain.replay.heldout import heldout_batch
from embodichain.replay.snapshot import DamagedSnapshot, restore, save
from learner.batch import TensorBatch, prepare_batch
from learner.build import build_model
from learner.checkpoint import list_checkpoints, load_state, remove_checkpoint, save_checkpoint
from learner.config import DataSpec
from learner.heldout import HELDOUT_NOISE_SEED, first_and_last, heldout_error
from learner.train_step import TrainState

LOSS_STEPS = 10  # every so many steps the losses are written down
FEED_STATE = ("position", "damaged", "left_out")

OnStep = Callable[[int, dict[str, float], float], None]


def fit(
    config: FitConfig, *, on_step: OnStep | None = None, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Learn from `config.archive` until the budget is spent or the archive is used up: `embodichain fit --archive`.

    Needs no Ray, simulator or MLflow. Torch is left with `config.learner.threads` threads.

    Args:
        config: settings. The fit's folder is `<output>/<name>`, with a number added if that is taken.
        on_step: told of every step: its number, the losses (nan where one is not finite), `skipped` steps so far among
            them, and the share of the budget in [0, 1] that was spent before it.
        stop: asked before every step whether to end now; `resume` goes on from there.

    Returns:
        What `summary.json` says; the folder's `name` and whether it ended as `done` or `stopped`, its `status`, are in
        it. None where a number is not finite.

    Raises:
        ConfigError: a `ValueError`; settings, archive and machine do not go together. No folder is left.
        RuntimeError: episodes do not go together, at a step; the folder stays.
    """
    folder = make_folder(config)
    try:
        return resume(folder, on_step=on_step, stop=stop)
    except ConfigError:  # nothing has been learned yet
        shutil.rmtree(folder)
        raise


def resume(folder: Path, *, on_step: OnStep | None = None, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Go on with the fit of a folder from its last checkpoint, by its own settings: `embodichain fit --resume`.

    Args and returns are those of `fit`. Raises as `fit` does, and leaves the folder as it is; `RuntimeError` also
    where the last checkpoint's snapshot is damaged.
    """
    if not (folder / "fit.yaml").is_file():
        raise ConfigError(f"resume={folder}: no fit there; expected a folder with fit.yaml")
    config = merged(FitConfig, folder / "fit.yaml", [])
    try:
        learning = Fit(config, folder, on_step or (lambda *_: None), stop)
    except ValueError as error:
        raise ConfigError(full_keys(str(error))) from error
    try:
        status = learning.run()
    except ValueError as error:  # episodes that do not go together
        raise RuntimeError(str(error)) from error
    return learning.summary(status)


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A batch on the model's device, its pair uses, and how many of those are first ones."""

    tensors: TensorBatch
    uses: int
    fresh: int


class Fit:
    """One fit, new or resumed.

    Attributes:
        ahead: make the next batch while the model works on this one. Only on a GPU: on a CPU it would be a thread more
            than `learner.threads`.

    Args:
        config: settings.
        folder: its folder, as `make_folder` left it.
        report: told of every step: its number, the losses and the share of the budget that is spent.
        stop: asked before every step whether to end now.

    Raises:
        ValueError: the archive is gone, does not hold what it did, or does not go with the windows.
    """

    def __init__(
        self,
        config: FitConfig,
        folder: Path,
        report: OnStep,
        stop: Callable[[], bool],
    ) -> None:
        self.config, self.folder, self._report, self._stop = config, folder, report, stop
        # Before anything is computed: sums in another order are other numbers, those of text vectors, too.
        torch.set_num_threads(config.learner.threads)
        chosen = chosen_episodes(folder)
        self.feed = Feed(archive=open_archive(config.archive), order=chosen["learn"], heldout=chosen["heldout"])
        self._example = self._first_episode()
        try:
            self.text = archive_text_encoder(self.feed.archive)
            self.text.encode([self._example.instruction])  # what it needs is missing now or never
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.device = device_for(config.learner.gpu, "learner.gpu=true")
        self.ahead = self.device != "cpu"
        replay = replace(config.replay, shards=1, step_windows=config.learner.batch_windows)
        self.store = ShardStore(replay.share(config.window), config.window, seed=config.seed)
        self.counters: dict[str, float] = {"step": 0, "elapsed_s": 0.0, "uses": 0, "fresh": 0}
        self.heldout: list[dict[str, Any]] = []
        self.losses: list[LossRow] = []
        self._heldout_batch = self._cut_heldout()
        self.state = self._restore_or_create()

    @property
    def step(self) -> int:
        """Optimiser steps so far."""
        return int(self.counters["step"])

    def progress(self) -> float:
        """Share of the budget that is spent, in [0, 1]: of steps or of minutes, whichever is further."""
        settings = self.config.learner
        spent = self.step / settings.steps
        if settings.minutes is not None:
            spent = max(spent, self.counters["elapsed_s"] / (60 * settings.minutes))
        return min(1.0, spent)

    def run(self) -> str:
        """Learn until the budget is spent, the archive is used up, or `stop`; returns `done` or `stopped`."""
        if self.step == 0:
            self.publish()
        started, before = time.monotonic(), self.counters["elapsed_s"]
        last_save, status = started, "done"
        coming: Future[_Prepared | None] | None = None
        with ThreadPoolExecutor(1, "batches") as thread:
            while coming is not None or self.progress() < 1.0:
                if coming is None and self._stop():
                    status = "stopped"
                    break
                batch = self._next_batch() if coming is None else coming.result()
                if batch is None:
                    break
                save = self.config.learner.checkpoint_due(self.step + 1, time.monotonic() - last_save)
                # A checkpoint is of the store as it is after its last batch: none may be under way then, so that
                # `replay.prefetch`, which is always ahead, cannot do this.
                last = save or self._stop() or self.progress() >= 1.0 or self.step + 1 >= self.config.learner.steps
                coming = thread.submit(self._next_batch) if self.ahead and not last else None
                self._train(batch)
                self.counters["elapsed_s"] = before + time.monotonic() - started
                if save:
                    self.publish()
                    last_save = time.monotonic()
        self.publish()
        return status

    def publish(self) -> None:
        """Checkpoint: first the store's state, then the learner's, whose presence says that both are there."""
        if self.step in list_checkpoints(str(self.folder / "checkpoints")):
            return
        if self._heldout_batch is not None:
            text = self.text.encode(self._heldout_batch.instruction)
            batch = prepare_batch(self._heldout_batch, text).to(self.device)
            rng = torch.Generator(self.device).manual_seed(HELDOUT_NOISE_SEED)
            self.heldout.append({"step": self.step, **heldout_error(self.state.ema, batch, rng).record()})
        replay = self.folder / "replay"
        save(self.store, replay / f"step_{self.step}.npz", contents=False)
        extra = {
            "counters": self.counters,
            "feed": {key: getattr(self.feed, key) for key in FEED_STATE},
            "heldout": self.heldout,
        }
        save_checkpoint(self.folder / "checkpoints" / f"step_{self.step}", self.state, extra)
        # The one before stays too: should this one be damaged, the fit can go on from there.
        steps = list_checkpoints(str(self.folder / "checkpoints"))
        for step in steps[: -self.config.keep] if self.config.keep else []:
            if not self.config.learner.checkpoint_due(step, 0.0):
                remove_checkpoint(self.folder / "checkpoints" / f"step_{step}")
        wanted = [f"step_{step}.npz" for step in steps[-2:]]
        for old in replay.glob("step_*.npz"):
            if old.name not in wanted:
                old.unlink()

    def summary(self, status: str) -> dict[str, Any]:
        """What the fit did, as data; also written to `summary.json`."""
        stats, steps = self.store.stats(), max(1, self.step)
        content = {
            "name": self.folder.name,
            "status": status,
            "archive": str(self.feed.archive.root),
            "episodes": {"learned_from": self.feed.learned_from, "of": len(self.feed.order)},
            "damaged": self.feed.damaged,
            "learner_steps": self.step,
            "skipped": self.state.skipped,
            "learner_seconds": self.counters["elapsed_s"],
            "pair_uses": self.counters["uses"],
            "experience_throughput": self.counters["fresh"] / steps,
            "reuse": {
                "bound": self.config.replay.bound,
                "max": float(stats.reuse_max),
                "mean": stats.reuse_mean,
            },
            "loss": {"first": self.losses[0]["loss"], "last": self.losses[-1]["loss"]} if self.losses else {},
            "heldout_error": first_and_last(self.heldout),
        }
        Location.of(self.folder / "summary.json").write_bytes(json.dumps(content, indent=1).encode())
        return content

    def _next_batch(self) -> _Prepared | None:
        delivered = next_batch(self.store, self.feed, self.config.learner.batch_windows)
        if delivered is None:
            return None
        batch, fresh = delivered
        tensors = prepare_batch(batch, self.text.encode(batch.instruction)).to(self.device)
        return _Prepared(tensors=tensors, uses=batch.pair_uses, fresh=fresh)

    def _train(self, batch: _Prepared) -> None:
        progress = self.progress()
        values = self.state.step(batch.tensors, progress)
        self.counters["step"] += 1
        self.counters["uses"] += batch.uses
        self.counters["fresh"] += batch.fresh
        if self.step == 1 or self.step % LOSS_STEPS == 0:
            finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
            self.losses.append({"step": self.step, **finite})
            with (self.folder / "losses.jsonl").open("a") as file:
                file.write(json.dumps(self.losses[-1]) + "\n")
        self._report(self.step, values, progress)

    def _first_episode(self) -> Episode:
        for recipe_id in self.feed.order:
            try:
                return self.feed.read(recipe_id)
            except DamagedEntry:
                continue
        raise ConfigError(f"archive={self.config.archive}: every episode is damaged; see `embodichain archive verify`")

    def _cut_heldout(self) -> Batch | None:
        episodes = []
        for recipe_id in self.feed.heldout:
            try:
                episodes.append(self.feed.read(recipe_id))
            except DamagedEntry:
                continue
        return heldout_batch(episodes, self.config.window) if episodes else None

    def _restore_or_create(self) -> TrainState:
        window, example, settings = self.config.window, self._example, self.config.learner
        if example.tokens is None:
            raise ConfigError(f"archive={self.config.archive}: its episodes carry no tokens to learn from")
        data = DataSpec(
            tokens=example.tokens.shape[1],
            channels=example.tokens.shape[2],
            chunk=window.chunk,
            tau=window.tau,
            control=settings.control,
            text_dim=self.text.dim,
            encoder_id=example.encoder_id,
            text_encoder_id=self.text.id,
        )
        done = list_checkpoints(str(self.folder / "checkpoints"))
        if not done:
            self._keep_losses(0)
            network = settings.network.for_windows(window.seen)
            model = build_model(network, data, seed=self.config.seed).to(self.device)
            return TrainState(model, settings.train)
        state, info = load_state(self.folder / "checkpoints" / f"step_{done[-1]}", data=data, device=self.device)
        self.counters, self.heldout = info.extra["counters"], info.extra["heldout"]
        for key in FEED_STATE:
            setattr(self.feed, key, info.extra["feed"].get(key, 0))
        self._restore_store(done)
        self._keep_losses(done[-1])
        return state

    def _restore_store(self, done: list[int]) -> None:
        """Fill the store from the snapshot of the last checkpoint. Raises `RuntimeError`, saying what can be done."""
        before, last = (self.folder / "replay" / f"step_{step}.npz" for step in (done[0], *done)[-2:])
        try:
            if not last.exists():
                raise DamagedSnapshot(f"{last}: it is gone")
            restore(self.store, last, episode_of=self.feed.read)
        except DamagedSnapshot as error:
            if len(done) == 1:
                way = f"without checkpoints/{last.stem} the fit begins anew"
            elif before.exists():
                way = f"without checkpoints/{last.stem} the fit goes on from {before.stem}"
            else:
                way = "the fit cannot go on: begin a new one"
            raise RuntimeError(f"{error}; {way}") from error

    def _keep_losses(self, step: int) -> None:
        """Forget what was written down after the checkpoint, and a line that a crash has torn."""
        self.losses = [row for row in read_losses(self.folder) if row["step"] <= step]
        rows = "".join(json.dumps(row) + "\n" for row in self.losses)
        (self.folder / "losses.jsonl").write_text(rows)
