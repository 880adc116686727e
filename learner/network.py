"""The network behind CLWM: projections, the blocks that video and action share, and the memories between them.

Two ways through the same weights: `trunk` runs whole windows at once, as training does; `extend` runs a few tokens
behind cached ones, as acting does. A test compares the two. Frames of a window are rows of one batch; what passes
between them goes through the memories only, so the network is causal by construction.
Shapes: R = B K rows, S tokens per row, D width, C_m channels of a normalised token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from learner.batch import Frame
from learner.blocks import Block, FrameLayout, KeyValue, TimeFeatures
from learner.config import DataSpec, ModelConfig
from learner.memory import MemoryLayer, build_memories
from learner.noise import normal, uniform
from learner.normalise import Preprocessor
from learner.projections import FrameProjection

States = tuple[Any, ...]  # of the memory layers, first to last


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the stages that act on a frame need of it: keys and values of its context per block, its normalised tokens.

    Attributes:
        frame: as it was seen. `tokens`: f32[R, L, C_m]; R is 2 B in a guided model, told rows first.
        caches: one per block, of R rows.
    """

    frame: Frame
    tokens: Tensor
    caches: list[KeyValue]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The long-term states of some sequences.

    Attributes:
        states: of the memory layers. `frames`: that they were written with.
        context_frames: after so many they start anew; 0: never.
        sight: of the frame that they were last written with, so that nobody looks twice.
    """

    states: States
    frames: int = 0
    context_frames: int = 0
    sight: Sight | None = None


class FrameNetwork(nn.Module):
    """Mixture of Transformers over the tokens of a frame (arXiv 2604.16484): blocks shared, projections not."""

    mask: Tensor

    def __init__(self, config: ModelConfig, data: DataSpec) -> None:
        super().__init__()
        self.config, self.data = config, data
        self.preprocess = Preprocessor(data, config.normaliser_batches, config.components)
        code, d = self.preprocess.codec.dim, config.width
        self.chunk_dim = data.chunk * code
        self.time = TimeFeatures()
        self.frame_in = FrameProjection(config, data)
        self.video_in = FrameProjection(config, data, extra=self.time.dim, both_ways=True)
        self.condition_in = FrameProjection(config, data, extra=self.time.dim)
        self.body_in = nn.Linear(data.proprio + data.text_dim, d)
        self.past_in = nn.Linear(data.tau * code, d)
        self.action_in = nn.Linear(self.chunk_dim + self.time.dim, config.action_tokens * d)
        self.layout = FrameLayout(frame=self.frame_in.count, action=config.action_tokens, draws=config.action_draws)
        self.missing = nn.Parameter(torch.zeros(self.layout.frame, d))
        self.blocks = nn.ModuleList(Block(d, config.heads, config.expand, config.depth) for _ in range(config.depth))
        self.memories = build_memories(d, config.memory)
        # Executed actions reach the network through its memories alone: without one, nothing waits for their gradient.
        self.past_in.requires_grad_(len(self.memories) > 0)
        self.norm_video, self.norm_action = nn.LayerNorm(d), nn.LayerNorm(d)
        self.action_out = nn.Linear(config.action_tokens * d, self.chunk_dim)
        nn.init.zeros_(self.action_out.weight)
        self.recompute = False
        self.register_buffer("mask", self.layout.mask(), persistent=False)

    def context_tokens(self, tokens: Tensor, body: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """[..., L, C_m] and [..., P + D_text] -> [..., n, D]; with `rng`, frames are noised as configured."""
        settings = self.config.condition
        if rng is not None and settings.frame_noise_prob > 0:
            tokens, _ = self.augment(tokens, settings.frame_noise_prob, rng)
        return torch.cat((self.frame_in(tokens), self.body_in(body).unsqueeze(-2)), dim=-2)

    def augment(self, tokens: Tensor, probability: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noised latents (1 - s) eps + s f with probability, s ~ U[noise_low, 1]; and the level s used, [B, K]."""
        low = self.config.condition.noise_low
        u = uniform((2, *tokens.shape[:2]), rng, tokens.device)
        level = torch.where(u[0] < probability, low + (1.0 - low) * u[1], 1.0)
        noise = normal(tokens.shape, rng, tokens.device)
        return torch.lerp(noise.to(tokens.dtype), tokens, level[..., None, None].to(tokens.dtype)), level

    def condition_tokens(self, shown: Tensor, level: Tensor, present: Tensor) -> Tensor:
        """Shown next frames [..., L, C_m], denoised to `level` [...], beside present ones, likewise -> [..., F, D].

        A shown frame is `(1 - level) eps + level f_{t+1}`; its change is the same of `f_{t+1} - f_t`.
        """
        if self.config.condition.change:
            shown = shown - level[..., None, None].to(shown.dtype) * present
        return self.condition_in(shown, self.time(level))

    def video_tokens(self, x_s: Tensor, s: Tensor) -> Tensor:
        """[..., L C_m] and [...] -> [..., F, D]."""
        return self.video_in(x_s.unflatten(-1, (self.data.tokens, -1)), self.time(s))

    def action_tokens(self, x_s: Tensor, s: Tensor) -> Tensor:
        """[..., N A_c] and [...] -> [..., action tokens, D]."""
        tokens = self.action_in(torch.cat((x_s, self.time(s)), dim=-1))
        return tokens.unflatten(-1, (self.layout.action, -1))

    @property
    def predict(self) -> str:
        """What the outputs stand for, `flow.predict`."""
        return self.config.flow.predict

    def trunk(self, x: Tensor, past: Tensor, exists: Tensor, shown: Tensor | None, rng: torch.Generator) -> Tensor:
        """All blocks and memories over [B, K, S, D] -> the video and action tokens, [B K, S', D].

        The sequence is a whole frame's, or, with `shown` None, context and video alone.
        """
        b, k, length, d = x.shape
        layout = self.layout
        mask, first = self.mask, layout.video.start
        if shown is None:
            first = layout.context.stop
            pick = torch.cat((torch.arange(first), torch.arange(layout.video.start, layout.video.stop)))
            mask = mask[pick][:, pick]
        x = x.flatten(0, 1)
        for i, block in enumerate(self.blocks):
            layer = self.memory_before(i)
            if layer is not None:
                windows = x.view(b, k, length, d)
                x = self._remember(layer, windows, past, exists, shown, rng).flatten(0, 1)
            skipped = first if i + 1 == len(self.blocks) else 0
            if self.recompute and torch.is_grad_enabled():
                x, _ = checkpoint(block, x, mask, first=skipped, use_reentrant=False)
            else:
                x, _ = block(x, mask, first=skipped)
        return x

    def _remember(
        self,
        memory: MemoryLayer[Any],
        x: Tensor,
        past: Tensor,
        exists: Tensor,
        shown: Tensor | None,
        rng: torch.Generator,
    ) -> Tensor:
        context = x[:, :, self.layout.context]
        written = self.written(memory, context, past)
        written, _ = self.augment(written, self.config.condition.history_noise_prob, rng)
        stop = self.layout.context.stop
        if shown is None:
            context, _ = memory.scan(context, written, exists, None, None)
            return torch.cat((context, x[:, :, stop:]), dim=2)
        rest = self.layout.condition.stop
        context, condition = memory.scan(context, written, exists, x[:, :, stop:rest], shown)
        assert condition is not None
        return torch.cat((context, condition, x[:, :, rest:]), dim=2)

    def memory_before(self, block: int) -> MemoryLayer[Any] | None:
        """The memory that is read before a block, if there is one."""
        if str(block) not in self.memories:
            return None
        layer = self.memories[str(block)]
        assert isinstance(layer, MemoryLayer)
        return layer

    @staticmethod
    def written(memory: MemoryLayer[Any], context: Tensor, past: Tensor) -> Tensor:
        """What the long-term state is written with, of unit size: the context, executed actions added to its body."""
        return memory.norm(torch.cat((context[..., :-1, :], (context[..., -1, :] + past).unsqueeze(-2)), dim=-2))

    def video_output(self, x: Tensor, present: Tensor) -> Tensor:
        """[R, F, D] and the present frames [R, L, C_m] -> network output [R, L C_m]."""
        output = self.video_in.out(self.norm_video(x))
        return output + present.flatten(1) if self.config.video_residual and self.predict == "clean" else output

    def extend(
        self, x: Tensor, caches: list[KeyValue] | None, states: States | None, *, fork: bool = False
    ) -> tuple[Tensor, list[KeyValue]]:
        """Run tokens [B, n, D] behind cached ones; memory layers read `states`, or working states forked from them."""
        ones = torch.ones(len(x), dtype=torch.bool, device=x.device)

        def state_for(layer: MemoryLayer[Any], state: Any, z: Tensor) -> Any:
            return layer.fork(state, z, ones) if fork else state

        x, out, _ = self.run_blocks(x, caches, states, state_for)
        return x, out

    def run_blocks(
        self,
        x: Tensor,
        caches: list[KeyValue] | None,
        states: States | None,
        state_for: Callable[[MemoryLayer[Any], Any, Tensor], Any],
    ) -> tuple[Tensor, list[KeyValue], States]:
        """All blocks over tokens [B, n, D], behind cached ones, -> outputs, keys and values, the states that were read.

        Before it is read, the state of a memory layer becomes what `state_for` makes of it and of the tokens there.
        Without `states` no memory is read.
        """
        out: list[KeyValue] = []
        read: list[Any] = []
        for i, block in enumerate(self.blocks):
            layer = self.memory_before(i)
            if states is not None and layer is not None:
                read.append(state_for(layer, states[len(read)], x))
                x = layer.read(read[-1], x)
            x, cache = block(x, None, caches[i] if caches is not None else None)
            out.append(cache)
        return x, out, tuple(read)
