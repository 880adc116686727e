"""What a cell means before it has run: steps, pair uses, distinct pairs and episodes, minutes.

Owns: the arithmetic behind `--dry-run` and the time left. Pairs per episode are those that `bench catalogue` measured;
everything else follows from the settings. What was really used is counted in the cell's `summary.json`.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from embodichain.app.config import RunConfig
from embodichain.app.settings import ConfigError
from embodichain.app.sweep.cells import Cell
from embodichain.app.sweep.config import ExpectConfig

UNMEASURED_STEPS = 120.0  # of an episode whose task was never measured


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Of one cell.

    Attributes:
        steps: learner steps; None: as many as its minutes allow.
        uses: pair uses; windows at the ends of episodes are shorter than the others.
        pairs: distinct pairs used. `at_least`: the settings only bound them from below.
        episodes: distinct episodes that hold so many pairs.
        bound: most uses of a pair; None: not bounded.
        minutes: wall time.
    """

    steps: int | None
    uses: float
    pairs: float
    at_least: bool
    episodes: float
    bound: int | None
    minutes: float


def expectation(cell: Cell, rates: ExpectConfig) -> Expectation:
    """What a cell means at the given rates."""
    config = cell.config
    learner, replay = config.learner, config.replay
    per_step = learner.batch_windows * pairs_per_window(config)
    seconds = learner.batch_windows / rates.windows_per_s  # of one step
    steps: float = learner.steps
    if learner.minutes is not None:
        steps = min(steps, 60 * learner.minutes / seconds)
    uses = steps * per_step
    pairs, at_least = uses / replay.max_reuse, True
    if replay.mode == "static":
        pairs, at_least = float(min(replay.capacity_pairs, uses)), False
    elif replay.fresh_per_step is not None:
        pairs, at_least = steps * replay.fresh_per_step, False
    elif replay.samples_per_insert is not None:
        pairs, at_least = uses / replay.samples_per_insert, False
    if config.archive.pairs is not None:
        pairs, at_least = float(config.archive.pairs), False
    learning = steps * seconds
    making = 0.0 if cell.prepared or config.source_archive else pairs / rates.pairs_per_s
    trials = len(config.active_tasks) * config.evaluation.seeds * len(config.scored_domains)
    scoring = trials * rates.trial_s / config.evaluation.evaluators
    in_sequence = learning + making if replay.mode == "static" else max(learning, making)
    return Expectation(
        steps=learner.steps if learner.minutes is None else None,
        uses=uses,
        pairs=pairs,
        at_least=at_least,
        episodes=pairs / pairs_per_episode(config.active_tasks),
        bound=replay.bound,
        minutes=(rates.overhead_s + in_sequence + scoring) / 60,
    )


def pairs_per_episode(shares: dict[str, float]) -> float:
    """Mean pairs of an episode, tasks drawn by their shares."""
    from benchmarks.catalogue import measured

    rows = measured()
    lengths = {task: float(rows[task]["mean_steps"]) if task in rows else UNMEASURED_STEPS for task in shares}
    return sum(share * lengths[task] for task, share in shares.items()) / sum(shares.values())


def pairs_per_window(config: RunConfig) -> float:
    """Mean pairs of a window. A pass over T pairs is cut at a random phase, so both of its ends are short."""
    full, length = config.window.pairs, pairs_per_episode(config.active_tasks)
    return length / (length / full + 1 - config.window.phase_step / full)


def check_supply(cells: tuple[Cell, ...], wanted: dict[str, int], rates: ExpectConfig) -> None:
    """A prepared archive must hold what every cell will use. Raises `ConfigError` naming archive, cell and both."""
    for cell in cells:
        name = cell.prepared
        if name not in wanted:
            continue
        needs = expectation(cell, rates)
        held = cell.config.replay.min_size_pairs
        if needs.pairs + held > wanted[name] and not needs.at_least:
            raise ConfigError(
                f"prepare.{name}.pairs={wanted[name]}: cell {cell.name} uses about {needs.pairs:,.0f} distinct pairs "
                f"and holds {held:,} more; expected at least {needs.pairs + held:,.0f}, or it would end early"
            )


def table(cells: tuple[Cell, ...], rates: ExpectConfig, title: str) -> Table:
    """A row per run."""
    shown = Table(title=title)
    for column in ("run", "steps", "pair uses", "distinct pairs", "episodes", "bound", "min"):
        shown.add_column(
            column, justify="left" if column == "run" else "right", overflow="fold", no_wrap=column == "run"
        )
    for cell in cells:
        each = expectation(cell, rates)
        at_least = "≥ " * each.at_least
        shown.add_row(
            cell.name,
            "by the clock" if each.steps is None else f"{each.steps:,}",
            f"{each.uses:,.0f}",
            f"{at_least}{each.pairs:,.0f}",
            f"{at_least}{each.episodes:,.0f}",
            "-" if each.bound is None else str(each.bound),
            f"{each.minutes:.1f}",
        )
    return shown
