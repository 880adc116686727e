"""Cells from the folders of runs. Takes: paths. Hands on: one `Cell` per run, failed ones too, nothing dropped.

A folder needs `summary.json`; `config.yaml` and `cell.json` beside it say more. From `cell.json`, which a sweep writes:
`arm`, `plan_hash`. From `config.yaml`: `seed`, how the run was scored, and every key whose value varies between the
runs. docs/law.md has the schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from embodichain.law.cell import SCORING, Cell, LawError, Protocol, Reading, Scalar, SuccessRow

PLACES = ("name", "output", "storage", "archive", "seed", "ray", "placement", "mlflow")  # of a config: not compared
COPIES = "mlflow-artifacts"  # a run's files are attached to its record there


def read_cells(paths: Sequence[str | Path]) -> list[Cell]:
    """One cell per run below `paths`; a path is a run's folder or a folder of them (at any depth).

    Raises:
        LawError: there is no run, or a file cannot be read.
    """
    folders: dict[Path, None] = {}
    for path in map(Path, paths):
        found = _runs_below(path)
        if not found:
            raise LawError(f"{path}: no run there; expected a folder with summary.json, or one that holds such folders")
        folders.update(dict.fromkeys(found))
    if not folders:
        raise LawError("no runs given; expected at least one folder with summary.json")
    configs = {folder: _flat(_yaml(folder / "config.yaml")) for folder in folders}
    varying = _varying(list(configs.values()))
    return [_cell(folder, config, {k: config[k] for k in varying if k in config}) for folder, config in configs.items()]


def _runs_below(path: Path) -> list[Path]:
    """Folders of runs; a cell of a sweep that left no summary is one too, as failed."""
    if (path / "summary.json").is_file():
        return [path]
    found = {p.parent for name in ("summary.json", "cell.json") for p in path.rglob(name)}
    return sorted(folder for folder in found if COPIES not in folder.relative_to(path).parts)


def _unfinished(folder: Path, config: Mapping[str, Scalar], values: dict[str, Scalar]) -> Cell:
    """A cell that was begun and has no summary."""
    extra, state = _json(folder / "cell.json"), _json(folder / "state.json", missing_ok=True)
    return Cell(
        name=folder.name,
        path=str(folder),
        arm=str(extra.get("arm", "")),
        values=values,
        seed=int(extra.get("seed", config.get("seed")) or 0),
        status=str(state.get("status", "unfinished")),
        mlflow_run_id=state.get("mlflow_run_id"),
        plan_hash=str(extra.get("plan_hash", "")),
    )


def _cell(folder: Path, config: Mapping[str, Scalar], values: dict[str, Scalar]) -> Cell:
    if not (folder / "summary.json").is_file():
        return _unfinished(folder, config, values)
    summary, extra = _json(folder / "summary.json"), _json(folder / "cell.json", missing_ok=True)
    try:
        mode = str(config.get("replay.mode") or ("stream" if summary.get("reuse", {}).get("bound") else "static"))
        heldout, reuse = summary.get("heldout_error") or {}, summary.get("reuse") or {}
        cell = Cell(
            name=str(summary.get("name", folder.name)),
            path=str(folder),
            arm=str(extra.get("arm") or mode),
            values={**values, **extra.get("values", {})},
            seed=int(extra.get("seed", config.get("seed", summary.get("seed", 0))) or 0),
            status=str(summary.get("status", "unknown")) if not extra.get("failed") else f"failed: {extra['failed']}",
            readings=_readings(summary),
            model=str(summary.get("model", "")),
            parameters=summary.get("parameters"),
            mode=mode,
            reuse_bound=reuse.get("bound"),
            reuse_max=reuse.get("max"),
            error_first=heldout.get("first"),
            input_blind=heldout.get("input_blind"),
            generated_per_s=_generation_rate(summary),
            nodes=int(summary.get("nodes", 1)),
            stall_fraction=summary.get("stall_fraction"),
            mlflow_run_id=summary.get("mlflow_run_id"),
            config_hash=str(summary.get("config_hash", "")),
            code_version=str(summary.get("code_version", "")),
            plan_hash=str(extra.get("plan_hash", "")),
        )
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise LawError(f"{folder}/summary.json: not the summary of a run ({error!r})") from error
    return replace(cell, protocol=_protocol(cell, summary, config))


def _readings(summary: Mapping[str, Any]) -> tuple[Reading, ...]:
    """`readings` where the run wrote them; else the one that the summary itself is."""
    rows = summary.get("readings")
    if rows is None:
        steps = int(summary.get("learner_steps") or 0)
        heldout = summary.get("heldout_error") or {}
        if not steps:
            return ()
        unique = summary.get("unique_pairs")
        rows = [
            {
                "step": steps,
                "unique_pairs": steps * summary["experience_throughput"] if unique is None else unique,
                "pair_uses": summary.get("pair_uses"),
                "core_seconds": summary.get("core_seconds"),
                "error": heldout.get("last"),
                "errors": heldout.get("by_domain"),
                "success": summary.get("success") or [],
            }
        ]
    readings = [
        Reading(
            step=int(row["step"]),
            share=float(row.get("share", 1.0)),
            unique_pairs=float(row["unique_pairs"]),
            pair_uses=row.get("pair_uses"),
            core_seconds=_core_seconds(row.get("core_seconds")),
            error=row.get("error"),
            errors={key: value for key, value in (row.get("errors") or {}).items() if value is not None},
            success=tuple(_success(each) for each in row.get("success") or ()),
        )
        for row in rows
    ]
    return tuple(sorted(readings, key=lambda reading: reading.step))


def _success(row: Mapping[str, Any]) -> SuccessRow:
    outcomes = row.get("outcomes") or {}
    n = int(row["n"])
    k = int(row["k"]) if "k" in row else round(float(row["rate"]) * n)
    return SuccessRow(
        task=str(row["task"]),
        split=str(row.get("split", "")),
        domain=str(row.get("domain", "")),
        k=k,
        n=n,
        left_out=int(row.get("left_out") or 0),
        outcomes=tuple(sorted((int(seed), bool(solved)) for seed, solved in outcomes.items())),
    )


def _protocol(cell: Cell, summary: Mapping[str, Any], config: Mapping[str, Scalar]) -> Protocol:
    rows = cell.readings[-1].success if cell.readings else ()
    given: dict[str, Any] = {key: config[f"evaluation.{key}"] for key in SCORING if f"evaluation.{key}" in config}
    return Protocol(
        encoder=str(summary.get("encoder", "")),
        domains=tuple(sorted(row.key for row in rows)),
        unit=str((summary.get("heldout_error") or {}).get("unit", "")),
        **given,
    )


def _core_seconds(value: Any) -> float | None:
    """A number, or a mapping of parts (`generation`, `learner`) that add up."""
    if isinstance(value, Mapping):
        parts = [float(part) for part in value.values() if part is not None]
        return sum(parts) if parts and len(parts) == len(value) else None
    return None if value is None else float(value)


def _generation_rate(summary: Mapping[str, Any]) -> float | None:
    if summary.get("generation_rate") is not None:
        return float(summary["generation_rate"])
    generated, seconds = (summary.get("episodes") or {}).get("generated"), summary.get("wall_seconds")
    return generated / seconds if generated is not None and seconds else None


def _varying(configs: Sequence[Mapping[str, Scalar]]) -> list[str]:
    keys = sorted({key for config in configs for key in config if key.split(".")[0] not in PLACES})
    return [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`; lists become text."""
    flat: dict[str, Scalar] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = str(value) if isinstance(value, list) else value
    return flat


def _yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise LawError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(tree, dict):
        raise LawError(f"{path}: expected a mapping of keys")
    return tree


def _json(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    if missing_ok and not path.is_file():
        return {}
    try:
        tree = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LawError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(tree, dict):
        raise LawError(f"{path}: expected a JSON object")
    return tree
