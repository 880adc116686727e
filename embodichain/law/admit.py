"""Which runs count. Takes: cells and a plan. Hands on: those that are analysed, and one line for every other one.

Nothing is dropped silently: a run that is left out is an `Exclusion` with its reason, and a set of runs that must not
be compared at all raises `LawError`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

from embodichain.law.cell import Cell, LawError, Protocol, Reading
from embodichain.law.plan import Plan

SHARE_TOLERANCE = 0.03


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """A run that does not count. `reason`: one of `plan.REASONS`; `detail`: in words."""

    cell: Cell
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """What is analysed.

    Attributes:
        cells: runs that count. `exclusions`: the others.
        deviations: where this analysis is not what the plan says.
        notes: what a reader should know besides.
    """

    cells: tuple[Cell, ...]
    exclusions: tuple[Exclusion, ...]
    deviations: tuple[str, ...]
    notes: tuple[str, ...]


def admit(cells: Sequence[Cell], plan: Plan) -> Admitted:
    """Sort runs into those that count and those that do not.

    Raises:
        LawError: there are no runs, none counts, or they were scored in different ways.
    """
    if not cells:
        raise LawError("no runs to analyse; expected at least one finished run")
    kept: list[Cell] = []
    exclusions: list[Exclusion] = []
    seen: dict[tuple[object, ...], Cell] = {}
    for cell in cells:
        reason, detail = _why_not(cell, plan)
        identity = (cell.arm, cell.config_hash, cell.seed, cell.protocol, tuple(sorted(map(repr, cell.values.items()))))
        if not reason and cell.config_hash and identity in seen:
            reason, detail = "duplicate", f"same configuration and seed as {seen[identity].path}"
        if reason:
            exclusions.append(Exclusion(cell=cell, reason=reason, detail=detail))
            continue
        seen[identity] = cell
        kept.append(cell)
    if not kept:
        worst = exclusions[0]
        raise LawError(f"none of {len(cells)} runs counts; the first: {worst.cell.path}: {worst.detail}")
    _check_protocols(kept)
    versions = Counter(cell.code_version for cell in kept)
    if len(versions) > 1 and plan.one_code_version:
        raise LawError(f"runs of {len(versions)} code versions ({_counted(versions)}); the plan wants one_code_version")
    return Admitted(
        cells=tuple(kept),
        exclusions=tuple(exclusions),
        deviations=tuple(_deviations(kept, exclusions, plan)),
        notes=tuple(_notes(kept, versions)),
    )


def reading_at(cell: Cell, share: float) -> Reading | None:
    """The reading at a share of the budget, if there is one."""
    near = [reading for reading in cell.readings if abs(reading.share - share) <= SHARE_TOLERANCE]
    return min(near, key=lambda reading: abs(reading.share - share)) if near else None


def success_counts(reading: Reading, split: str) -> tuple[int, int]:
    """(k, n) over the rows of a split; (0, 0) if there are none."""
    rows = [row for row in reading.success if not split or row.split == split]
    return sum(row.k for row in rows), sum(row.n for row in rows)


def has_metric(reading: Reading, metric: str, split: str) -> bool:
    """Whether the reading has the metric, as a finite number."""
    if metric == "error":
        return reading.error is not None and math.isfinite(reading.error) and reading.error > 0
    return success_counts(reading, split)[1] > 0


def _why_not(cell: Cell, plan: Plan) -> tuple[str, str]:
    if cell.status != "done":
        return "not_done", f"status {cell.status}"
    if not cell.readings:
        return "no_reading", "no checkpoint was scored"
    for reading in cell.readings:
        numbers = (reading.unique_pairs, reading.error, reading.core_seconds)
        if not all(number is None or math.isfinite(number) for number in numbers):
            return "not_finite", f"a number at step {reading.step} is not finite"
    final = cell.final
    if final.step < 1 or final.unique_pairs <= 0:
        return "no_reading", f"{final.step} steps with {final.unique_pairs:g} unique pairs"
    if final.error is not None and final.error <= 0:
        return "not_finite", f"held-out error {final.error:g}; expected more than 0"
    needs = plan.metric if plan.kind == "throughput" else "success" if plan.kind != "actors" else ""
    split = plan.split if plan.kind == "throughput" else ""
    if needs and not has_metric(final, needs, split):
        return "no_metric", f"no held-out {needs}" if needs == "error" else f"no success rows of {split or 'any split'}"
    if cell.reuse_bound is not None and cell.reuse_max is not None and cell.reuse_max > cell.reuse_bound:
        return "reuse_exceeded", f"a pair was used {cell.reuse_max:g} times, its bound is {cell.reuse_bound:g}"
    return "", ""


def _check_protocols(cells: Sequence[Cell]) -> None:
    first = cells[0]
    for cell in cells[1:]:
        for item in fields(Protocol):
            mine, theirs = getattr(first.protocol, item.name), getattr(cell.protocol, item.name)
            if mine != theirs:
                raise LawError(
                    f"mixed evaluation protocols: {item.name} is {_short(mine)} in {first.path} and {_short(theirs)} "
                    f"in {cell.path}; scores are compared only if all were made alike"
                )
    counted: dict[object, tuple[int, Cell]] = {}
    for cell in cells:
        for row in cell.final.success:
            n, other = counted.setdefault(row.key, (row.n, cell))
            if n != row.n:
                raise LawError(
                    f"mixed evaluation protocols: {row.task} was scored on {n} seeds in {other.path} and on {row.n} in "
                    f"{cell.path}; scores are compared only on the same seeds"
                )
    _check_seeds(cells)


def _check_seeds(cells: Sequence[Cell]) -> None:
    """Where single outcomes are known, they must be of the same evaluation seeds."""
    known: dict[object, tuple[tuple[int, ...], Cell]] = {}
    for cell in cells:
        for row in cell.final.success:
            if row.outcomes:
                seeds = tuple(seed for seed, _ in row.outcomes)
                mine, other = known.setdefault(row.key, (seeds, cell))
                if mine != seeds:
                    raise LawError(
                        f"mixed evaluation protocols: {row.task} was scored on other seeds in {cell.path} than in "
                        f"{other.path}"
                    )


def _deviations(kept: Sequence[Cell], exclusions: Sequence[Exclusion], plan: Plan) -> list[str]:
    lines = [
        f"{each.cell.path} was left out ({each.detail}), which the plan does not foresee"
        for each in exclusions
        if each.reason not in plan.exclusions
    ]
    plans = Counter(cell.plan_hash for cell in kept if cell.plan_hash and cell.plan_hash != plan.hash())
    lines += [
        f"{count} of {len(kept)} runs were started under another plan ({known}), not this one ({plan.hash()})"
        for known, count in sorted(plans.items())
    ]
    missing = sum(not cell.plan_hash for cell in kept)
    if missing:
        lines.append(f"{missing} of {len(kept)} runs were started without a plan: it was not fixed before they ran")
    return lines


def _notes(kept: Sequence[Cell], versions: Counter[str]) -> list[str]:
    notes = []
    if len(versions) > 1:
        notes.append(f"runs of {len(versions)} code versions: {_counted(versions)}")
    dirty = sum(cell.code_version.endswith("-dirty") for cell in kept)
    if dirty:
        notes.append(f"{dirty} of {len(kept)} runs were made by code with uncommitted changes")
    if any(cell.protocol.encoder == "state" for cell in kept):
        notes.append("these models see privileged pose tokens (encoder `state`), not images")
    return notes


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name or 'unknown'} ({count})" for name, count in sorted(counts.items()))


def _short(value: object) -> str:
    text = str(value) if value not in ("", None, ()) else "not known"
    return text if len(text) < 60 else text[:57] + "..."
