"""A shard's memory on disk: contents, counters, ledger and random state in one `.npz` without pickles.

After a clean stop (nothing sampled since the save) a restored shard goes on bit for bit. After a crash the ledger
is ahead of the snapshot: then every pass started by then counts as used in full, as for a shard that comes back
empty, so the bound holds either way.
"""

from __future__ import annotations

import json
import uuid
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from embodichain.archive.storage import Location
from embodichain.contracts import Episode
from embodichain.replay.accounting import ReplayStats, ReuseAccounting
from embodichain.replay.choice import Held
from embodichain.replay.gather import Source, prepare
from embodichain.replay.schema import Schema
from embodichain.replay.store import ShardStore

FORMAT = 3
Arrays = dict[str, np.ndarray]
_ARRAYS = ("tokens", "token_mask", "proprio", "action", "action_valid", "label_valid", "changes")


class DamagedSnapshot(ValueError):
    """A file that is no whole snapshot; the message names it."""


def save(store: ShardStore, path: str | Path, *, contents: bool = True) -> None:
    """Write a store to `path` (`.npz`, any fsspec path), whole or not at all; sampling goes on meanwhile.

    Without `contents` the episodes' arrays are left out: whoever restores has them elsewhere.

    Raises:
        FileExistsError: the file has more of a fixed set than the store: whoever lost its part must not replace it.
        OSError: it could not be written.
    """
    name = uuid.uuid4().hex
    _keep_fuller(store, path)
    with store.limiter.condition:
        held = list(store.held.values())
        counters = [h.uses.copy() for h in held]
        meta = _meta(store, name)
        store.ledger.mark_save(name)
    arrays: dict[str, np.ndarray] = {"meta": np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)}
    for index, (item, uses) in enumerate(zip(held, counters, strict=True)):
        arrays[f"{index}.uses"] = uses
        if contents:
            arrays.update({f"{index}.{key}": getattr(item.source, key) for key in _ARRAYS})
    with Location.of(path).writing() as file:
        save_npz: Callable[..., None] = np.savez
        save_npz(file, **arrays)


def restore(store: ShardStore, path: str | Path, *, episode_of: Callable[[str], Episode] | None = None) -> bool:
    """Fill an empty store from `save`'s file.

    Args:
        store: the store.
        path: the file.
        episode_of: gives the episode of a recipe id, for a file without contents.

    Returns:
        True if the store goes on exactly where it was saved; False if something was sampled after the save, so that
        started passes were written off.

    Raises:
        ValueError: if the store is not empty, or was saved with other windows, mode or bound.
        DamagedSnapshot: if the file is not whole; the store is still empty then.
        FileNotFoundError: if there is no such file.
    """
    data = _read(path)
    with store.limiter.condition:
        meta = json.loads(data["meta"].tobytes())
        _check(store, meta, path)
        ledger = store.ledger
        exact = ledger.last_save == meta["save"] or not ledger.passes
        if not ledger.passes:
            for recipe_id, (length, passes) in meta["ledger"].items():
                ledger.record(recipe_id, length, passes)
            ledger.flush()
        store.rng.bit_generator.state = meta["rng"]
        store.schema = (
            Schema(**{**meta["schema"], "tokens": tuple(meta["schema"]["tokens"])}) if meta["schema"] else None
        )
        store.accounting = ReuseAccounting(ReplayStats.from_dict(meta["stats"]))
        store.seen.update(meta["seen"])
        store.limiter.load(meta["limiter"])
        store.complete = meta["complete"]
        if store.choice.rate is not None:
            store.choice.rate.credit = meta["credit"]
        for recipe_id in meta["choice"]:
            store.hold(_held(data, meta["held"][recipe_id], episode_of))
        for recipe_id in meta["order"]:
            store.held.move_to_end(recipe_id)
        if not exact:
            _write_off(store)
        return exact


def _keep_fuller(store: ShardStore, path: str | Path) -> None:
    """A fixed set only grows, so what holds less of it than its snapshot has lost some."""
    if store.config.mode != "static" or not Location.of(path).exists():
        return
    try:
        saved = len(json.loads(_read(path, contents=False)["meta"].tobytes())["held"])
    except DamagedSnapshot:
        return
    if saved > len(store.held):
        raise FileExistsError(
            f"{path}: holds {saved} episodes of the fixed set, expected at most the shard's {len(store.held)}; it stays"
        )


