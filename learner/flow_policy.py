"""The baseline: a plain flow-matching policy, one residual MLP, no world model, no memory.

Takes the same batches and answers the same interface as the world models. It stays in the tree so that every claim for
them can be held against it at the same budget.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from learner import flow
from learner.batch import Frame, TensorBatch
from learner.blocks import TimeFeatures
from learner.config import DataSpec, ModelConfig
from learner.guidance import drop_text, guided, told_and_free, twice
from learner.losses import action_error
from learner.noise import normal
from learner.normalise import Preprocessor
from learner.trained import TrainedModel


class ResidualBlock(nn.Module):
    """x + W2 silu(W1 norm(x))."""

    def __init__(self, width: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        nn.init.normal_(self.down.weight, std=1.0 / math.sqrt(2 * depth * hidden))
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return x + self.down(F.silu(self.up(self.norm(x))))


class FlowPolicy(TrainedModel):
    """p(a_t | f_t, proprioception, instruction) by flow matching over the action chunk."""

    def __init__(self, config: ModelConfig, data: DataSpec) -> None:
        super().__init__()
        self.config, self.data = config, data
        self.preprocess = Preprocessor(data, config.normaliser_batches, config.components)
        self.chunk_dim = data.chunk * self.preprocess.codec.dim
        width = config.width
        self.recompute = False
        self.time = TimeFeatures()
        self.observation_in = nn.Linear(data.tokens * config.channels(data) + data.proprio + data.text_dim, width)
        self.action_in = nn.Linear(self.chunk_dim + self.time.dim, width, bias=False)
        hidden, depth = config.expand * width, config.depth
        self.blocks = nn.ModuleList(ResidualBlock(width, hidden, depth) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width)
        self.action_out = nn.Linear(width, self.chunk_dim)
        nn.init.zeros_(self.action_out.weight)

    def loss(
        self, batch: TensorBatch, rng: torch.Generator, progress: float = 1.0, entries: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Scalars `loss` and `action`, the mean squared velocity error under the action mask; `entries` as in CLWM."""
        batch.check(self.data)
        b, k, m = batch.size, batch.frames, self.config.action_draws
        p, settings = self.preprocess, self.config.flow
        mask = (batch.token_mask[:, None] & batch.frame_mask[:, :k, None])[..., None]
        tokens = p.tokens(batch.tokens[:, :k], mask).flatten(2)
        proprio = torch.where(batch.frame_mask[:, :k, None], p.proprio.normalise(batch.proprio[:, :k]), 0.0)
        text = drop_text(p.text.normalise(batch.text), self.config.condition.text_drop, rng)
        text = text[:, None].expand(b, k, -1)
        context = self.observation_in(torch.cat((tokens, proprio, text), dim=-1)).flatten(0, 1)
        valid = p.codec.valid(batch.action_valid)[:, None, None]
        chunk = p.chunk(batch.action, batch.proprio[:, :k], batch.action_exists[..., None] & valid)
        x = chunk.flatten(0, 1).flatten(1)[:, None]
        s = flow.sample_times((b * k, m), settings.noise_bias, rng, x.device)
        noise = normal((b * k, m, self.chunk_dim), rng, x.device)
        path = flow.sample_path(x, noise, s)
        output = self._output(context[:, None], path.x_s, s)
        mask = (batch.action_mask[..., None] & valid).flatten(0, 1)
        loss = action_error(output, path, mask, settings, None if entries is None else entries[0])
        return {"loss": loss, "action": loss.detach()}

    def _output(self, context: Tensor, x_s: Tensor, s: Tensor) -> Tensor:
        x = context + self.action_in(torch.cat((x_s, self.time(s)), dim=-1))
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recompute and torch.is_grad_enabled() else block(x)
        return self.action_out(self.norm_out(x))

    def initial_memory(self, batch: int, context_frames: int | None = None) -> None:
        """No memory."""
        return

    def observe(
        self,
        memory: None,
        frame: Frame,
        previous_action: Tensor,
        previous_mask: Tensor,
        *,
        exists: Tensor | None = None,
    ) -> None:
        """No memory, nothing to update."""
        return

    def imagine(self, memory: None, frame: Frame, rng: torch.Generator, *, stop: float | None = None) -> None:
        """No world model: None."""
        return

    @torch.no_grad()
    def act(
        self,
        memory: None,
        frame: Frame,
        imagined: Tensor | None,
        rng: torch.Generator,
        *,
        level: float | None = None,
    ) -> Tensor:
        """Absolute targets f32[B, N, A]; `memory`, `imagined` and `level` are not used."""
        frame.check(self.data)
        p, settings = self.preprocess, self.config.flow
        tokens, proprio, text = p.frame(frame)
        if settings.action_guidance != 1.0:
            (tokens, proprio), text = twice(tokens, proprio), told_and_free(text)
        context = self.observation_in(torch.cat((tokens.flatten(1), proprio, text), dim=-1))
        x = normal((len(frame.tokens), self.chunk_dim), rng, context.device)

        def velocity(x_s: Tensor, s: Tensor) -> Tensor:
            output = self._output(context, x_s, s)
            return flow.velocity_from_output(output, x_s, s, predict=settings.predict, floor=1e-6)

        start = flow.FlowState(x=x, s=0.0)
        x = flow.advance(guided(velocity, settings.action_guidance), start, 1.0, settings.action_grid).x
        return p.decode(x.unflatten(1, (self.data.chunk, -1)), frame.proprio, frame.action_valid)
