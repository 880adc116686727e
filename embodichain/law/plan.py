"""The analysis plan: what is decided before a sweep runs. Owns: its fields, their checks, its hash.

A plan is a YAML file, committed before the first cell starts. Its hash is written into every cell and into the report,
and whatever the analysis did differently is listed there as a deviation.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from embodichain.law.cell import LawError

KINDS = ("throughput", "replay_bound", "domain_expansion", "actors")
METRICS = ("error", "success")
REASONS = ("not_done", "no_reading", "no_metric", "not_finite", "duplicate", "reuse_exceeded")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How runs will be analysed.

    Attributes:
        name: of the plan.
        kind: which report: `throughput` (the law), `replay_bound`, `domain_expansion` or `actors` (tables).
        metric: what decides: held-out `error` (lower is better) or closed-loop `success`. The other one is secondary.
        split: success rows that count for the law, e.g. `heldout_seeds`; empty: all of them.
        shares: shares of a run's budget at which it is read off.
        exclusions: reasons for which a run may be left out; any other reason is a deviation.
        alpha: level of every test (after Holm's correction over the groups) and 1 - coverage of every interval.
        min_levels: levels of E per group without which nothing is concluded.
        min_seeds: training seeds per level.
        min_span: ratio of the highest to the lowest E.
        level_tolerance: runs whose E differ by less than this share belong to one level.
        matched_d: whether the matched-D arm is needed before anything is attributed to throughput.
        equivalence: difference between stream and matched-D that would not matter, of log error or of success rate.
        max_vif: variance inflation of log E beside log D above which the two are called collinear.
        threshold_levels: measured levels that must lie on either side of E*.
        threshold_aicc: by how much the hinge's AICc must be below the power law's.
        explained: least share of what differs between the levels' means that the curve must explain.
        holdout_coverage: least share of held-out cells inside their 95 % prediction intervals.
        one_code_version: refuse runs of different code versions (otherwise: listed).
        order: `replay_bound`, `domain_expansion`: names of the rows, from the first to the last; empty: by value.
        row: `domain_expansion`, `actors`: the config key that makes the rows.
        baseline: the row that others are compared with; empty: each with the one before (`domain_expansion`), or with
            `static` (`replay_bound`).
        resamples: bootstrap resamples. `permutations`: of the test for an effect. `seed`: of both.
    """

    name: str = "plan"
    kind: str = "throughput"
    metric: str = "error"
    split: str = "heldout_seeds"
    shares: tuple[float, ...] = (0.5, 1.0)
    exclusions: tuple[str, ...] = REASONS
    alpha: float = 0.05
    min_levels: int = 5
    min_seeds: int = 3
    min_span: float = 10.0
    level_tolerance: float = 0.15
    matched_d: bool = True
    equivalence: float = 0.05
    max_vif: float = 10.0
    threshold_levels: int = 2
    threshold_aicc: float = 2.0
    explained: float = 0.8
    holdout_coverage: float = 0.8
    one_code_version: bool = False
    order: tuple[str, ...] = ()
    row: str = "domain"
    baseline: str = ""
    resamples: int = 1000
    permutations: int = 4000
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_choices()
        positive = ("min_levels", "min_seeds", "threshold_levels", "resamples", "permutations")
        for key in positive:
            if getattr(self, key) < 1:
                raise LawError(f"plan: {key}={getattr(self, key)}: expected at least 1")
        if self.min_levels < 3:
            raise LawError(f"plan: min_levels={self.min_levels}: expected at least 3; two points are no curve")
        if not 0 < self.alpha < 0.5:
            raise LawError(f"plan: alpha={self.alpha}: expected more than 0 and less than 0.5")
        if self.permutations < 10 / self.alpha:
            raise LawError(
                f"plan: permutations={self.permutations}: expected at least 10 / alpha = {10 / self.alpha:g}; "
                "with fewer no p-value can be small enough"
            )
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise LawError(f"plan: shares={list(self.shares)}: expected numbers above 0, up to 1")
        for key in ("explained", "holdout_coverage"):
            if not 0 <= getattr(self, key) <= 1:
                raise LawError(f"plan: {key}={getattr(self, key)}: expected 0 to 1")

    def _check_choices(self) -> None:
        for key, allowed in (("kind", KINDS), ("metric", METRICS)):
            if getattr(self, key) not in allowed:
                raise LawError(f"plan: {key}={getattr(self, key)}: expected one of {', '.join(allowed)}")
        unknown = sorted(set(self.exclusions) - set(REASONS))
        if unknown:
            raise LawError(f"plan: exclusions: {unknown[0]}: expected some of {', '.join(REASONS)}")

    def hash(self) -> str:
        """12 hex digits over every field."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=6).hexdigest()


def load_plan(path: str | Path) -> Plan:
    """Read a plan. Raises `LawError` for an unreadable file, an unknown key, a wrong type or value."""
    try:
        tree = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise LawError(f"plan={path}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(tree, dict):
        raise LawError(f"plan={path}: expected a mapping of keys, as in docs/law.md")
    return plan_from(tree, str(path))


def plan_from(tree: dict[str, Any], where: str = "plan") -> Plan:
    """A plan from plain data. Raises `LawError` as `load_plan`."""
    known = {item.name: item for item in fields(Plan)}
    unknown = sorted(set(map(str, tree)) - set(known))
    if unknown:
        raise LawError(f"{where}: {unknown[0]}: unknown key; expected some of {', '.join(known)}")
    values: dict[str, Any] = {}
    for key, value in tree.items():
        default = known[key].default
        values[key] = _typed(f"{where}: {key}", value, default)
    return Plan(**values)


def _typed(key: str, value: object, default: object) -> object:
    """`value` as the type of `default`. Raises `LawError` if it is of another one."""
    if isinstance(default, tuple):
        if not isinstance(value, list):
            raise LawError(f"{key}={value!r}: expected a list")
        if default and isinstance(default[0], float):
            if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in value):
                raise LawError(f"{key}={value!r}: expected numbers")
            return tuple(float(each) for each in value)
        return tuple(str(each) for each in value)
    if isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise LawError(f"{key}={value!r}: expected {type(default).__name__}")
    return value