def _read(path: str | Path, *, contents: bool = True) -> Arrays:
    """All arrays of the file, or `meta` alone: whatever is wrong with it shows before the store has changed."""
    try:
        with Location.of(path).reading() as file, np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in ("meta", *(data.files if contents else ()))}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, AttributeError) as error:
        raise DamagedSnapshot(f"{path}: no whole snapshot of a shard ({error})") from error


def _meta(store: ShardStore, name: str) -> dict[str, Any]:
    held = {
        recipe_id: {
            "index": index,
            "instruction": item.source.instruction,
            "length": item.source.length,
            "tau": item.source.tau,
            "inserted_at": item.source.inserted_at,
            "recipe_id": recipe_id,
            "task": item.task,
            "passes": item.passes,
            "tiles": item.tiles,
            "window_index": item.window_index,
            "priority": item.priority,
        }
        for index, (recipe_id, item) in enumerate(store.held.items())
    }
    return {
        "format": FORMAT,
        "save": name,
        "settings": _settings(store),
        "schema": asdict(store.schema) if store.schema else None,
        "rng": store.rng.bit_generator.state,
        "stats": asdict(store.accounting.stats),
        "limiter": store.limiter.state(),
        "ledger": {r: (store.ledger.lengths[r], p) for r, p in store.ledger.passes.items()},
        "seen": sorted(store.seen),
        "held": held,
        "order": list(store.held),
        "choice": store.choice.keys(),
        "credit": store.choice.rate.credit if store.choice.rate is not None else 0.0,
        "complete": store.complete,
    }


def _settings(store: ShardStore) -> dict[str, Any]:
    return {
        "window": asdict(store.window),
        "max_reuse": store.config.max_reuse,
        "mode": store.config.mode,
        "shard": store.shard,
    }


def _check(store: ShardStore, meta: dict[str, Any], path: str | Path) -> None:
    if store.held:
        raise ValueError(f"{path}: the shard holds {len(store.held)} episodes already, expected an empty one")
    if meta["format"] != FORMAT:
        raise ValueError(f"{path}: format {meta['format']}, expected {FORMAT}")
    for name, value in _settings(store).items():
        if meta["settings"][name] != value:
            raise ValueError(
                f"{path}: saved with {name}={meta['settings'][name]!r}, expected {value!r}; the passes in it would not "
                "mean the same"
            )


def _source(data: Arrays, entry: dict[str, Any]) -> Source:
    arrays = {key: data[f"{entry['index']}.{key}"] for key in _ARRAYS}
    return Source(
        recipe_id=entry["recipe_id"],
        instruction=entry["instruction"],
        length=entry["length"],
        tau=entry["tau"],
        inserted_at=entry["inserted_at"],
        **arrays,
    )


def _held(data: Arrays, entry: dict[str, Any], episode_of: Callable[[str], Episode] | None) -> Held:
    index = entry["index"]
    if episode_of is None:
        source = _source(data, entry)
    else:
        source = prepare(episode_of(entry["recipe_id"]), entry["inserted_at"])
    return Held(
        source=source,
        task=entry["task"],
        uses=data[f"{index}.uses"],
        passes=entry["passes"],
        tiles=[(int(start), int(stop)) for start, stop in entry["tiles"]],
        window_index=entry["window_index"],
        priority=entry["priority"],
    )


def _write_off(store: ShardStore) -> None:
    """Treat every pass that the ledger knows as used in full, and let go of what has none left."""
    for recipe_id, held in list(store.held.items()):
        started = max(held.passes, store.ledger.started(recipe_id))
        before = int(held.uses.sum())
        while int(held.uses.min()) < started:
            behind = np.flatnonzero(held.uses < started)
            counters = held.uses[behind]
            store.accounting.assume(held.task, counters)
            held.uses[behind] = counters
        held.passes, held.tiles = started, []
        store.limiter.sample(int(held.uses.sum()) - before)
        if store.config.mode == "stream" and started >= store.config.max_reuse:
            store.drop(recipe_id, exhausted=True)
        else:
            store.place(held)
