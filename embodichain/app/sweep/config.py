"""The settings of a sweep: a base run, what all cells share, and what they differ in.

Owns: the typed form of `configs/sweeps/*.yaml` and its checks that need no run configuration. A *cell* is one run; an
*arm* is a named set of settings; an *axis* is a key with its values, or a name with named sets of settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from embodichain.app.settings import ConfigError, merged

PREPARED = "prepared:"
CLUSTER = ("own", "join")
INTERRUPTED = ("restart", "resume")
Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """A named arm.

    Attributes:
        set: run settings, dotted key -> value.
        grid: axes of this arm alone; see `SweepConfig.grid`.
    """

    set: Settings = field(default_factory=dict)
    grid: Settings = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CellConfig:
    """One cell that is listed by itself.

    Attributes:
        name: of the cell; the seed is added.
        arm: the arm whose settings it begins with; empty: none.
        set: run settings on top.
    """

    name: str
    arm: str = ""
    set: Settings = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Episodes that are made once, before the cells, and that these read with `episodes: prepared:NAME`.

    Attributes:
        pairs: state-action pairs wanted at the least.
        set: run settings of their making (`actors.count`, `seed`, ...).
    """

    pairs: int
    set: Settings = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Trials before the cells: each group of cells gets every candidate once, and keeps the best one.

    Trials are scored by their held-out error over `tune` seeds, which nothing that is reported looks at.

    Attributes:
        grid: axes of candidates, as in `SweepConfig.grid`; empty: no tuning.
        per: what makes a group: `arm`, and names of axes. Other axes stand at their middle value in a trial.
        set: run settings of trials (fewer steps, say).
        seed: their run seed.
    """

    grid: Settings = field(default_factory=dict)
    per: tuple[str, ...] = ("arm",)
    set: Settings = field(default_factory=dict)
    seed: int = 100


@dataclass(frozen=True, kw_only=True)
class ExpectConfig:
    """Measured rates from which `--dry-run` expects minutes; nothing else depends on them.

    Attributes:
        windows_per_s: that the learner takes, where it never waits.
        pairs_per_s: that all simulators of a cell make.
        trial_s: seconds of one closed-loop trial.
        overhead_s: seconds around the learning of a cell: start, held-out set, end.
    """

    windows_per_s: float = 200.0
    pairs_per_s: float = 400.0
    trial_s: float = 1.0
    overhead_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep, whole.

    Attributes:
        name: folder under `output` and MLflow experiment.
        purpose: one line for the report.
        base: the run configuration that cells begin with, beside this file or from the working directory.
        plan: the analysis plan, found like `base`; kept with the results, its hash in every cell.
        plan_committed: refuse to start unless the plan is committed as it stands.
        output: where the sweep's folder goes.
        set: run settings of all cells, dotted key -> value.
        grid: axes crossed with every arm: a dotted key -> list of values, or a name -> {level: settings}.
        arms: name -> settings and axes of its own; none: one arm without a name.
        cells: further cells, listed one by one; arms and grid do not multiply them.
        seeds: run seeds that every cell is repeated with.
        prepare: archives that are made first.
        tune: trials that come before the cells.
        interrupted: what becomes of a cell that was interrupted: `restart` makes every cell one undisturbed run;
            `resume` goes on from its last checkpoint, for long cells on machines that may vanish.
        cluster: on a Ray cluster: `own` gives every cell its share of one node, and Ray of its own there; `join`
            spreads a cell's processes over the cluster.
        grows: the cluster starts nodes on demand: a cell may be larger than any node that is there yet.
        parallel: cells at a time at most; None: one on this machine, on a cluster as many as Ray finds room for, with
            `join` one.
        expect: rates for `--dry-run`.
    """

    name: str
    base: str
    purpose: str = ""
    plan: str = ""
    plan_committed: bool = False
    output: str = "runs"
    set: Settings = field(default_factory=dict)
    grid: Settings = field(default_factory=dict)
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    cells: list[CellConfig] = field(default_factory=list)
    seeds: tuple[int, ...] = (0,)
    prepare: dict[str, PrepareConfig] = field(default_factory=dict)
    tune: TuneConfig = field(default_factory=TuneConfig)
    interrupted: str = "restart"
    cluster: str = "own"
    grows: bool = False
    parallel: int | None = None
    expect: ExpectConfig = field(default_factory=ExpectConfig)

    def __post_init__(self) -> None:
        for key, allowed in (("interrupted", INTERRUPTED), ("cluster", CLUSTER)):
            if getattr(self, key) not in allowed:
                raise ConfigError(f"{key}={getattr(self, key)}: expected one of {', '.join(allowed)}")
        if self.parallel is not None and self.parallel < 1:
            raise ConfigError(f"parallel={self.parallel}: expected at least 1, or null")
        if not self.seeds:
            raise ConfigError("seeds=[]: expected at least one; the sweep would have no cells")
        if len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds={list(self.seeds)}: expected distinct seeds")
        for section, grid in (("grid", self.grid), ("tune.grid", self.tune.grid), *self._arm_grids()):
            check_axes(section, grid)
        for cell in self.cells:
            if cell.arm and cell.arm not in self.arms:
                raise ConfigError(f"cells.{cell.name}: arm={cell.arm} is none of {', '.join(self.arms) or 'no arms'}")
        axes = {"arm", *self.grid, *(axis for _, grid in self._arm_grids() for axis in grid)}
        unknown = [name for name in self.tune.per if name not in axes]
        if unknown:
            raise ConfigError(f"tune.per={unknown[0]}: expected some of {', '.join(sorted(axes))}")

    def _arm_grids(self) -> list[tuple[str, Settings]]:
        return [(f"arms.{name}.grid", arm.grid) for name, arm in self.arms.items()]


