"""Held-out action error in radians or metres, beside that of a model that ignores its input.

Measured on a fixed set of windows, on the first tau steps of each chunk: what a policy would execute before it looks
again. Only joint angles (`control: joint`) or tool positions (`control: eef`) count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from learner.batch import TensorBatch
from learner.interface import WorldActionModel

HELDOUT_NOISE_SEED = 20_000  # of the sampling noise, the same for every checkpoint


@dataclass(frozen=True, kw_only=True)
class HeldoutError:
    """Mean absolute errors over a held-out set.

    Attributes:
        action: in `unit`, sampled chunk against the expert's.
        input_blind: in `unit`, the training mean chunk against the expert's.
        frame: normalised units, root mean square of the imagined next frame; nan from a model without a world model.
        frame_copy: the same for repeating the present frame; nan likewise.
        unit: `rad` (joint codec: joint angles) or `m` (eef codec: tool positions).
    """

    action: float
    input_blind: float
    frame: float
    frame_copy: float
    unit: str = "rad"

    def record(self) -> dict[str, float | str | None]:
        """The errors as JSON can hold them: None where that of the action is not finite, as of a diverged model.

        Errors of a frame are left out then, as they are where none is imagined.
        """
        kept: dict[str, float | str | None] = {}
        for name, value in asdict(self).items():
            if isinstance(value, str) or math.isfinite(value):
                kept[name] = value
            elif name in ("action", "input_blind"):
                kept[name] = None
        return kept


def first_and_last(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """First and last action error of checkpoints' records, each with its `step`, and the last input-blind one.

    That model is the training mean, so the last checkpoint's has seen most. None where one is not finite, which records
    of before left out; empty without records.
    """
    if not records:
        return {}
    ordered = sorted(records, key=lambda record: record["step"])
    return {
        "first": ordered[0].get("action"),
        "last": ordered[-1].get("action"),
        "input_blind": ordered[-1].get("input_blind"),
        "unit": ordered[-1]["unit"],
    }


@torch.no_grad()
def heldout_error(model: WorldActionModel, batch: TensorBatch, rng: torch.Generator) -> HeldoutError:
    """Errors of `model` over every frame of `batch`, with its memory run over the window.

    Args:
        model: in evaluation use; its memory starts empty at each window.
        batch: B held-out windows.
        rng: sampling noise.

    Raises:
        ValueError: if the batch does not fit the model, or holds no joint action at all.
    """
    batch.check(model.data)
    p, tau = model.preprocess, model.data.tau
    sums = {"action": 0.0, "blind": 0.0, "frame": 0.0, "copy": 0.0}
    pairs, entries = 0.0, 0.0
    memory = model.initial_memory(batch.size)
    for t in range(batch.frames):
        frame = batch.frame(t)
        seen = batch.frame_mask[:, t]
        memory = model.observe(memory, frame, batch.previous_action[:, t], batch.previous_mask[:, t], exists=seen)
        imagined = model.imagine(memory, frame, rng)
        chunk = model.act(memory, frame, imagined if model.config.condition.use else None, rng)
        mask = batch.action_mask[:, t, :tau, None] & p.codec.error_valid(batch.action_valid)[:, None]
        mask = mask & seen[:, None, None]
        expert = batch.action[:, t, :tau]
        mean_chunk = p.codec.decode(p.action.shift[:tau].expand(batch.size, -1, -1), frame.proprio)
        sums["action"] += _total(p.codec.error(chunk[:, :tau], expert), mask)
        sums["blind"] += _total(p.codec.error(mean_chunk, expert), mask)
        pairs += float(mask.sum())
        if imagined is not None:
            if model.config.flow.video_stop < 1.0:
                imagined = model.imagine(memory, frame, rng, stop=1.0)
                assert imagined is not None
            both = (seen & batch.frame_mask[:, t + 1])[:, None, None] & batch.token_mask[..., None]
            true = p.token.normalise(batch.tokens[:, t + 1])
            both = both.expand_as(true)
            sums["frame"] += _total((p.token.normalise(imagined) - true).square(), both)
            sums["copy"] += _total((p.token.normalise(batch.tokens[:, t]) - true).square(), both)
            entries += float(both.sum())
    if pairs == 0:
        raise ValueError("heldout batch: no joint action exists in it, expected at least one")
    nan = float("nan")
    return HeldoutError(
        action=sums["action"] / pairs,
        input_blind=sums["blind"] / pairs,
        frame=(sums["frame"] / entries) ** 0.5 if entries else nan,
        frame_copy=(sums["copy"] / entries) ** 0.5 if entries else nan,
        unit=p.codec.unit,
    )


def _total(error: Tensor, mask: Tensor) -> float:
    return float(torch.where(mask, error, 0.0).sum())
