"""What the models read, normalised, and how action chunks come back: the preprocessing that both models share.

`Preprocessor` owns streaming statistics for each input, and the action codec; it takes raw tensors of a batch and hands
on normalised ones, zero where masked.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learner.action_codec import ActionCodec, build_codec
from learner.batch import Frame, TensorBatch
from learner.config import DataSpec
from learner.statistics import PrincipalComponents, RunningStats, Sum


class Preprocessor(nn.Module):
    """Normalises tokens (per slot and channel), proprioception, text and action codes (per step and dim).

    Statistics follow the training batches until `freeze_after` of them, then stay as they are.
    C_m, the channels of a normalised token, are C, or `components` where only so many principal ones are kept.
    """

    batches: Tensor
    token: RunningStats | PrincipalComponents

    def __init__(self, data: DataSpec, freeze_after: int, components: int = 0) -> None:
        super().__init__()
        self.data, self.freeze_after = data, freeze_after
        self.codec: ActionCodec = build_codec(data.control)
        dim = self.codec.dim
        self.token = RunningStats((data.tokens, data.channels), floor=1e-3)
        if components:
            basis_adds = max(1, freeze_after // 2)
            self.token = PrincipalComponents(data.tokens, data.channels, components, basis_adds=basis_adds)
        self.proprio = RunningStats((data.proprio,), floor=1e-2)
        self.text = RunningStats((data.text_dim,), floor=1e-3)
        self.action = RunningStats((data.chunk, dim), floor=5e-3, keep_floor=True)
        self.previous = RunningStats((data.tau, dim), floor=5e-3, keep_floor=True)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, batch: TensorBatch, over_ranks: Sum | None = None) -> bool:
        """Let the statistics follow a training batch; returns whether they moved.

        They do not once they are frozen, nor for a batch with entries that are not finite, which is not counted: a mean
        would keep those for good. `over_ranks` sums tensors over the ranks that see parts of the same batch.
        """
        if int(self.batches) >= self.freeze_after:
            return False
        seen = self._sums(batch, over_ranks)
        # Looked at when summed over the ranks, so that all of them decide alike.
        if not all(bool(torch.isfinite(sums).all()) for sums in seen.values()):
            return False
        self.batches += 1
        for name, sums in seen.items():
            getattr(self, name).add(sums)
        return True

    def _sums(self, batch: TensorBatch, over_ranks: Sum | None) -> dict[str, Tensor]:
        """What each of the statistics sees in a batch, by its name."""
        k, sums = batch.frames, RunningStats.sums
        exists = batch.frame_mask
        mask = exists[:, :, None, None] & batch.token_mask[:, None, :, None]
        now = batch.proprio[:, :k]
        valid = self.codec.valid(batch.action_valid)[:, None, None]
        code = self.codec.encode(batch.action, now).flatten(0, 1)
        past = self.codec.encode(batch.previous_action, now).flatten(0, 1)
        past_mask = (batch.previous_mask[:, :, None, None] & valid).expand_as(past.unflatten(0, now.shape[:2]))
        return {
            "token": self.token.sums(batch.tokens.flatten(0, 1), mask.flatten(0, 1), over_ranks),
            "proprio": sums(batch.proprio.flatten(0, 1), exists.flatten(0, 1)[:, None], over_ranks),
            "text": sums(batch.text, torch.ones_like(batch.text, dtype=torch.bool), over_ranks),
            "action": sums(code, (batch.action_mask[..., None] & valid).flatten(0, 1), over_ranks),
            "previous": sums(past, past_mask.flatten(0, 1), over_ranks),
        }

    def tokens(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """[..., L, C] raw -> [..., L, C_m] normalised, zero where `mask` (bool, broadcastable) is false."""
        return torch.where(mask, self.token.normalise(tokens), 0.0)

    def frame(self, frame: Frame) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised tokens [B, L, C_m], proprioception [B, P] and text [B, D_text] of the present frame."""
        tokens = self.tokens(frame.tokens, frame.token_mask[..., None])
        return tokens, self.proprio.normalise(frame.proprio), self.text.normalise(frame.text)

    def chunk(self, action: Tensor, proprio: Tensor, mask: Tensor) -> Tensor:
        """Absolute actions [..., N, A] -> normalised codes [..., N, A_c], zero where `mask` [..., N, A_c] is false."""
        return torch.where(mask, self.action.normalise(self.codec.encode(action, proprio)), 0.0)

    def past(self, action: Tensor, proprio: Tensor, mask: Tensor) -> Tensor:
        """Executed actions [..., tau, A] -> normalised codes; `mask` is broadcastable to [..., tau, A_c]."""
        return torch.where(mask, self.previous.normalise(self.codec.encode(action, proprio)), 0.0)

    def decode(self, code: Tensor, proprio: Tensor, action_valid: Tensor) -> Tensor:
        """Normalised codes [B, N, A_c] -> absolute actions [B, N, A], zero in dims that are not executed."""
        action = self.codec.decode(self.action.restore(code), proprio)
        return torch.where(action_valid[:, None], action, 0.0)
