"""From a sweep's settings to its cells. Owns: the crossing of arms, axes and seeds, and the cells' names.

Every cell's run configuration is made and checked here, before anything starts: an unknown key or an impossible
combination is refused with the cell's name.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from embodichain.app.config import RunConfig, load_config
from embodichain.app.settings import ConfigError
from embodichain.app.sweep.config import PREPARED, PrepareConfig, Settings, SweepConfig
from embodichain.archive import Archive

KINDS = ("prepare", "tune", "cell")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: its folder's name.
        kind: `cell`; or `tune`, a trial; or `prepare`, the making of an archive.
        arm: empty where the sweep has none.
        levels: axis -> level that this cell has, the trial's candidates included.
        seed: run seed.
        settings: what it changes in the base configuration.
        group: which tuning choice it takes or is a trial for.
        config: the checked run configuration, without the places that results go to.
    """

    name: str
    kind: str = "cell"
    arm: str = ""
    levels: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    settings: Settings = field(default_factory=dict)
    group: str = ""
    config: RunConfig = field(default_factory=RunConfig)

    @property
    def prepared(self) -> str:
        """The prepared archive that its episodes come from; empty: none."""
        source = str(self.settings.get("episodes", ""))
        return source.removeprefix(PREPARED) if source.startswith(PREPARED) else ""

    @property
    def labels(self) -> dict[str, str]:
        """What MLflow shows beside the configuration: the arm and the levels of named axes."""
        named = {axis: str(level) for axis, level in self.levels.items() if "." not in axis}
        return {"kind": self.kind, "arm": self.arm or self.config.replay.mode, **named}

    @property
    def curve(self) -> str:
        """Which scaling curve it is a point of: its arm and its levels of named axes."""
        return "-".join(value for key, value in self.labels.items() if key != "kind")


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """All runs of a sweep, in the order in which they start.

    Attributes:
        prepare, trials, cells: by kind. Cells have their arm's untuned settings; `tuned` gives them the choices.
    """

    prepare: tuple[Cell, ...]
    trials: tuple[Cell, ...]
    cells: tuple[Cell, ...]


