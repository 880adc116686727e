"""An episode as the files of one zarr v3 group, and back.

Every array of the episode is a zarr array of one uncompressed chunk; what is no array lies in the group's attributes.
The files are written by the zarr v3 specification (https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html),
so that any zarr library opens them, without going through one: for arrays of 10 to 100 KB its bookkeeping costs a
hundred times the copy (docs/archive.md has the figures).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from embodichain.contracts import SCHEMA_VERSION, Episode, Recipe

ARRAYS = ("action", "proprio", "sim_state", "segment_id", "label_valid", "tokens", "rgb")  # time first
_SCALARS = ("instruction", "control_hz", "success", "tau", "encoder_id", "draws", "schema_version")
_MASKS = ("action_valid", "token_mask")
_DTYPES = ("float32", "float16", "int16", "bool", "uint8")


def group_file(attributes: dict[str, Any]) -> bytes:
    """`zarr.json` of a group."""
    return _json({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def encode(episode: Episode) -> dict[str, bytes]:
    """The files of an episode's group, by name below it. An array without entries is left out.

    Raises:
        ValueError: if the episode breaks its contract, or holds draws that are no JSON.
    """
    episode.check()
    masks = {name: getattr(episode, name) for name in _MASKS}
    attributes = {
        "recipe": json.loads(episode.recipe.to_json()),
        **{name: getattr(episode, name) for name in _SCALARS},
        **{name: None if mask is None else mask.astype(int).tolist() for name, mask in masks.items()},
    }
    files = {"zarr.json": group_file(attributes)}
    for name in ARRAYS:
        array = getattr(episode, name)
        if array is not None and array.size:
            files[f"{name}/zarr.json"] = _array_file(array)
            files[_chunk(name, array.ndim)] = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return files


def decode(files: dict[str, bytes]) -> Episode:
    """Inverse of `encode`; episodes of older schema versions are brought up to the present one.

    Raises:
        ValueError: for files that are no episode's, or one of an unknown schema version.
    """
    try:
        attributes = json.loads(files["zarr.json"])["attributes"]
        fields: dict[str, Any] = {name: attributes[name] for name in _SCALARS}
        fields["recipe"] = Recipe(**attributes["recipe"])
        for name in _MASKS:
            fields[name] = None if attributes[name] is None else np.array(attributes[name], dtype=bool)
        for name in ARRAYS:
            fields[name] = _array(name, files) if f"{name}/zarr.json" in files else None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"not an archived episode ({type(error).__name__}: {error})") from error
    if fields["sim_state"] is None:
        fields["sim_state"] = np.zeros((len(fields["action"]) + 1, 0), dtype=np.float32)
    episode = Episode(**migrate(fields))
    episode.check()
    return episode


def migrate(fields: dict[str, Any]) -> dict[str, Any]:
    """Bring the fields of an episode, one schema version after the other, to `SCHEMA_VERSION`.

    Raises:
        ValueError: for a version that is newer than this code, or that no migration is known for.
    """
    while fields["schema_version"] != SCHEMA_VERSION:
        version = fields["schema_version"]
        if version not in MIGRATIONS:
            raise ValueError(
                f"schema_version={version}: expected {SCHEMA_VERSION}, or one of {sorted(MIGRATIONS)} to migrate from"
            )
        fields = MIGRATIONS[version](fields) | {"schema_version": version + 1}
    return fields


def _label_all(fields: dict[str, Any]) -> dict[str, Any]:
    """1 -> 2: `label_valid` came with recoveries. Before them every step was the expert's own and may be imitated."""
    return fields | {"label_valid": np.ones(len(fields["action"]), dtype=bool)}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _label_all}


def _array_file(array: np.ndarray) -> bytes:
    """`zarr.json` of an array of one uncompressed little-endian chunk."""
    name = array.dtype.name
    if name not in _DTYPES:
        raise ValueError(f"dtype {name}: expected one of {', '.join(_DTYPES)}")
    bytes_codec: dict[str, Any] = {"name": "bytes"}
    if array.itemsize > 1:
        bytes_codec["configuration"] = {"endian": "little"}
    return _json(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": array.shape,
            "data_type": name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": array.shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": False if name == "bool" else 0,
            "codecs": [bytes_codec],
            "attributes": {},
        }
    )


def _array(name: str, files: dict[str, bytes]) -> np.ndarray:
    described = json.loads(files[f"{name}/zarr.json"])
    shape, dtype = tuple(described["shape"]), described["data_type"]
    chunk = described["chunk_grid"]["configuration"]["chunk_shape"]
    codecs = [codec["name"] for codec in described["codecs"]]
    if dtype not in _DTYPES or tuple(chunk) != shape or codecs != ["bytes"]:
        raise ValueError(f"{name}: {dtype} in chunks of {chunk}, codecs {codecs}; expected one uncompressed chunk")
    flat = np.frombuffer(files[_chunk(name, len(shape))], dtype=np.dtype(dtype).newbyteorder("<"))
    return flat.reshape(shape).astype(dtype, copy=False)


def _chunk(name: str, dims: int) -> str:
    return "/".join((name, "c", *["0"] * dims))


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
