"""Vectors of foreign datasets to the unified one. Owns: the mapping that a user writes down for a dataset of others.

    mapping = FeatureMap.from_config({
        "action": {"left.q1": "left_waist", "left.q2": 1, "left.gripper": {"from": 6, "scale": 0.01}},
        "state": {...},            # the same as `action` by default
        "cameras": ["cam_high"],   # all by default
    })

Each entry gives a number of the unified vector (`layout.UNIFIED_NAMES`: metres, radians, gripper in [0, 1] with 1 =
open) by its name or index in the dataset. Numbers that are not named stay zero, and actions among them are masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodichain.export.layout import ACTION, STATE, UNIFIED_NAMES

_KEYS = ("action", "state", "action_key", "state_key", "cameras")


@dataclass(frozen=True, kw_only=True)
class Dim:
    """Unified number = `scale` x dataset's number + `offset`; `source` is its name or its index there."""

    source: str | int
    scale: float = 1.0
    offset: float = 0.0

    @classmethod
    def from_config(cls, key: str, value: object) -> Dim:
        """From a name, an index, or `{"from": name or index, "scale": ..., "offset": ...}`. Raises `ValueError`."""
        if isinstance(value, str | int) and not isinstance(value, bool):
            return cls(source=value)
        if isinstance(value, Mapping) and "from" in value and set(value) <= {"from", "scale", "offset"}:
            rest = {name: float(value[name]) for name in ("scale", "offset") if name in value}
            return cls(source=value["from"], **rest)
        raise ValueError(f"mapping.{key}={value!r}: expected a name, an index, or from with scale and offset")


IDENTITY: Mapping[str, Dim] = {name: Dim(source=name) for name in UNIFIED_NAMES}


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """Which features of a dataset are read, and how its vectors become the unified one.

    Attributes:
        action: unified name -> where it comes from.
        state: likewise, of the measured state.
        action_key: the dataset's feature of actions: absolute targets.
        state_key: its feature of measured states.
        cameras: names after `observation.images.`; empty: all, in the dataset's order.
    """

    action: Mapping[str, Dim] = field(default_factory=lambda: IDENTITY)
    state: Mapping[str, Dim] = field(default_factory=lambda: IDENTITY)
    action_key: str = ACTION
    state_key: str = STATE
    cameras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in ("action", "state"):
            unknown = sorted(set(getattr(self, part)) - set(UNIFIED_NAMES))
            if unknown:
                raise ValueError(f"mapping.{part}.{unknown[0]}: expected some of {', '.join(UNIFIED_NAMES)}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FeatureMap:
        """From plain data, as in the module's example. Raises `ValueError` naming a wrong key."""
        unknown = sorted(set(config) - set(_KEYS))
        if unknown or "action" not in config:
            raise ValueError(f"mapping: {unknown or 'no action'}; expected action, and maybe {', '.join(_KEYS[1:])}")
        parts = {
            part: {name: Dim.from_config(f"{part}.{name}", value) for name, value in config[part].items()}
            for part in ("action", "state")
            if part in config
        }
        texts = {key: str(config[key]) for key in ("action_key", "state_key") if key in config}
        return cls(
            action=parts["action"],
            state=parts.get("state", parts["action"]),
            cameras=tuple(config.get("cameras", ())),
            **texts,
        )


class Columns:
    """A checked mapping of one feature: `unified` does it, `valid` bool[30] tells which numbers it gives.

    Raises `ValueError` naming the feature and the entry that its dataset does not have.
    """

    def __init__(self, dims: Mapping[str, Dim], key: str, feature: Mapping[str, Any]) -> None:
        width, names = int(feature["shape"][0]), _flat(feature.get("names"))
        self.valid = np.zeros(len(UNIFIED_NAMES), dtype=bool)
        self._from: list[int] = []
        for name, dim in dims.items():
            index = names.index(dim.source) if dim.source in names else dim.source
            if not isinstance(index, int) or not 0 <= index < width:
                raise ValueError(
                    f"mapping of {name}: {key} has no {dim.source!r}; expected an index below {width}"
                    + (f" or one of {', '.join(names)}" if names else "")
                    + " (a dataset of another robot needs a mapping of its own)"
                )
            self._from.append(index)
            self.valid[UNIFIED_NAMES.index(name)] = True
        self._to = [UNIFIED_NAMES.index(name) for name in dims]
        self._scale = np.array([dim.scale for dim in dims.values()], dtype=np.float32)
        self._offset = np.array([dim.offset for dim in dims.values()], dtype=np.float32)

    def unified(self, values: np.ndarray) -> np.ndarray:
        """f32[n, d] -> f32[n, 30]."""
        out = np.zeros((len(values), len(UNIFIED_NAMES)), dtype=np.float32)
        out[:, self._to] = values[:, self._from] * self._scale + self._offset
        return out


def _flat(names: Any) -> list[str]:
    """LeRobot writes names as a list, or as a dict of lists (`{"motors": [...]}`)."""
    if isinstance(names, Mapping):
        return [str(name) for group in names.values() for name in (group if isinstance(group, list) else [group])]
    return [str(name) for name in names or []]
