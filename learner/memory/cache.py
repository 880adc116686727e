"""The baselines: attention over cached keys and values of all past frames (`kv`), or of the last few (`window`).

Slots are observed or predicted, as in LingBot-VA's cache: predicted ones lie at the end, and the next observation
purges them. Positions are frame numbers and enter by rotation (RoPE), so only distances in time count and a window
may start anywhere. One slot with a zero key and a zero value is always seen, so that an empty memory reads as zero.
Shapes: h heads, S slots, d key width of all heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from learner.config import MemoryConfig
from learner.memory.interface import MemoryLayer


@dataclass(frozen=True, kw_only=True)
class CacheState:
    """State of one cache.

    Attributes:
        keys, values: [B, h, S, d/h], keys rotated by their frames; the always-seen slot first.
        seen: bool[B, S], slots that hold something.
        frames: observed so far, cached or not.
        predicted: of the S slots, how many at the end are predictions.
    """

    keys: Tensor
    values: Tensor
    seen: Tensor
    frames: int
    predicted: int = 0


class CacheLayer(MemoryLayer[CacheState]):
    """A key-value cache that is read by attention; grows with every frame, or keeps the last `config.window`."""

    frequency: Tensor

    def __init__(self, width: int, config: MemoryConfig) -> None:
        super().__init__(width, config)
        half = config.dim // config.heads // 2
        self.register_buffer("frequency", 1e4 ** (-torch.arange(half) / max(half, 1)), persistent=False)

    @property
    def reach(self) -> int | None:
        """Frames that are kept, the present one included; None: all."""
        return self.config.window if self.config.kind == "window" else None

    def start(self, batch: int) -> CacheState:
        """See `MemoryLayer.start`."""
        empty = self.theta_q.weight.new_zeros(batch, self.config.heads, 1, self.config.dim // self.config.heads)
        seen = torch.ones(batch, 1, dtype=torch.bool, device=empty.device)
        return CacheState(keys=empty, values=empty, seen=seen, frames=0)

    def write(self, state: CacheState, written: Tensor, exists: Tensor) -> CacheState:
        """See `MemoryLayer.write`."""
        state = self.purge(state)
        state = self._append(state, written, exists, state.frames)
        state = CacheState(keys=state.keys, values=state.values, seen=state.seen, frames=state.frames + 1)
        kept = None if self.reach is None else self.reach * written.shape[1]
        if kept is None or state.seen.shape[1] <= 1 + kept:
            return state
        return CacheState(
            keys=torch.cat((state.keys[:, :, :1], state.keys[:, :, -kept:]), dim=2),
            values=torch.cat((state.values[:, :, :1], state.values[:, :, -kept:]), dim=2),
            seen=torch.cat((state.seen[:, :1], state.seen[:, -kept:]), dim=1),
            frames=state.frames,
        )

    def fork(self, state: CacheState, imagined: Tensor, shown: Tensor) -> CacheState:
        """See `MemoryLayer.fork`: the imagined tokens fill predicted slots."""
        forked = self._append(state, self.norm(imagined), shown, state.frames)
        predicted = state.predicted + imagined.shape[1]
        return CacheState(
            keys=forked.keys, values=forked.values, seen=forked.seen, frames=state.frames, predicted=predicted
        )

    def purge(self, state: CacheState) -> CacheState:
        """The state without its predicted slots."""
        if not state.predicted:
            return state
        kept = state.seen.shape[1] - state.predicted
        return CacheState(
            keys=state.keys[:, :, :kept],
            values=state.values[:, :, :kept],
            seen=state.seen[:, :kept],
            frames=state.frames,
        )

    def read(self, state: CacheState, x: Tensor) -> Tensor:
        """See `MemoryLayer.read`; the reader stands at the last observed frame."""
        now = x.new_tensor(float(state.frames - 1))
        q = self._rotate(self._split(self.theta_q(self.norm(x))), now)
        read = F.scaled_dot_product_attention(
            q, state.keys.to(q.dtype), state.values.to(q.dtype), attn_mask=state.seen[:, None, None]
        )
        return self.gate(x, self._join(read))

    def scan(
        self, context: Tensor, written: Tensor, exists: Tensor, condition: Tensor | None, shown: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `MemoryLayer.scan`: one attention under a mask that is causal over frames."""
        b, frames, n = context.shape[:3]
        t = torch.arange(frames, device=context.device)
        x, times = context.flatten(1, 2), t.repeat_interleave(n)
        slots, slot_times, seen = written.flatten(1, 2), times, exists.repeat_interleave(n, 1)
        age = times[:, None] - times[None, :]
        mask = (age >= 0) & (age < (self.reach or frames))
        if condition is not None and shown is not None:
            c = condition.shape[2]
            imagined, own = condition.flatten(1, 2), t.repeat_interleave(c)
            x, times = torch.cat((x, imagined), dim=1), torch.cat((times, own))
            slots = torch.cat((slots, self.norm(imagined)), dim=1)
            slot_times = torch.cat((slot_times, own + 1))
            seen = torch.cat((seen, shown.repeat_interleave(c, 1)), dim=1)
            past = own[:, None] - slot_times[None, : frames * n]
            old = (past >= 0) & (past < (self.reach or frames))
            top = torch.cat((mask, mask.new_zeros(frames * n, frames * c)), dim=1)
            mask = torch.cat((top, torch.cat((old, own[:, None] == own[None, :]), dim=1)))
        start = self.start(b)
        keys, values = self._slots(slots, slot_times)
        q = self._rotate(self._split(self.theta_q(self.norm(x))), times)
        every = torch.cat((seen.new_ones(b, len(times), 1), mask[None] & seen[:, None]), dim=2)
        read = F.scaled_dot_product_attention(
            q,
            torch.cat((start.keys.to(keys.dtype), keys), dim=2),
            torch.cat((start.values.to(values.dtype), values), dim=2),
            attn_mask=every[:, None],
        )
        x = self.gate(x, self._join(read))
        new = x[:, : frames * n].unflatten(1, (frames, n))
        return new, None if condition is None else x[:, frames * n :].unflatten(1, (frames, -1))

    def _append(self, state: CacheState, tokens: Tensor, exists: Tensor, frame: int) -> CacheState:
        keys, values = self._slots(tokens, tokens.new_tensor(float(frame)))
        return CacheState(
            keys=torch.cat((state.keys, keys.to(state.keys.dtype)), dim=2),
            values=torch.cat((state.values, values.to(state.values.dtype)), dim=2),
            seen=torch.cat((state.seen, exists[:, None].expand(-1, tokens.shape[1])), dim=1),
            frames=state.frames,
            predicted=state.predicted,
        )

    def _slots(self, z: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, h, n, d/h] of normalised tokens [B, n, D] of frames `times` [n] or []."""
        k, v = self.theta_kv(z).chunk(2, dim=-1)
        return self._rotate(self._split(k), times), self._split(v)

    def _rotate(self, x: Tensor, times: Tensor) -> Tensor:
        """Rotary position: pairs of entries of x [B, h, n, d/h] turned by times * frequency."""
        angle = times.to(self.frequency.dtype).unsqueeze(-1) * self.frequency
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)

    def _split(self, t: Tensor) -> Tensor:
        """[B, n, d] -> [B, h, n, d/h]."""
        return t.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)

    def _join(self, t: Tensor) -> Tensor:
        """[B, h, n, d/h] -> [B, n, d]."""
        return t.transpose(1, 2).flatten(2)
