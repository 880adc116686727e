"""Exact replay: does a recipe give the same episode again, bit for bit?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodichain.contracts import Episode


@dataclass(frozen=True, kw_only=True)
class ReplayDifference:
    """The first place where two episodes of one recipe differ.

    Attributes:
        field: name of the episode field.
        detail: what differs, for a person.
    """

    field: str
    detail: str


def compare_episodes(first: Episode, second: Episode) -> list[ReplayDifference]:
    """Every field in which the episodes differ; empty means bit-exact in state, action, rgb and verdict."""
    differences = []
    for name in ("action", "proprio", "sim_state", "segment_id", "label_valid", "tokens", "rgb"):
        a, b = getattr(first, name), getattr(second, name)
        if (a is None) != (b is None):
            differences.append(ReplayDifference(field=name, detail="present in only one of the two"))
        elif a is not None and (a.shape != b.shape or a.dtype != b.dtype):
            differences.append(ReplayDifference(field=name, detail=f"{a.dtype}{a.shape} against {b.dtype}{b.shape}"))
        elif a is not None and a.tobytes() != b.tobytes():
            step = int(np.argwhere(a != b)[0][0]) if np.any(a != b) else -1
            largest = float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64))))
            differences.append(
                ReplayDifference(field=name, detail=f"first at step {step}, largest difference {largest:.3g}")
            )
    for name in ("instruction", "success"):
        if getattr(first, name) != getattr(second, name):
            differences.append(
                ReplayDifference(field=name, detail=f"{getattr(first, name)!r} against {getattr(second, name)!r}")
            )
    return differences
