"""A fit's settings and what its folder says before and beside the learning: episodes, losses.

Takes: settings and an archive. Hands on: a folder that `app.fit` learns in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from embodichain.actors.training import check_all_training
from embodichain.app.config import LearnerConfig
from embodichain.app.feed import split
from embodichain.app.settings import ConfigError, check_writable, device_for, new_folder, save_config
from embodichain.archive import Archive, Location
from embodichain.contracts import WindowSpec
from embodichain.replay import ReplayConfig

LossRow = dict[str, Any]  # a `step` and its losses, None where one is not finite


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


def make_folder(config: FitConfig) -> Path:
    """The folder of a new fit, with all that it is about.

    Raises:
        ConfigError: there is nothing to learn from, or not here; no folder is made.
    """
    try:
        config = replace(config, archive=str(Location.of(config.archive)))  # as it can be found from anywhere
    except ValueError as error:
        raise ConfigError(f"archive: {error}") from error
    check_writable("output", config.output)
    device_for(config.learner.gpu, "learner.gpu=true")
    archive = open_archive(config.archive)
    entries = archive.entries()
    if not entries:
        raise ConfigError(f"archive={config.archive}: it holds no episodes")
    learn, away = split(entries, config.heldout, config.seed)
    if not learn:
        raise ConfigError(f"archive={config.archive}: no episodes to learn from")
    folder = new_folder(config.output, config.name)
    for part in ("checkpoints", "replay"):
        (folder / part).mkdir()
    (folder / "episodes.json").write_text(json.dumps({"learn": learn, "heldout": away}))
    _save_as_run(config, archive, folder / "config.yaml")
    save_config(config, folder / "fit.yaml")
    return folder


def _save_as_run(config: FitConfig, archive: Archive, path: Path) -> None:
    """What `embodichain evaluate` reads: the run that this fit would have been."""
    made: dict[str, Any] = {
        key: archive.made_with[key] for key in ("tasks", "domain", "encoder") if key in archive.made_with
    }
    made["tasks"] = {task: 1.0 for task in made.get("tasks", [])}
    same = {key: asdict(getattr(config, key)) for key in ("window", "learner")}
    # Memories are to be shown frames as far apart as in training, and a chunk cannot be played for longer than it is.
    same["evaluation"] = {"replan": min(config.window.tau, config.window.chunk)}
    path.write_text(OmegaConf.to_yaml(OmegaConf.create({**made, **same, "seed": config.seed})))


def chosen_episodes(folder: Path) -> dict[str, list[str]]:
    """The episodes to `learn` from and those `heldout`, as `make_folder` wrote them down. Raises `ConfigError`."""
    path = folder / "episodes.json"
    try:
        chosen = json.loads(path.read_text())
        return {key: list(chosen[key]) for key in ("learn", "heldout")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read, and nothing else knows what this fit learns from") from error


def read_losses(folder: Path) -> list[LossRow]:
    """Rows of `losses.jsonl`, without a line that a crash has torn; empty without the file."""
    file = folder / "losses.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    # Fits of before wrote NaN, which is no JSON.
    return [json.loads(line, parse_constant=lambda _: None) for line in lines]


def smoothed(losses: Sequence[LossRow], points: int = 8) -> list[LossRow]:
    """The losses as a short table: means over `points` stretches of about equal length; None: nothing finite there."""
    rows: list[LossRow] = []
    for part in np.array_split(np.arange(len(losses)), min(points, len(losses))):
        chosen = [losses[i] for i in part]
        row: LossRow = {"step": chosen[-1]["step"]}
        for key in (key for key in chosen[0] if key in ("loss", "video", "action", "grad_norm")):
            finite = [value for each in chosen if (value := each[key]) is not None]
            row[key] = float(np.mean(finite)) if finite else None
        rows.append(row)
    return rows
