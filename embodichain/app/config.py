"""The configuration of a run: typed, frozen, merged once at launch, refused early.

`load_config` takes a YAML file and `key=value` overrides, and hands on plain objects. Every mistake that
can be seen before anything starts is a `ConfigError` of one line that names the key, the value and what
was expected.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embodichain.actors.config import PoolConfig
from embodichain.app.evaluation_config import EvaluationConfig
from embodichain.app.settings import ConfigError, merged, new_folder, save_config
from embodichain.archive import KINDS
from embodichain.contracts import WindowSpec
from embodichain.replay.config import ReplayConfig
from embodichain.telemetry.tracking import MlflowConfig
from learner.config import ModelConfig, TrainConfig

if TYPE_CHECKING:
    from embodichain.actors.recipes import RecipeStream

__all__ = ["ConfigError", "EvaluationConfig", "RunConfig", "load_config", "new_folder", "save_config"]

ENCODERS = ("state", "dinov3")
CONTROLS = ("joint", "eef")
PARALLEL = ("ddp", "fsdp2")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Which tokens the model sees.

    Attributes:
        name: `state` (privileged pose tokens) or `dinov3` (image latents).
        weights: for `dinov3`: `embedded` (small ones in this package, docs/encoder.md), a local folder, a hub id such
            as `facebook/dinov3-vits16-pretrain-lvd1689m`, or `random:tiny`.
        width, height: rendered frame, pixels, multiples of 16.
        supersample: rendered at so many times this size and averaged, 1 to 4.
        cameras: of the world: `front`, `top`, `left`, `right`, and on the hands `left_wrist`, `right_wrist`.
        actors: processes that encode for all simulators; 0: every simulator encodes for itself.
        cpus: Ray CPUs of each.
        gpu: one GPU for each.
    """

    name: str = "state"
    weights: str = "embedded"
    width: int = 128
    height: int = 128
    supersample: int = 1
    cameras: tuple[str, ...] = ("front",)
    actors: int = 0
    cpus: float = 1.0
    gpu: bool = False

    def __post_init__(self) -> None:
        if self.name not in ENCODERS:
            raise ConfigError(f"encoder.name={self.name}: expected one of {', '.join(ENCODERS)}")
        if self.actors < 0 or (self.actors and self.name == "state"):
            raise ConfigError(
                f"encoder.actors={self.actors} with encoder.name={self.name}: expected 0, or dinov3 and at least 1; "
                "pose tokens are made where the simulator's state is"
            )
        if self.cpus < 0:
            raise ConfigError(f"encoder.cpus={self.cpus}: expected at least 0")
        for key in ("width", "height"):
            if getattr(self, key) < 16 or getattr(self, key) % 16:
                raise ConfigError(f"encoder.{key}={getattr(self, key)}: expected a positive multiple of 16")
        if not 1 <= self.supersample <= 4:
            raise ConfigError(f"encoder.supersample={self.supersample}: expected 1 to 4")

    @property
    def tokens(self) -> dict[str, object]:
        """The settings that decide what the tokens are; the others say where they are made.

        `supersample` stands there where frames are rendered larger: archives and clients of before do not know it.
        """
        keys = ["name"] if self.name == "state" else ["name", "weights", "width", "height", "cameras"]
        if self.name != "state" and self.supersample > 1:
            keys.append("supersample")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """The learner's share of a run.

    Attributes:
        control: what the model predicts: `joint` targets, or `eef` tool poses (joints by inverse kinematics).
        workers: Ray Train workers.
        parallel: what several workers share: `ddp`, every one holds the model; `fsdp2`, each a shard of it.
        cpus: Ray CPUs per worker, fractional allowed.
        threads: torch threads per worker.
        gpu: one GPU per worker.
        steps: optimiser steps at most.
        minutes: wall-clock budget of the learning loop; the schedule runs on whichever of the two budgets
            is further spent. None: steps alone.
        batch_windows: windows per step over all workers.
        checkpoint_minutes: minutes between published checkpoints.
        checkpoint_steps: and one after every so many steps; None: by minutes alone.
        log_seconds: seconds between learner reports.
        network: the model; `network.kind` is `clwm`, or `flow_policy`, the plain baseline.
        train: optimisation.
    """

    control: str = "joint"
    workers: int = 1
    parallel: str = "ddp"
    cpus: float = 0.5
    threads: int = 1
    gpu: bool = False
    steps: int = 1_000_000
    minutes: float | None = None
    batch_windows: int = 64
    checkpoint_minutes: float = 2.0
    checkpoint_steps: int | None = None
    log_seconds: float = 2.0
    network: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.control not in CONTROLS:
            raise ConfigError(f"learner.control={self.control}: expected one of {', '.join(CONTROLS)}")
        if self.parallel not in PARALLEL:
            raise ConfigError(f"learner.parallel={self.parallel}: expected one of {', '.join(PARALLEL)}")
        for key in ("workers", "threads", "steps", "batch_windows"):
            if getattr(self, key) < 1:
                raise ConfigError(f"learner.{key}={getattr(self, key)}: expected at least 1")
        for key in ("cpus", "checkpoint_minutes", "log_seconds"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"learner.{key}={getattr(self, key)}: expected more than 0")
        if self.checkpoint_steps is not None and self.checkpoint_steps < 1:
            raise ConfigError(f"learner.checkpoint_steps={self.checkpoint_steps}: expected at least 1, or null")
        if self.minutes is not None and self.minutes <= 0:
            raise ConfigError(f"learner.minutes={self.minutes}: expected more than 0, or null")
        if self.batch_windows % (self.workers * self.train.accumulate):
            raise ConfigError(
                f"learner.batch_windows={self.batch_windows}: expected a multiple of learner.workers={self.workers} "
                f"times learner.train.accumulate={self.train.accumulate}"
            )

    def checkpoint_due(self, step: int, since_s: float) -> bool:
        """Whether a checkpoint is wanted after `step`, so many seconds after the last one that was due by time."""
        asked_for = self.checkpoint_steps is not None and step % self.checkpoint_steps == 0
        return asked_for or since_s > 60 * self.checkpoint_minutes


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """What is kept of the accepted episodes, besides what the replay holds.

    Attributes:
        path: the archive that every accepted episode goes to, a folder or any fsspec path; empty: none. It is made if
            missing, and appended to if it holds such episodes.
        kind: `arrays`; or `recipes`, about 100 bytes each, from which `embodichain archive materialise` makes them
            again.
        pairs: the run ends once its archive holds so many; None: by the learner's budget alone.
    """

    path: str = ""
    kind: str = "arrays"
    pairs: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"archive.kind={self.kind}: expected one of {', '.join(KINDS)}")
        if self.pairs is not None and (self.pairs < 1 or self.kind != "arrays" or not self.path):
            raise ConfigError(f"archive.pairs={self.pairs}: expected at least 1, with archive.path, of arrays; or null")


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """The cluster. With `RAY_ADDRESS` set the run joins it; otherwise one is started in-process.

    Attributes:
        cpus: CPUs of the in-process cluster; None: all cores of this machine.
        object_store_mb: its shared-memory object store.
    """

    cpus: float | None = None
    object_store_mb: int = 512

    def __post_init__(self) -> None:
        if self.cpus is not None and self.cpus <= 0:
            raise ConfigError(f"ray.cpus={self.cpus}: expected more than 0, or null")
        if self.object_store_mb < 100:  # Ray takes no less
            raise ConfigError(f"ray.object_store_mb={self.object_store_mb}: expected at least 100")