class Planner:
    """Makes the cells of one sweep.

    Args:
        sweep: its settings.
        base: the base run configuration's file.
        archives: name of a prepared archive -> where it is or will be.
    """

    def __init__(self, sweep: SweepConfig, base: Path, archives: Mapping[str, Path]) -> None:
        self._sweep, self._base, self._archives = sweep, base, archives

    def plan(self) -> SweepPlan:
        """Every run, checked. Raises `ConfigError` naming the cell, for two equal ones and for none at all."""
        # Seed after seed: a sweep that is stopped early leaves whole replicates.
        cells = tuple(sorted(self._cells(), key=lambda cell: self._sweep.seeds.index(cell.seed)))
        if not cells:
            raise ConfigError(f"sweep {self._sweep.name}: no cells; expected arms, a grid or cells")
        seen: dict[str, str] = {}
        for cell in cells:
            for what, key in (("settings", cell.config.hash()), ("name", cell.name)):
                if key in seen:
                    raise ConfigError(
                        f"cells {seen[key]} and {cell.name} have the same {what}; expected them to differ"
                    )
                seen[key] = cell.name
        if self._sweep.plan:
            _check_scored_alike(cells)
        prepare = tuple(self._preparation(name, wanted) for name, wanted in self._sweep.prepare.items())
        return SweepPlan(prepare=prepare, trials=tuple(self._trials(cells)), cells=cells)

    def tuned(self, cell: Cell, choice: Settings) -> Cell:
        """A cell with the settings that its group's trials chose."""
        return self._checked(replace(cell, settings={**cell.settings, **choice}))

    def checked(self, cell: Cell) -> Cell:
        """A cell checked once more, now that prepared archives exist."""
        return self._checked(cell)

    def _cells(self) -> Iterator[Cell]:
        sweep = self._sweep
        bare = not sweep.arms and (sweep.grid or not sweep.cells)
        arms: dict[str, Any] = {"": None} if bare else dict(sweep.arms)
        for name, arm in arms.items():
            axes = {**sweep.grid, **(arm.grid if arm else {})}
            for levels in _product(axes):
                settings = {**sweep.set, **(arm.set if arm else {}), **_settings(axes, levels)}
                label = "-".join([name, *(_level_name(axis, level) for axis, level in levels.items())]).strip("-")
                yield from self._seeded(label or "cell", name, levels, settings)
        for cell in sweep.cells:
            arm_set = sweep.arms[cell.arm].set if cell.arm else {}
            yield from self._seeded(cell.name, cell.arm, {}, {**sweep.set, **arm_set, **cell.set})

    def _seeded(self, label: str, arm: str, levels: dict[str, Any], settings: Settings) -> Iterator[Cell]:
        group = "-".join(str(arm if axis == "arm" else levels.get(axis, "")) for axis in self._sweep.tune.per)
        for seed in self._sweep.seeds:
            cell = Cell(
                name=_safe(f"{label}-s{seed}"), arm=arm, levels=levels, seed=seed, settings=settings, group=_safe(group)
            )
            yield self._checked(cell)

    def _trials(self, cells: tuple[Cell, ...]) -> Iterator[Cell]:
        """As many for each group: every candidate once, on a cell in the middle of the axes that make no group."""
        tune = self._sweep.tune
        if not tune.grid:
            return
        for group in dict.fromkeys(cell.group for cell in cells):
            members = [cell for cell in cells if cell.group == group and cell.seed == self._sweep.seeds[0]]
            middle = members[len(members) // 2]
            for levels in _product(tune.grid):
                label = "-".join([group, *(_level_name(axis, level) for axis, level in levels.items())]).strip("-")
                candidate = _settings(tune.grid, levels)
                settings = {**middle.settings, **tune.set, "evaluation.seed_range": "tune", **candidate}
                yield self._checked(
                    Cell(
                        name=_safe(f"tune-{label}"),
                        kind="tune",
                        arm=middle.arm,
                        levels={**middle.levels, **levels},
                        seed=tune.seed,
                        settings=settings,
                        group=group,
                    )
                )

    def _preparation(self, name: str, wanted: PrepareConfig) -> Cell:
        """A stream whose learner takes a few steps, twenty or so, while the wanted pairs go by and are archived."""
        base = load_config(self._base)
        uses = 20 * base.learner.batch_windows * base.window.pairs
        settings = {
            **{key: value for key, value in self._sweep.set.items() if not key.startswith(("replay.", "learner."))},
            "replay.mode": "stream",
            "replay.fresh_per_step": None,
            "replay.samples_per_insert": uses / wanted.pairs,
            "replay.error_buffer": None,
            "replay.capacity_pairs": 100_000,
            "learner.steps": 100,  # never reached: `archive.pairs` ends it
            "learner.minutes": None,
            "learner.checkpoint_minutes": 1e6,
            "evaluation.seeds": 1,
            "evaluation.seeds_between": 0,
            "evaluation.heldout_episodes": 1,
            "evaluation.videos": 0,
            **wanted.set,
            "episodes": "simulators",
            "archive.path": str(self._archives[name]),
            "archive.pairs": wanted.pairs,
        }
        return self._checked(Cell(name=_safe(f"prepare-{name}"), kind="prepare", settings=settings, seed=-1))

    def _checked(self, cell: Cell) -> Cell:
        settings = dict(cell.settings)
        if cell.seed >= 0:
            settings["seed"] = cell.seed
        try:
            if cell.prepared:
                settings["episodes"] = self._source(cell.prepared)
            config = load_config(self._base, as_overrides(settings))
            if config.storage:
                raise ConfigError(
                    f"storage={config.storage}: expected none; a cell that begins anew would find its earlier "
                    "checkpoints there (all of it lies under output, which every node must see)"
                )
        except ConfigError as error:
            raise ConfigError(f"{cell.kind} {cell.name}: {error}") from error
        return replace(cell, config=config)

    def _source(self, name: str) -> str:
        """A prepared archive, or simulators as long as it is not there to be looked at."""
        if name not in self._archives:
            raise ConfigError(
                f"episodes={PREPARED}{name}: expected one of {', '.join(self._archives) or 'no archives'}"
            )
        place = str(self._archives[name])
        there = (self._archives[name] / "archive.json").exists() and bool(Archive.open(place).entries())
        return f"archive:{place}" if there else "simulators"


def _check_scored_alike(cells: tuple[Cell, ...]) -> None:
    """Scores that an analysis plan will compare must be made alike. Raises `ConfigError` naming the key."""
    from embodichain.law.cell import SCORING

    first = cells[0]
    for cell in cells[1:]:
        for key in (*SCORING, "mode", "latency_steps"):
            mine, other = getattr(cell.config.evaluation, key), getattr(first.config.evaluation, key)
            if mine != other:
                raise ConfigError(
                    f"evaluation.{key}={mine} in {cell.name}, {other} in {first.name}: the plan compares these cells; "
                    "expected all of them to be scored alike"
                )
        for key in ("tasks", "window", "encoder.name", "learner.control"):  # what is predicted, and of what
            mine, other = (attrgetter(key)(each.config) for each in (cell, first))
            if mine != other:
                raise ConfigError(
                    f"{key}={mine} in {cell.name}, {other} in {first.name}: the plan compares these cells; expected "
                    "all of them to predict the same"
                )
        if cell.config.scored_domains != first.config.scored_domains:
            raise ConfigError(
                f"evaluation.domains={list(cell.config.scored_domains)} in {cell.name}, "
                f"{list(first.config.scored_domains)} in {first.name}: the plan compares these cells; expected "
                "evaluation.domains to be set, and equal in all of them"
            )


def _product(axes: Settings) -> Iterator[dict[str, Any]]:
    """Every combination of levels, axis -> level."""
    for combination in itertools.product(*(list(values) for values in axes.values())):
        yield dict(zip(axes, combination, strict=True))


def _settings(axes: Settings, levels: Mapping[str, Any]) -> Settings:
    """The run settings that levels stand for."""
    settings: Settings = {}
    for axis, level in levels.items():
        settings.update(axes[axis][level] if isinstance(axes[axis], Mapping) else {axis: level})
    return settings


def _level_name(axis: str, level: Any) -> str:
    return (
        str(level)
        if "." not in axis
        else f"{axis.rsplit('.', 1)[-1]}{level:g}"
        if isinstance(level, float)
        else (f"{axis.rsplit('.', 1)[-1]}{level}")
    )


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_.-")


def as_overrides(settings: Settings) -> list[str]:
    """`key=value` as the command line takes them."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]
