"""The Causal Latent World Model: imagine the next latent frame, then act towards it (arXiv 2604.16484).

One transformer serves two flow-matching stages: `video` denoises f_{t+1} given history and instruction, `action`
denoises the chunk a_t given the same and a next frame. In training both run in one pass over a short sequence per frame

    [ context: f_t, body (proprioception, instruction) | condition: shown f_{t+1} | video: noisy f_{t+1} | M noisy a_t ]

whose mask (`blocks.FrameLayout`) keeps the stages apart. Frames of a window are rows of one batch; what passes between
them goes through the TTT memory only, so the model is causal by construction and its footprint does not grow.
Shapes: R = B K rows, S tokens per row, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learner import flow
from learner.batch import Frame, TensorBatch
from learner.blocks import Block, FrameLayout, KeyValue, TimeFeatures
from learner.config import DataSpec, ModelConfig
from learner.losses import action_error, masked_mean
from learner.normalise import Preprocessor
from learner.projections import FrameProjection
from learner.ttt import FastWeights, MemoryLayer

Memory = tuple[FastWeights, ...]


@dataclass(frozen=True, kw_only=True)
class Window:
    """Normalised window: tokens [B, K+1, L, C], body [B, K, P + D_text], past [B, K, tau A_c], chunk [B, K, N A_c]."""

    tokens: Tensor
    body: Tensor
    past: Tensor
    chunk: Tensor


class CLWM(nn.Module):
    """Causal latent world model with a dual-state TTT memory; implements `interface.WorldActionModel`."""

    mask: Tensor

    def __init__(self, config: ModelConfig, data: DataSpec) -> None:
        super().__init__()
        self.config, self.data = config, data
        self.preprocess = Preprocessor(data, config.normaliser_batches)
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
        self.memories = nn.ModuleDict({str(i): MemoryLayer(d, config.memory) for i in sorted(config.memory.layers)})
        self.norm_video, self.norm_action = nn.LayerNorm(d), nn.LayerNorm(d)
        self.action_out = nn.Linear(config.action_tokens * d, self.chunk_dim)
        nn.init.zeros_(self.action_out.weight)
        self.register_buffer("mask", self.layout.mask(), persistent=False)

    # ---------------------------------------------------------------- training

    def forward(self, batch: TensorBatch, rng: torch.Generator, progress: float = 1.0) -> dict[str, Tensor]:
        """`loss`, under the name that wrappers for distributed training call."""
        return self.loss(batch, rng, progress)

    def loss(self, batch: TensorBatch, rng: torch.Generator, progress: float = 1.0) -> dict[str, Tensor]:
        """Scalars `loss` (to minimise), `video` and `action` (masked mean squared velocity errors)."""
        batch.check(self.data)
        window = self._window(batch)
        b, k = batch.size, batch.frames
        context = self._context_tokens(window.tokens[:, :k], window.body, rng)
        video, video_path = self._noisy_video(window, rng)
        condition, shown = self._condition(window, batch, context, rng, progress)
        actions, action_path = self._noisy_actions(window, rng)
        x = torch.cat((context, condition, video, actions), dim=2)
        past = torch.where(batch.previous_mask[:, :, None], self.past_in(window.past), 0.0)
        x = self._trunk(x, past, batch.frame_mask[:, :k], shown, rng)
        frames = self.layout.frame
        video_loss = self._video_loss(x[:, :frames], window, video_path, batch)
        output = self.action_out(self.norm_action(x[:, frames:]).view(b * k, self.layout.draws, -1))
        valid = self.preprocess.codec.valid(batch.action_valid)[:, None, None]
        mask = (batch.action_mask[..., None] & valid).flatten(0, 1)
        action_loss = action_error(output, action_path, mask, self.config.flow)
        total = action_loss + self.config.video_weight * video_loss
        return {"loss": total, "video": video_loss.detach(), "action": action_loss.detach()}

    def _window(self, batch: TensorBatch) -> Window:
        k, p = batch.frames, self.preprocess
        frames = batch.frame_mask
        tokens = p.tokens(batch.tokens, (frames[:, :, None] & batch.token_mask[:, None])[..., None])
        proprio = torch.where(frames[:, :k, None], p.proprio.normalise(batch.proprio[:, :k]), 0.0)
        text = p.text.normalise(batch.text)[:, None].expand(-1, k, -1)
        valid = p.codec.valid(batch.action_valid)[:, None, None]
        now = batch.proprio[:, :k]
        return Window(
            tokens=tokens,
            body=torch.cat((proprio, text), dim=-1),
            past=p.past(batch.previous_action, now, batch.previous_mask[:, :, None, None] & valid).flatten(2),
            chunk=p.chunk(batch.action, now, batch.action_exists[..., None] & valid).flatten(2),
        )

    def _context_tokens(self, tokens: Tensor, body: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """[..., L, C] and [..., P + D_text] -> [..., n, D]; with `rng`, frames are noised as configured."""
        settings = self.config.condition
        if rng is not None and settings.frame_noise_prob > 0:
            tokens, _ = self._augment(tokens, settings.frame_noise_prob, rng)
        return torch.cat((self.frame_in(tokens), self.body_in(body).unsqueeze(-2)), dim=-2)

    def _augment(self, tokens: Tensor, probability: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noised latents (1 - s) eps + s f with probability, s ~ U[noise_low, 1]; and the level s used, [B, K]."""
        low = self.config.condition.noise_low
        u = torch.rand((2, *tokens.shape[:2]), generator=rng, device=tokens.device)
        level = torch.where(u[0] < probability, low + (1.0 - low) * u[1], 1.0)
        noise = torch.randn(tokens.shape, generator=rng, device=tokens.device)
        return torch.lerp(noise.to(tokens.dtype), tokens, level[..., None, None].to(tokens.dtype)), level

    def _noisy_video(self, window: Window, rng: torch.Generator) -> tuple[Tensor, flow.PathSample]:
        target = window.tokens[:, 1:].flatten(2)
        s = flow.sample_times(tuple(target.shape[:2]), self.config.flow.noise_bias, rng, target.device)
        noise = torch.randn(target.shape, generator=rng, device=target.device)
        path = flow.sample_path(target, noise, s)
        return self._video_tokens(path.x_s, s), path

    def _video_tokens(self, x_s: Tensor, s: Tensor) -> Tensor:
        return self.video_in(x_s.unflatten(-1, (self.data.tokens, -1)), self.time(s))

    def _noisy_actions(self, window: Window, rng: torch.Generator) -> tuple[Tensor, flow.PathSample]:
        m = self.layout.draws
        x = window.chunk.flatten(0, 1)[:, None]
        s = flow.sample_times((len(x), m), self.config.flow.noise_bias, rng, x.device)
        noise = torch.randn((len(x), m, self.chunk_dim), generator=rng, device=x.device)
        path = flow.sample_path(x, noise, s)
        tokens = self._action_tokens(path.x_s, s)
        return tokens.view(*window.chunk.shape[:2], m * self.layout.action, -1), path

    def _action_tokens(self, x_s: Tensor, s: Tensor) -> Tensor:
        """[..., N A_c] and [...] -> [..., action tokens, D]."""
        tokens = self.action_in(torch.cat((x_s, self.time(s)), dim=-1))
        return tokens.unflatten(-1, (self.layout.action, -1))

    def _condition(
        self, window: Window, batch: TensorBatch, context: Tensor, rng: torch.Generator, progress: float
    ) -> tuple[Tensor, Tensor]:
        """Condition tokens [B, K, F, D], and bool[B, K] where a next frame is shown (elsewhere: `missing`)."""
        settings = self.config.condition
        following, exists = window.tokens[:, 1:], batch.frame_mask[:, 1:]
        tokens, level = self._augment(following, settings.noise_prob, rng)
        dropped = torch.rand(exists.shape, generator=rng, device=exists.device) < settings.drop
        n = round(settings.imagined * batch.size) if progress >= settings.imagined_after else 0
        if n:
            own = self._imagine_once(window, batch, context, n, rng)
            tokens = torch.cat((own, tokens[n:]))
            level = torch.cat((torch.full_like(level[:n], settings.level), level[n:]))
            exists = torch.cat((batch.frame_mask[:n, :-1], exists[n:]))
        shown = exists & ~dropped
        embedded = self.condition_in(tokens, self.time(level))
        return torch.where(shown[..., None, None], embedded, self.missing.to(embedded.dtype)), shown

    @torch.no_grad()
    def _imagine_once(
        self, window: Window, batch: TensorBatch, context: Tensor, n: int, rng: torch.Generator
    ) -> Tensor:
        """Next frames [n, K, L, C] of the first n windows in one solver step from noise."""
        noise = torch.randn(window.tokens[:n, 1:].shape, generator=rng, device=context.device)
        s = torch.zeros(noise.shape[:2], device=context.device)
        x = torch.cat((context[:n], self._video_tokens(noise.flatten(2), s)), dim=2)
        past = torch.where(batch.previous_mask[:n, :, None], self.past_in(window.past[:n]), 0.0)
        x = self._trunk(x, past, batch.frame_mask[:n, :-1], None, rng)
        output = self._video_output(x, window.tokens[:n, :-1].flatten(0, 1)).float()
        start = noise.flatten(2).flatten(0, 1)
        v = flow.velocity_from_output(output, start, s.flatten(), predict=self._predict, floor=1e-6)
        imagined = (start + v).view_as(noise)
        return torch.where(batch.token_mask[:n, None, :, None], imagined, 0.0)

    @property
    def _predict(self) -> str:
        return self.config.flow.predict

    def _trunk(self, x: Tensor, past: Tensor, exists: Tensor, shown: Tensor | None, rng: torch.Generator) -> Tensor:
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
            layer = self._memory_before(i)
            if layer is not None:
                windows = x.view(b, k, length, d)
                x = self._remember(layer, windows, past, exists, shown, rng).flatten(0, 1)
            x, _ = block(x, mask, first=first if i + 1 == len(self.blocks) else 0)
        return x

    def _remember(
        self, memory: MemoryLayer, x: Tensor, past: Tensor, exists: Tensor, shown: Tensor | None, rng: torch.Generator
    ) -> Tensor:
        context = x[:, :, self.layout.context]
        written = self._written(memory, context, past)
        written, _ = self._augment(written, self.config.condition.history_noise_prob, rng)
        stop = self.layout.context.stop
        if shown is None:
            context, _ = memory.scan(context, written, exists, None, None)
            return torch.cat((context, x[:, :, stop:]), dim=2)
        rest = self.layout.condition.stop
        context, condition = memory.scan(context, written, exists, x[:, :, stop:rest], shown)
        assert condition is not None
        return torch.cat((context, condition, x[:, :, rest:]), dim=2)

    def _memory_before(self, block: int) -> MemoryLayer | None:
        if str(block) not in self.memories:
            return None
        layer = self.memories[str(block)]
        assert isinstance(layer, MemoryLayer)
        return layer

    @staticmethod
    def _written(memory: MemoryLayer, context: Tensor, past: Tensor) -> Tensor:
        """What the long-term state is written with: the context, the executed actions added to its body token."""
        z = memory.norm(context)
        return torch.cat((z[..., :-1, :], (z[..., -1, :] + past).unsqueeze(-2)), dim=-2)

    def _video_output(self, x: Tensor, present: Tensor) -> Tensor:
        """[R, F, D] and the present frames [R, L, C] -> network output [R, L C]."""
        output = self.video_in.out(self.norm_video(x))
        return output + present.flatten(1) if self.config.video_residual and self._predict == "clean" else output

    def _video_loss(self, x: Tensor, window: Window, path: flow.PathSample, batch: TensorBatch) -> Tensor:
        output = self._video_output(x, window.tokens[:, :-1].flatten(0, 1))
        flat = flow.PathSample(x_s=path.x_s.flatten(0, 1), dx_s=path.dx_s.flatten(0, 1), s=path.s.flatten())
        error = flow.velocity_error(output.float(), flat, predict=self._predict, floor=self.config.flow.floor)
        both = batch.frame_mask[:, 1:] & batch.frame_mask[:, :-1]
        mask = (both[:, :, None] & batch.token_mask[:, None]).flatten(0, 1)[..., None]
        return masked_mean(error.unflatten(1, (self.data.tokens, -1)), mask)

    # ---------------------------------------------------------------- acting

    def initial_memory(self, batch: int) -> Memory:
        """The learned initial fast weights of every memory layer, for `batch` sequences."""
        layers = [self._memory_before(i) for i in range(len(self.blocks))]
        return tuple(layer.start(batch) for layer in layers if layer is not None)

    @torch.no_grad()
    def observe(self, memory: Memory, frame: Frame, previous_action: Tensor, previous_mask: Tensor) -> Memory:
        """The long-term memory after a real frame and the actions executed before it; see `WorldActionModel`."""
        frame.check(self.data)
        p = self.preprocess
        tokens, proprio, text = p.frame(frame)
        valid = p.codec.valid(frame.action_valid)[:, None]
        past = p.past(previous_action, frame.proprio, previous_mask[:, None, None] & valid).flatten(1)
        past = torch.where(previous_mask[:, None], self.past_in(past), 0.0)
        x = self._context_tokens(tokens, torch.cat((proprio, text), dim=-1))
        everywhere = torch.ones_like(previous_mask)
        new: list[FastWeights] = []
        for i, block in enumerate(self.blocks):
            if len(new) == len(self.memories):
                break
            layer = self._memory_before(i)
            if layer is not None:
                new.append(layer.write(memory[len(new)], self._written(layer, x, past), everywhere))
                x = layer.read(new[-1], x)
            x, _ = block(x, None)
        return tuple(new)

    def _extend(
        self, x: Tensor, caches: list[KeyValue] | None, states: Memory | None, *, fork: bool = False
    ) -> tuple[Tensor, list[KeyValue]]:
        """Run tokens [B, n, D] behind cached ones; memory layers read `states`, or working states forked from them."""
        out: list[KeyValue] = []
        at = 0
        for i, block in enumerate(self.blocks):
            layer = self._memory_before(i)
            if states is not None and layer is not None:
                state = states[at]
                if fork:
                    state = layer.write(state, layer.norm(x), torch.ones(len(x), dtype=torch.bool, device=x.device))
                x, at = layer.read(state, x), at + 1
            x, cache = block(x, None, caches[i] if caches is not None else None)
            out.append(cache)
        return x, out

    def _see(self, memory: Memory, frame: Frame) -> tuple[list[KeyValue], Tensor]:
        """Keys and values of the context, and the present frame's normalised tokens [B, L, C]."""
        frame.check(self.data)
        tokens, proprio, text = self.preprocess.frame(frame)
        x = self._context_tokens(tokens, torch.cat((proprio, text), dim=-1))
        return self._extend(x, None, memory)[1], tokens

    @torch.no_grad()
    def imagine(self, memory: Memory, frame: Frame, rng: torch.Generator) -> Tensor:
        """Stage 1: the frame tau steps ahead, f32[B, L, C] in the encoder's units, masked tokens zero."""
        caches, present = self._see(memory, frame)
        settings = self.config.flow

        def velocity(x_s: Tensor, s: Tensor) -> Tensor:
            x, _ = self._extend(self._video_tokens(x_s, s), caches, None)
            return flow.velocity_from_output(self._video_output(x, present), x_s, s, predict=self._predict, floor=1e-6)

        x = torch.randn(present.flatten(1).shape, generator=rng, device=present.device)
        x = flow.integrate(velocity, x, steps=settings.video_steps, solver=settings.solver).view_as(present)
        return torch.where(frame.token_mask[..., None], self.preprocess.token.restore(x), 0.0)

    @torch.no_grad()
    def act(self, memory: Memory, frame: Frame, imagined: Tensor | None, rng: torch.Generator) -> Tensor:
        """Stage 2: absolute targets f32[B, N, A], given an imagined frame (or None: the `missing` vector)."""
        x = torch.randn((len(frame.tokens), self.chunk_dim), generator=rng, device=frame.tokens.device)
        x = self.denoise_actions(memory, frame, imagined, x)
        return self.preprocess.decode(x.unflatten(1, (self.data.chunk, -1)), frame.proprio, frame.action_valid)

    @torch.no_grad()
    def denoise_actions(
        self, memory: Memory, frame: Frame, imagined: Tensor | None, x: Tensor, *, s0: float = 0.0, s1: float = 1.0
    ) -> Tensor:
        """Integrate chunks [B, N A_c] (normalised codes) from s0 to s1; memory is read, a working copy forked.

        Between 0 and 1 the chunk may be kept and taken up again with another frame, as speculative inference does.
        """
        caches, _ = self._see(memory, frame)
        b, settings = len(frame.tokens), self.config.flow
        if imagined is None:
            condition = self.missing.expand(b, -1, -1)
        else:
            tokens = self.preprocess.tokens(imagined, frame.token_mask[..., None])
            level = torch.full((b,), self.config.condition.level, device=tokens.device)
            condition = self.condition_in(tokens, self.time(level))
        _, caches = self._extend(condition, caches, memory, fork=imagined is not None)

        def velocity(x_s: Tensor, s: Tensor) -> Tensor:
            h, _ = self._extend(self._action_tokens(x_s, s), caches, None)
            output = self.action_out(self.norm_action(h).flatten(1))
            return flow.velocity_from_output(output, x_s, s, predict=self._predict, floor=1e-6)

        steps = max(1, round(settings.action_steps * (s1 - s0)))
        return flow.integrate(velocity, x, steps=steps, s0=s0, s1=s1, solver=settings.solver)
