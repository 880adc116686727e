"""Checkpoints: safetensors for every array, one JSON for the rest; enough to resume bit for bit.

A checkpoint is a folder on any fsspec path. On a local disk it is written under another name and renamed when complete;
elsewhere `checkpoint.json`, without which there is no checkpoint, is written last. So a reader never meets a torn one:

    checkpoint.json       format, settings, counters, encoder ids, the caller's extra data
    ema.safetensors       averaged weights and buffers: all that evaluation and serving read
    model.safetensors     weights and buffers in training
    optimiser.safetensors AdamW state by parameter name, and the states of all ranks' noise generators
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
import types
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor, nn

from embodichain.archive.storage import Location
from learner.build import build_model
from learner.config import DataSpec, ModelConfig, TrainConfig
from learner.parallel import Ranks, like, whole
from learner.train_step import Model, TrainState

FORMAT = 2  # 1: what memories are written with had a gain
MARKER = "checkpoint.json"
ABANDONED_S = 86_400.0  # no save pauses for so long
_HALF_DONE = re.compile(r"\.step_\d+\.(partial|old)-((?P<host>.+)-)?(?P<pid>\d+)")  # older versions named no host
Place = str | Path
P = TypeVar("P", str, Path)


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What `checkpoint.json` says.

    Attributes:
        model: settings the model was built with. `data`: what it reads. `train`: optimisation settings.
        steps: batches seen. `updates`: optimiser steps. `skipped`: batches with a non-finite gradient.
        extra: the caller's own JSON-able data (run name, git commit, replay counters).
    """

    model: ModelConfig
    data: DataSpec
    train: TrainConfig
    steps: int
    updates: int
    skipped: int
    extra: dict[str, Any]


def save_checkpoint(path: P, state: TrainState, extra: dict[str, Any] | None = None) -> P:
    """Write `state` to the folder `path`, replacing one that is there; returns `path`.

    Every rank calls it, since a sharded state is gathered from all of them; rank 0 writes.

    Args:
        path: folder to make; its parent is made too.
        state: training state.
        extra: JSON-able data to keep beside it.
    """
    info = {
        "format": FORMAT,
        "model": asdict(state.model.config),
        "data": asdict(state.model.data),
        "train": asdict(state.config),
        "steps": state.steps,
        "updates": state.updates,
        "skipped": state.skipped,
        "extra": extra or {},
    }
    arrays = {"ema": _arrays(state.ema), "model": _arrays(state.model), "optimiser": _optimiser_arrays(state)}
    if state.ranks.rank != 0:
        return path
    place = Location.of(path)
    if place.local is not None:
        _save_folder(place.local, arrays, json.dumps(info, indent=2))
        return path
    (place / MARKER).remove()  # what was there is no checkpoint from here on
    for name, tensors in arrays.items():
        (place / f"{name}.safetensors").write_bytes(save(tensors))
    (place / MARKER).write_bytes(json.dumps(info, indent=2).encode())
    return path


