"""Learning from an archive in one process, without Ray, simulator or MLflow: what `embodichain fit` does.

A fit writes `runs/<name>/{fit.yaml, config.yaml, episodes.json, losses.jsonl, checkpoints/, replay/, summary.json}`.
The last two checkpoints go with the store's counters and random state (`replay/step_N.npz`, without the arrays, which
the archive has), so a fit that was killed goes on from its last checkpoint, with a budget of steps bit for bit: one of
minutes lets the schedule follow the clock.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from embodichain.actors.training import check_all_training
from embodichain.app.config import LearnerConfig
from embodichain.app.feed import Feed, next_batch, split
from embodichain.app.settings import ConfigError, device_for
from embodichain.app.texts import archive_text_encoder
from embodichain.archive import Archive, DamagedEntry, Location
from embodichain.contracts import Batch, Episode, WindowSpec
from embodichain.replay import ReplayConfig, ShardStore
from embodichain.replay.heldout import heldout_batch
from embodichain.replay.snapshot import DamagedSnapshot, restore, save
from learner.batch import TensorBatch, prepare_batch
from learner.build import build_model
from learner.checkpoint import list_checkpoints, load_state, remove_checkpoint, save_checkpoint
from learner.config import DataSpec
from learner.heldout import heldout_error
from learner.train_step import TrainState

LOSS_STEPS = 10  # every so many steps the losses are written down
HELDOUT_NOISE_SEED = 20_000
FEED_STATE = ("position", "damaged", "left_out")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Settings of one fit; `window`, `replay` and `learner` mean what they mean in a run.

    Attributes:
        name: folder under `output`; a number is added if it is taken.
        output: where runs are written.
        archive: what to learn from.
        seed: of the model and of all choices.
        heldout: share of the archive's episodes that is not learned from but measured on.
        keep: checkpoints that stay on disk, beside those of `learner.checkpoint_steps`; None: all.
    """

    name: str = "fit"
    output: str = "runs"
    archive: str = ""
    seed: int = 0
    heldout: float = 0.05
    keep: int | None = None
    window: WindowSpec = field(default_factory=WindowSpec)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.heldout < 1:
            raise ConfigError(f"heldout={self.heldout}: expected at least 0 and less than 1")
        if self.keep is not None and self.keep < 2:  # one may be damaged
            raise ConfigError(f"keep={self.keep}: expected at least 2, or null")
        if self.replay.episodes_per_second is not None:
            rate = self.replay.episodes_per_second
            raise ConfigError(f"replay.episodes_per_second={rate}: expected none; an archive needs no clock")
        if self.learner.workers != 1:
            raise ConfigError(f"learner.workers={self.learner.workers}: fit is one process; expected 1")


def open_archive(place: str) -> Archive:
    """An archive that can be learned from. Raises `ConfigError`."""
    try:
        archive = Archive.open(place)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if archive.kind != "arrays":
        raise ConfigError(
            f"archive={place}: only recipes are kept there; `embodichain archive materialise` makes their episodes"
        )
    try:
        check_all_training(entry.recipe for entry in archive.entries())
    except ValueError as error:
        raise ConfigError(f"archive={place}: {error}") from error
    return archive


def begin(config: FitConfig, archive: Archive, folder: Path) -> None:
    """Write down what a new fit is about. Raises `ConfigError` if there is nothing to learn from."""
    learn, away = split(archive.entries(), config.heldout, config.seed)
    if not learn:
        raise ConfigError(f"archive={config.archive}: no episodes to learn from")
    (folder / "episodes.json").write_text(json.dumps({"learn": learn, "heldout": away}))
    made: dict[str, Any] = {
        key: archive.made_with[key] for key in ("tasks", "domain", "encoder") if key in archive.made_with
    }
    made["tasks"] = {task: 1.0 for task in made.get("tasks", [])}
    same = {key: asdict(getattr(config, key)) for key in ("window", "learner")}
    # Memories are to be shown frames as far apart as in training, and a chunk cannot be played for longer than it is.
    same["evaluation"] = {"replan": min(config.window.tau, config.window.chunk)}
    # What `embodichain evaluate` reads: the run that this fit would have been.
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create({**made, **same, "seed": config.seed})))


def _chosen(folder: Path) -> dict[str, list[str]]:
    """The episodes to learn from and those held back, as `begin` wrote them down."""
    path = folder / "episodes.json"
    try:
        chosen = json.loads(path.read_text())
        return {key: list(chosen[key]) for key in ("learn", "heldout")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read, and nothing else knows what this fit learns from") from error


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
        folder: its folder, as `begin` left it.
        report: told of every step: its number, the losses and the share of the budget that is spent.
        stop: asked before every step whether to end now.

    Raises:
        ValueError: the archive is gone, does not hold what it did, or does not go with the windows.
    """

    def __init__(
        self,
        config: FitConfig,
        folder: Path,
        report: Callable[[int, dict[str, float], float], None],
        stop: Callable[[], bool],
    ) -> None:
        self.config, self.folder, self._report, self._stop = config, folder, report, stop
        # Before anything is computed: sums in another order are other numbers, those of text vectors, too.
        torch.set_num_threads(config.learner.threads)
        chosen = _chosen(folder)
        self.feed = Feed(archive=open_archive(config.archive), order=chosen["learn"])
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
        self.losses: list[dict[str, float]] = []
        self._heldout_batch = self._cut_heldout(chosen["heldout"])
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
            error = asdict(heldout_error(self.state.ema, batch, rng))
            kept = {name: v for name, v in error.items() if isinstance(v, str) or math.isfinite(v)}
            self.heldout.append({"step": self.step, **kept})
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
        stats, entries = self.store.stats(), self.heldout
        steps = max(1, self.step)
        content = {
            "name": self.folder.name,
            "status": status,
            "archive": str(self.feed.archive.root),
            "episodes": {"learned_from": self.feed.learned_from, "of": len(self.feed.order)},
            "damaged": self.feed.damaged,
            "learner_steps": self.step,
            "learner_seconds": self.counters["elapsed_s"],
            "pair_uses": self.counters["uses"],
            "experience_throughput": self.counters["fresh"] / steps,
            "reuse": {
                "bound": self.config.replay.bound,
                "max": float(stats.reuse_max),
                "mean": stats.reuse_mean,
            },
            "loss": {"first": self.losses[0]["loss"], "last": self.losses[-1]["loss"]} if self.losses else {},
            "heldout_error": {
                "first": entries[0]["action"],
                "last": entries[-1]["action"],
                "input_blind": entries[-1]["input_blind"],
                "unit": entries[-1]["unit"],
            }
            if entries
            else {},
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
            self.losses.append({"step": self.step, **values})
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

    def _cut_heldout(self, ids: list[str]) -> Batch | None:
        episodes = []
        for recipe_id in ids:
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
        file = self.folder / "losses.jsonl"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        self.losses = [row for row in map(json.loads, lines) if row["step"] <= step]
        file.write_text("".join(json.dumps(row) + "\n" for row in self.losses))


def smoothed(losses: list[dict[str, float]], points: int = 8) -> list[dict[str, float]]:
    """The losses as a short table: means over `points` stretches of about equal length."""
    rows = []
    for part in np.array_split(np.arange(len(losses)), min(points, len(losses))):
        chosen = [losses[i] for i in part]
        keys = [key for key in chosen[0] if key in ("loss", "video", "action", "grad_norm")]
        rows.append({"step": chosen[-1]["step"], **{key: float(np.mean([c[key] for c in chosen])) for key in keys}})
    return rows