@dataclass(frozen=True, kw_only=True)
class PlacementConfig:
    """Which nodes of a cluster take what: node label -> value, as in `ray start --labels role=sim`; empty: any node.

    Attributes:
        simulators, encoders, learner, evaluators: what each kind of process needs.
        shards: of the replay; empty: beside the learner.
    """

    simulators: dict[str, str] = field(default_factory=dict)
    encoders: dict[str, str] = field(default_factory=dict)
    shards: dict[str, str] = field(default_factory=dict)
    learner: dict[str, str] = field(default_factory=dict)
    evaluators: dict[str, str] = field(default_factory=dict)

    def shard_labels(self) -> dict[str, str]:
        """Those of the shards' nodes."""
        return self.shards or self.learner


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, whole.

    Attributes:
        name: folder under `output`; a number is added if it is taken.
        output: where runs are written.
        seed: run seed; decides every draw of the run.
        tasks: task name -> share of generated episodes; 0 leaves a task out.
        domain: randomisation level.
        sources: where trajectories come from -> share of generated episodes: `expert`, or `mimic`, demonstrations
            carried over to new scenes.
        mimic_parents: demonstrations of each task that `mimic` has.
        episodes: where episodes come from: `simulators`, or `archive:PATH`, each of that archive's once per run.
        storage: where checkpoints and replay snapshots go, a folder or any fsspec path, below the run's name; empty:
            the run's own folder.
    """

    name: str = "run"
    output: str = "runs"
    seed: int = 0
    tasks: dict[str, float] = field(default_factory=dict)
    domain: str = "default"
    sources: dict[str, float] = field(default_factory=lambda: {"expert": 1.0, "mimic": 0.0})
    mimic_parents: int = 20
    episodes: str = "simulators"
    storage: str = ""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    window: WindowSpec = field(default_factory=WindowSpec)
    actors: PoolConfig = field(default_factory=PoolConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    archive: ArchiveConfig = field(default_factory=ArchiveConfig)
    mlflow: MlflowConfig = field(default_factory=MlflowConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    @property
    def active_tasks(self) -> dict[str, float]:
        """The tasks with a share above zero."""
        return {name: weight for name, weight in self.tasks.items() if weight > 0}

    @property
    def scored_domains(self) -> tuple[str, ...]:
        """The domains that checkpoints are scored in."""
        return self.evaluation.domains or (self.domain,)

    @property
    def sharded_replay(self) -> ReplayConfig:
        """The replay's settings as its shards take them: they know how many windows a learner step takes."""
        return replace(self.replay, step_windows=self.learner.batch_windows)

    @property
    def source_archive(self) -> str:
        """The archive that episodes come from; empty for simulators."""
        return self.episodes.removeprefix("archive:") if self.episodes != "simulators" else ""

    @property
    def made_with(self) -> dict[str, object]:
        """What the run's episodes share, besides their recipes: enough to make them again."""
        return {
            "tasks": sorted(self.active_tasks),
            "domain": self.domain,
            "tau": self.window.tau,
            "encoder": self.encoder.tokens,
        }

    def hash(self) -> str:
        """12 hex digits over everything but the name and the places that results go to."""
        places = ("name", "output", "storage", "archive", "mlflow")
        content = {key: value for key, value in asdict(self).items() if key not in places}
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=6).hexdigest()


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Merge defaults, the YAML file and the overrides, in that order, and check the result.

    Raises:
        ConfigError: an unreadable file, an unknown key, a wrong type, an impossible combination or place.
    """
    from embodichain.app.config_checks import check_combinations, check_places

    config = merged(RunConfig, path, overrides)
    check_combinations(config)
    check_places(config)
    return config


def load_made_config(path: str | Path) -> RunConfig:
    """The configuration of a run that has been: what it learned from and the places it wrote to may be gone.

    Raises `ConfigError` as `load_config`, places apart.
    """
    from embodichain.app.config_checks import check_combinations

    config = merged(RunConfig, path, ())
    check_combinations(config)
    return config


def load_fit_config(path: str | Path) -> RunConfig:
    """The run that a fit would have been. Its data may be of tasks that are not ours, which are left out.

    Where none is left, it is every training task: nothing says what such a checkpoint is good for. Raises `ConfigError`
    as `load_made_config`.
    """
    from embodichain.app.config_checks import check_combinations
    from tasks.registry import task_info, task_names

    config = merged(RunConfig, path, ())
    ours = {name: share for name, share in config.tasks.items() if name in task_names()}
    config = replace(config, tasks=ours or {name: 1.0 for name in task_names() if task_info(name).split == "train"})
    check_combinations(config)
    return config


def recipe_stream(config: RunConfig, sim_hash: str, drawn: int = 0) -> RecipeStream:
    """The recipes of a run, from number `drawn` on. Raises `ValueError` naming the key that is wrong."""
    from embodichain.actors.recipes import RecipeStream

    return RecipeStream(
        weights=config.active_tasks,
        domain=config.domain,
        run_seed=config.seed,
        sim_hash=sim_hash,
        sources=config.sources,
        mimic_parents=config.mimic_parents,
        drawn=drawn,
    )