def _save_folder(path: Path, arrays: dict[str, dict[str, Tensor]], info: str) -> None:
    """On a local disk: all of it beside `path`, then one rename. What savers that were killed left there goes first."""
    _remove_abandoned(path.parent)
    saver = f"{socket.gethostname()}-{os.getpid()}"
    work = path.with_name(f".{path.name}.partial-{saver}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name, tensors in arrays.items():
        save_file(tensors, work / f"{name}.safetensors")
    (work / MARKER).write_text(info)
    old = path.with_name(f".{path.name}.old-{saver}")
    if path.exists():
        path.rename(old)
    work.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Delete what killed savers of a `step_N` have left in a folder: each as large as a checkpoint, read by nobody."""
    for left in folder.glob(".step_*"):
        name = _HALF_DONE.fullmatch(left.name)
        if name is not None and left.is_dir() and _abandoned(left, name["host"], int(name["pid"])):
            shutil.rmtree(left, ignore_errors=True)


def _abandoned(left: Path, host: str | None, pid: int) -> bool:
    """Whether nobody can be writing there any more.

    On this host: its process is gone, or its number is our own (we save one at a time). Processes of other hosts that
    share the folder cannot be seen from here: theirs count only once nothing in them has changed for `ABANDONED_S`.
    """
    if host == socket.gethostname() and (pid == os.getpid() or not _alive(pid)):
        return True
    try:
        changed = max(each.stat().st_mtime for each in (left, *left.iterdir()))
    except OSError:  # its saver renames or removes it at this moment
        return False
    return time.time() - changed > ABANDONED_S


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def list_checkpoints(place: Place) -> list[int]:
    """N of every whole checkpoint `step_N` in a folder on any fsspec path, ascending."""
    folder = Location.of(place)
    steps = (name.removeprefix("step_") for name in folder.names() if name.startswith("step_"))
    return sorted(int(n) for n in steps if n.isdecimal() and (folder / f"step_{n}" / MARKER).exists())


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint of this machine: from the first moment on it counts as none."""
    (folder / MARKER).unlink()
    shutil.rmtree(folder)


def read_info(path: Place) -> CheckpointInfo:
    """The settings and counters of a checkpoint, without its arrays.

    Raises:
        ValueError: if the folder is no checkpoint, or one of another format or with unknown settings.
    """
    try:
        raw = json.loads((Location.of(path) / MARKER).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"checkpoint {path}: no checkpoint.json in it, expected a folder that save_checkpoint wrote"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"checkpoint {path}: checkpoint.json is not valid JSON ({error})") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else raw
        older = isinstance(found, int) and found < FORMAT
        way = "; an older version made it, and that can still read it" if older else ""
        raise ValueError(f"checkpoint {path}: format {found!r}, expected {FORMAT}{way}")
    try:
        return CheckpointInfo(
            model=_from_json(ModelConfig, raw["model"], "model"),
            data=_from_json(DataSpec, raw["data"], "data"),
            train=_from_json(TrainConfig, raw["train"], "train"),
            **{name: raw[name] for name in ("steps", "updates", "skipped", "extra")},
        )
    except KeyError as error:
        raise ValueError(f"checkpoint {path}: checkpoint.json lacks {error}") from error
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from error


def load_model(path: Place, *, encoder_id: str | None = None, device: torch.device | str = "cpu") -> Model:
    """The averaged model of a checkpoint, ready to act.

    Args:
        path: checkpoint folder.
        encoder_id: of the encoder that will feed it, or None to skip the comparison.
        device: where to put it.

    Raises:
        ValueError: for a folder that is no whole checkpoint, or another encoder's.
    """
    info = read_info(path)
    if encoder_id is not None and encoder_id != info.data.encoder_id:
        raise ValueError(
            f"checkpoint {path}: trained on tokens of encoder {info.data.encoder_id!r}, asked to read {encoder_id!r}"
        )
    model = build_model(info.model, info.data)
    _fill(model, _read(path, "ema"), path)
    return model.to(device).requires_grad_(False).eval()


def from_pretrained(path: Place, *, device: torch.device | str = "cpu") -> Model:
    """The averaged model of a checkpoint, or of the latest one of a run, ready to act.

    Args:
        path: `runs/<name>/checkpoints/step_N`, or a folder that holds `checkpoints`; any fsspec path.
        device: where to put it.

    Raises:
        ValueError: if there is no whole checkpoint.
    """
    place = Location.of(path)
    if not (place / MARKER).exists():
        steps = list_checkpoints(str(place / "checkpoints"))
        if steps:
            return load_model(str(place / "checkpoints" / f"step_{steps[-1]}"), device=device)
    return load_model(path, device=device)


def load_state(
    path: Place, *, data: DataSpec | None = None, device: torch.device | str = "cpu", ranks: Ranks | None = None
) -> tuple[TrainState, CheckpointInfo]:
    """The training state of a checkpoint: going on from it equals never having stopped.

    Args:
        path: checkpoint folder.
        data: what the coming batches look like, or None to skip the comparison.
        device: where to put it.
        ranks: who else goes on with it, as many as wrote it or not: noise belongs to micro-batches, and those that
            nobody had start from their own seeds, moved on by the number of steps.

    Raises:
        ValueError: for a folder that is no whole checkpoint, or one of other data, naming the field.
    """
    info = read_info(path)
    for field in fields(DataSpec):
        if data is not None and getattr(data, field.name) != getattr(info.data, field.name):
            raise ValueError(
                f"checkpoint {path}: data.{field.name}={getattr(info.data, field.name)!r}, "
                f"this run has {getattr(data, field.name)!r}"
            )
    models = []
    for part in ("model", "ema"):
        models.append(build_model(info.model, info.data).to(device))
        _fill(models[-1], _read(path, part), path)
    state = TrainState(models[0], info.train, ema=models[1], ranks=ranks)
    state.steps, state.updates, state.skipped = info.steps, info.updates, info.skipped
    _fill_optimiser(state, _read(path, "optimiser"), path)
    return state, info


def _arrays(model: nn.Module) -> dict[str, Tensor]:
    return {name: whole(tensor.detach()).cpu().contiguous() for name, tensor in model.state_dict().items()}


def _optimiser_arrays(state: TrainState) -> dict[str, Tensor]:
    generators = state.ranks.merged(state.slots.states())
    arrays = {f"rng/{slot}": generator for slot, generator in generators.items()}
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimiser.state.get(parameter, {}).items():
            arrays[f"{key}/{name}"] = whole(value.detach()).cpu().contiguous()
    return arrays


def _read(path: Place, part: str) -> dict[str, Tensor]:
    file = Location.of(path) / f"{part}.safetensors"
    try:
        return load_file(file.local) if file.local is not None else load(file.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"checkpoint {path}: no {file.name} in it, expected a whole checkpoint") from error
    except SafetensorError as error:
        raise ValueError(f"checkpoint {path}: {file.name} is damaged ({error})") from error


def _fill(model: nn.Module, arrays: dict[str, Tensor], path: Place) -> None:
    own = model.state_dict()
    if set(own) != set(arrays):
        odd = sorted(set(own) ^ set(arrays))
        raise ValueError(f"checkpoint {path}: arrays differ from the model's, {len(odd)} of them, first {odd[0]!r}")
    for name, tensor in arrays.items():
        have, want = list(tensor.shape), list(own[name].shape)
        if have != want:
            raise ValueError(f"checkpoint {path}: {name} has shape {have}, expected {want}")
    model.load_state_dict(arrays)


def _fill_optimiser(state: TrainState, arrays: dict[str, Tensor], path: Place) -> None:
    generators = {name.removeprefix("rng/"): value for name, value in arrays.items() if name.startswith("rng/")}
    if "0" not in generators:
        raise ValueError(
            f"checkpoint {path}: optimiser.safetensors lacks 'rng/0', the noise generator's state; a checkpoint of an "
            "older version can be evaluated and served, but training cannot go on from it"
        )
    state.slots.restore(generators, state.steps)
    parameters = dict(state.model.named_parameters())
    for name, value in arrays.items():
        if name.startswith("rng/"):
            continue
        key, _, parameter_name = name.partition("/")
        if parameter_name not in parameters:
            raise ValueError(f"checkpoint {path}: optimiser state for unknown parameter {parameter_name!r}")
        parameter = parameters[parameter_name]
        state.optimiser.state[parameter][key] = like(value, parameter)


def _from_json(cls: Any, raw: Any, where: str) -> Any:
    """A settings dataclass from its JSON form; `ValueError` names a key that is unknown, missing or wrong."""
    types_of = typing.get_type_hints(cls)
    if not isinstance(raw, dict):
        raise ValueError(f"{where}={raw!r:.80}: expected a mapping of keys")
    unknown = sorted(set(raw) - set(types_of))
    if unknown:
        raise ValueError(f"{where}.{unknown[0]}: unknown key, expected one of {', '.join(sorted(types_of))}")
    values = {}
    try:
        for name, value in raw.items():
            kind = types_of[name]
            if is_dataclass(kind):
                value = _from_json(kind, value, f"{where}.{name}")
            elif isinstance(kind, types.GenericAlias) and typing.get_origin(kind) is tuple:
                value = tuple(value)
            values[name] = value
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
