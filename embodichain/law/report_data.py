"""`report.json`: the analysis as plain data. Its schema is in docs/law.md."""

from __future__ import annotations

import math
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from embodichain.law.analysis import Analysis
from embodichain.law.cell import Cell
from embodichain.law.compare import Comparison
from embodichain.law.tables import Table
from embodichain.law.verdict import GroupResult

SCHEMA = 1


def as_data(analysis: Analysis) -> dict[str, Any]:
    """Everything that the report says, JSON-able; numbers that are not known are null."""
    verdict = analysis.verdict
    return plain(
        {
            "schema": SCHEMA,
            "plan": asdict(analysis.plan),
            "plan_hash": analysis.plan.hash(),
            "verdict": None if verdict is None else verdict.name,
            "headline": None if verdict is None else verdict.headline,
            "criteria": [] if verdict is None else [asdict(each) for each in verdict.criteria],
            "threshold_groups": [] if verdict is None else verdict.threshold_groups,
            "groups": [_group(result) for result in (*analysis.results, *analysis.by_compute)],
            "matched_d": None if analysis.matched is None else asdict(analysis.matched),
            "crossing": None if analysis.crossed is None else asdict(analysis.crossed),
            "tables": [_table(each) for each in analysis.tables],
            "deviations": analysis.deviations,
            "notes": analysis.admitted.notes,
            "excluded": [
                {"run": each.cell.path, "reason": each.reason, "detail": each.detail}
                for each in analysis.admitted.exclusions
            ],
            "cells": [_cell(cell) for cell in analysis.admitted.cells],
        }
    )


def plain(value: Any) -> Any:
    """JSON-able: arrays become lists, NaN and infinity null, tuples lists; floats keep ten significant digits."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return value


def _group(result: GroupResult) -> dict[str, Any]:
    group, comparison = result.group, result.comparison
    return {
        "label": group.label,
        "view": group.view,
        "budget": group.budget,
        "share": group.share,
        "model": group.model,
        "parameters": group.parameters,
        "metric": result.metric,
        "too_small": result.short,
        "effect": {**asdict(result.effect), "p_holm": result.p_holm},
        "shown": result.preferred,
        "fits": {} if comparison is None else _fits(comparison),
        "threshold": None
        if comparison is None or comparison.threshold is None
        else {
            **asdict(comparison.threshold),
            "p_holm": result.p_threshold,
            "found": result.has_threshold,
            "criteria": [asdict(each) for each in result.threshold],
        },
        "holdout": None
        if result.holdout is None
        else {key: getattr(result.holdout, key) for key in ("coverage", "splits", "nominal", "possible")},
        "noise": asdict(result.noise),
        "points": [
            {
                "run": point.cell.path,
                "level": point.level,
                "E": point.reading.throughput,
                "D": point.reading.unique_pairs,
                "steps": point.reading.step,
                "error": point.reading.error,
                "k": point.k,
                "n": point.n,
            }
            for point in group.points
        ],
        "missing": group.missing,
    }


def _fits(comparison: Comparison) -> dict[str, Any]:
    return {
        name: {
            "curve": each.name,
            "parameters": {
                key: {"estimate": value, "low": low, "high": high, "at_bound": each.at_bound[key]}
                for key, (value, low, high) in each.parameters.items()
            },
            "aicc": each.aicc,
            "noise": each.noise,
            "explained": each.explained,
            "left_out_seed": each.left_out_seed,
            "left_out_level": each.left_out_level,
            "residuals": each.residuals,
        }
        for name, each in comparison.fits.items()
    }


def _table(each: Table) -> dict[str, Any]:
    return {
        "name": each.name,
        "rows": [
            {
                "row": row,
                "runs": [cell.path for cell in each.cells[row]],
                "success": {
                    column: asdict(each.rates[row, column]) for column in each.columns if (row, column) in each.rates
                },
                "numbers": {name: each.numbers.get((row, name)) for name in each.number_names},
            }
            for row in each.rows
        ],
        "comparisons": [asdict(comparison) for comparison in each.comparisons],
        "errors": [asdict(comparison) for comparison in each.errors],
        "input_blind": each.input_blind,
        "notes": each.notes,
        "paper": each.paper,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "name": cell.name,
        "path": cell.path,
        "arm": cell.arm,
        "values": cell.values,
        "seed": cell.seed,
        "model": cell.model,
        "parameters": cell.parameters,
        "mode": cell.mode,
        "reuse_bound": cell.reuse_bound,
        "reuse_max": cell.reuse_max,
        "experience_throughput": cell.throughput,
        "config_hash": cell.config_hash,
        "code_version": cell.code_version,
        "mlflow_run_id": cell.mlflow_run_id,
        "plan_hash": cell.plan_hash,
    }