def check_axes(section: str, grid: Settings) -> None:
    """Every axis must have values. Raises `ConfigError` naming the one that has none."""
    for axis, values in grid.items():
        if not isinstance(values, list | dict) or not values:
            raise ConfigError(
                f"{section}.{axis}={values}: expected a list of at least one value, or named sets of settings; the "
                "sweep would have no cells"
            )
        if isinstance(values, dict) and not all(isinstance(level, dict) for level in values.values()):
            raise ConfigError(f"{section}.{axis}: expected settings under every level, key: value")


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a sweep's file; overrides are of its own keys, or run settings for all of its cells.

    Raises:
        ConfigError: an unreadable file, an unknown key, an impossible value.
    """
    own = {each.name for each in fields(SweepConfig)}
    of_runs = [each for each in overrides if each.split("=")[0].split(".")[0] not in own]
    config = merged(SweepConfig, path, [each for each in overrides if each not in of_runs])
    for override in of_runs:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"override {override!r}: expected key=value")
        varied = [each for grid in (config.grid, *(arm.grid for arm in config.arms.values())) for each in _keys(grid)]
        if key in varied:
            raise ConfigError(f"{override}: cells differ in {key}; expected a key that all of them have alike")
        config.set[key] = yaml.safe_load(value)
        for settings in (*(arm.set for arm in config.arms.values()), *(cell.set for cell in config.cells)):
            settings.pop(key, None)
    sets = [config.set, *(arm.set for arm in config.arms.values()), *(cell.set for cell in config.cells)]
    grids = [config.grid, *(arm.grid for arm in config.arms.values())]
    if any("seed" in settings for settings in sets) or any("seed" in _keys(grid) for grid in grids):
        raise ConfigError("seed: a cell has its own; expected seeds=[0, 1, ...]")
    return config


def _keys(grid: Settings) -> Iterator[str]:
    """The run settings that an arm's axes vary."""
    for axis, values in grid.items():
        yield from (key for level in values.values() for key in level) if isinstance(values, dict) else (axis,)


def beside(path: str | Path, name: str) -> Path:
    """`name` beside the file `path`, or else from the working directory. Raises `ConfigError` if it is at neither."""
    for folder in (Path(path).absolute().parent, Path.cwd()):
        if (folder / name).is_file():
            return Path(os.path.abspath(folder / name))
    raise ConfigError(f"{path}: {name} is no file beside it, nor in {Path.cwd()}")
