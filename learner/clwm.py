"""The Causal Latent World Model: imagine the next latent frame, then act towards it (arXiv 2604.16484).

One transformer serves two flow-matching stages: `video` denoises f_{t+1} given history and instruction, `action`
denoises the chunk a_t given the same and a next frame. In training both run in one pass over a short sequence per frame

    [ context: f_t, body (proprioception, instruction) | condition: shown f_{t+1} | video: noisy f_{t+1} | M noisy a_t ]

whose mask (`blocks.FrameLayout`) keeps the stages apart. Frames of a window are rows of one batch; what passes between
them goes through the TTT memory only, so the model is causal by construction and its footprint does not grow.
Shapes: R = B K rows, S tokens per row, D width, C channels of a token, C_m of a normalised one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from learner import flow
from learner.batch import Frame, TensorBatch
from learner.blocks import KeyValue
from learner.guidance import drop_text, guided, told_and_free, twice
from learner.losses import action_error, frames_under_loss, masked_mean
from learner.memory import MemoryLayer, first_rows
from learner.network import FrameNetwork, Memory, Sight, States
from learner.noise import normal, uniform
from learner.trained import TrainedModel


@dataclass(frozen=True, kw_only=True)
class Window:
    """Normalised: tokens [B, K+1, L, C_m], body [B, K, P + D_text], past [B, K, tau A_c], chunk [B, K, N A_c]."""

    tokens: Tensor
    body: Tensor
    past: Tensor
    chunk: Tensor


class CLWM(TrainedModel, FrameNetwork):
    """Causal latent world model with a dual-state memory; implements `interface.WorldActionModel`."""

    # ---------------------------------------------------------------- training

    def loss(
        self, batch: TensorBatch, rng: torch.Generator, progress: float = 1.0, entries: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Scalars `loss` (to minimise), `video` and `action` (masked mean squared velocity errors).

        `entries` are those of a larger batch that this is a part of; the losses of its parts then sum up to its own.
        """
        batch.check(self.data)
        window = self._window(batch, rng)
        b, k = batch.size, batch.frames
        context = self.context_tokens(window.tokens[:, :k], window.body, rng)
        video, video_path = self._noisy_video(window, rng)
        condition, shown = self._condition(window, batch, context, rng, progress)
        actions, action_path = self._noisy_actions(window, rng)
        x = torch.cat((context, condition, video, actions), dim=2)
        past = torch.where(batch.previous_mask[:, :, None], self.past_in(window.past), 0.0)
        x = self.trunk(x, past, batch.frame_mask[:, :k], shown, rng)
        frames = self.layout.frame
        video_loss = self._video_loss(x[:, :frames], window, video_path, batch, entries)
        output = self.action_out(self.norm_action(x[:, frames:]).view(b * k, self.layout.draws, -1))
        valid = self.preprocess.codec.valid(batch.action_valid)[:, None, None]
        mask = (batch.action_mask[..., None] & valid).flatten(0, 1)
        action_loss = action_error(output, action_path, mask, self.config.flow, None if entries is None else entries[0])
        total = action_loss + self.config.video_weight * video_loss
        return {"loss": total, "video": video_loss.detach(), "action": action_loss.detach()}

    def _window(self, batch: TensorBatch, rng: torch.Generator | None = None) -> Window:
        k, p = batch.frames, self.preprocess
        frames = batch.frame_mask
        tokens = p.tokens(batch.tokens, (frames[:, :, None] & batch.token_mask[:, None])[..., None])
        proprio = torch.where(frames[:, :k, None], p.proprio.normalise(batch.proprio[:, :k]), 0.0)
        text = drop_text(p.text.normalise(batch.text), self.config.condition.text_drop, rng)
        valid = p.codec.valid(batch.action_valid)[:, None, None]
        now = batch.proprio[:, :k]
        return Window(
            tokens=tokens,
            body=torch.cat((proprio, text[:, None].expand(-1, k, -1)), dim=-1),
            past=p.past(batch.previous_action, now, batch.previous_mask[:, :, None, None] & valid).flatten(2),
            chunk=p.chunk(batch.action, now, batch.action_exists[..., None] & valid).flatten(2),
        )

    def _noisy_video(self, window: Window, rng: torch.Generator) -> tuple[Tensor, flow.PathSample]:
        target = window.tokens[:, 1:].flatten(2)
        s = flow.sample_times(tuple(target.shape[:2]), self.config.flow.noise_bias, rng, target.device)
        noise = normal(target.shape, rng, target.device)
        path = flow.sample_path(target, noise, s)
        return self.video_tokens(path.x_s, s), path

    def _noisy_actions(self, window: Window, rng: torch.Generator) -> tuple[Tensor, flow.PathSample]:
        m = self.layout.draws
        x = window.chunk.flatten(0, 1)[:, None]
        s = flow.sample_times((len(x), m), self.config.flow.noise_bias, rng, x.device)
        noise = normal((len(x), m, self.chunk_dim), rng, x.device)
        path = flow.sample_path(x, noise, s)
        tokens = self.action_tokens(path.x_s, s)
        return tokens.view(*window.chunk.shape[:2], m * self.layout.action, -1), path

    def _condition(
        self, window: Window, batch: TensorBatch, context: Tensor, rng: torch.Generator, progress: float
    ) -> tuple[Tensor, Tensor]:
        """Condition tokens [B, K, F, D], and bool[B, K] where a next frame is shown (elsewhere: `missing`)."""
        settings = self.config.condition
        following, exists = window.tokens[:, 1:], batch.frame_mask[:, 1:]
        tokens, level = self.augment(following, settings.noise_prob, rng)
        tokens = torch.where(batch.token_mask[:, None, :, None], tokens, 0.0)
        dropped = uniform(exists.shape, rng, exists.device) < settings.drop
        n = round(settings.imagined * batch.size) if progress >= settings.imagined_after else 0
        if n:
            own = self._imagine_once(window, batch, context, n, rng)
            tokens = torch.cat((own, tokens[n:]))
            level = torch.cat((torch.full_like(level[:n], self.config.shown_level), level[n:]))
            exists = torch.cat((batch.frame_mask[:n, :-1], exists[n:]))
        shown = exists & ~dropped
        embedded = self.condition_tokens(tokens, level, window.tokens[:, :-1])
        return torch.where(shown[..., None, None], embedded, self.missing.to(embedded.dtype)), shown

    @torch.no_grad()
    def _imagine_once(
        self, window: Window, batch: TensorBatch, context: Tensor, n: int, rng: torch.Generator
    ) -> Tensor:
        """Next frames [n, K, L, C_m] of the first n windows, as far as acting denoises them, in one step from noise."""
        noise = normal(window.tokens[:n, 1:].shape, rng, context.device)
        s = torch.zeros(noise.shape[:2], device=context.device)
        x = torch.cat((context[:n], self.video_tokens(noise.flatten(2), s)), dim=2)
        past = torch.where(batch.previous_mask[:n, :, None], self.past_in(window.past[:n]), 0.0)
        x = self.trunk(x, past, batch.frame_mask[:n, :-1], None, rng)
        output = self.video_output(x, window.tokens[:n, :-1].flatten(0, 1)).float()
        start = noise.flatten(2).flatten(0, 1)
        v = flow.velocity_from_output(output, start, s.flatten(), predict=self.predict, floor=1e-6)
        imagined = (start + self.config.flow.video_stop * v).view_as(noise)
        return torch.where(batch.token_mask[:n, None, :, None], imagined, 0.0)

    def _video_loss(
        self, x: Tensor, window: Window, path: flow.PathSample, batch: TensorBatch, entries: Tensor | None
    ) -> Tensor:
        output = self.video_output(x, window.tokens[:, :-1].flatten(0, 1))
        flat = flow.PathSample(x_s=path.x_s.flatten(0, 1), dx_s=path.dx_s.flatten(0, 1), s=path.s.flatten())
        error = flow.velocity_error(output.float(), flat, predict=self.predict, floor=self.config.flow.floor)
        mask = (frames_under_loss(batch)[:, :, None] & batch.token_mask[:, None]).flatten(0, 1)[..., None]
        total = None if entries is None else entries[1]
        return masked_mean(error.unflatten(1, (self.data.tokens, -1)), mask, total)

    # ---------------------------------------------------------------- acting

    def initial_memory(self, batch: int, context_frames: int | None = None) -> Memory:
        """The state of every memory layer before anything was seen; see `WorldActionModel`. Guided: two for each."""
        if context_frames is None:
            context_frames = self.config.memory.context_frames or 0
        return Memory(states=self._no_states(batch), context_frames=context_frames)

    def _no_states(self, batch: int) -> States:
        rows = batch * (2 if self.config.guided else 1)
        layers = [self.memory_before(i) for i in range(len(self.blocks))]
        return tuple(layer.start(rows) for layer in layers if layer is not None)

    @torch.no_grad()
    def observe(
        self,
        memory: Memory,
        frame: Frame,
        previous_action: Tensor,
        previous_mask: Tensor,
        *,
        exists: Tensor | None = None,
    ) -> Memory:
        """The long-term memory after a real frame and the actions executed before it; see `WorldActionModel`.

        A memory that holds `context_frames` is emptied first, as a training window begins empty: what it would be
        beyond that, nobody has taught the network to read.
        """
        if memory.context_frames and memory.frames >= memory.context_frames:
            memory = replace(memory, states=self._no_states(len(frame.tokens)), frames=0)
        tokens, x = self._context(frame)
        p = self.preprocess
        valid = p.codec.valid(frame.action_valid)[:, None]
        past = p.past(previous_action, frame.proprio, previous_mask[:, None, None] & valid).flatten(1)
        past = torch.where(previous_mask[:, None], self.past_in(past), 0.0)
        exists = torch.ones_like(previous_mask) if exists is None else exists
        if self.config.guided:
            past, exists = twice(past, exists)

        def written(layer: MemoryLayer[Any], state: Any, z: Tensor) -> Any:
            return layer.write(state, self.written(layer, z, past), exists)

        _, caches, states = self.run_blocks(x, None, memory.states, written)
        sight = Sight(frame=frame, tokens=tokens, caches=caches)
        return replace(memory, states=states, frames=memory.frames + 1, sight=sight)

    def _context(self, frame: Frame) -> tuple[Tensor, Tensor]:
        """Normalised tokens [R, L, C_m] and context tokens [R, n, D] of a frame; R is 2 B if the model is guided."""
        frame.check(self.data)
        tokens, proprio, text = self.preprocess.frame(frame)
        if self.config.guided:
            (tokens, proprio), text = twice(tokens, proprio), told_and_free(text)
        return tokens, self.context_tokens(tokens, torch.cat((proprio, text), dim=-1))

    def _see(self, memory: Memory, frame: Frame, scale: float) -> tuple[list[KeyValue], States, Tensor]:
        """Keys and values of the context, the states behind them, the present frame's normalised tokens [R, L, C_m].

        R is 2 B if the stage is guided, B if not. Where `frame` is what the memory was last written with, nothing is
        computed.
        """
        sight = memory.sight
        if sight is None or sight.frame is not frame:
            tokens, x = self._context(frame)
            sight = Sight(frame=frame, tokens=tokens, caches=self.extend(x, None, memory.states)[1])
        if scale != 1.0 or not self.config.guided:
            return sight.caches, memory.states, sight.tokens
        b = len(frame.tokens)
        told = [(keys[:b], values[:b]) for keys, values in sight.caches]
        return told, first_rows(memory.states, b), sight.tokens[:b]

    @torch.no_grad()
    def imagine(self, memory: Memory, frame: Frame, rng: torch.Generator, *, stop: float | None = None) -> Tensor:
        """Stage 1: the frame tau steps ahead, f32[B, L, C] in the encoder's units, masked tokens zero.

        Args:
            memory: long-term, of what was really seen; not changed.
            frame: the present.
            rng: of the noise.
            stop: flow time to denoise to, by default `flow.video_stop`. Below 1 some of the noise is left in it.
        """
        return self.frame_of(self.denoise_frame(memory, frame, self.frame_noise(frame, rng), stop=stop), frame)

    @torch.no_grad()
    def act(
        self,
        memory: Memory,
        frame: Frame,
        imagined: Tensor | None,
        rng: torch.Generator,
        *,
        level: float | None = None,
    ) -> Tensor:
        """Stage 2: absolute targets f32[B, N, A], given an imagined frame (or None: the `missing` vector).

        `level` is the flow time to which `imagined` was denoised, by default that of `imagine`.
        """
        state = self.denoise_actions(memory, frame, imagined, self.chunk_noise(frame, rng), level=level)
        return self.chunk_of(state, frame)

    def frame_noise(self, frame: Frame, rng: torch.Generator) -> flow.FlowState:
        """Where stage 1 starts: [B, L C_m] at s = 0."""
        b, length, _ = frame.tokens.shape
        x = normal((b, length * self.config.channels(self.data)), rng, frame.tokens.device)
        return flow.FlowState(x=x, s=0.0)

    def chunk_noise(self, frame: Frame, rng: torch.Generator) -> flow.FlowState:
        """Where stage 2 starts: [B, N A_c] at s = 0."""
        x = normal((len(frame.tokens), self.chunk_dim), rng, frame.tokens.device)
        return flow.FlowState(x=x, s=0.0)

    @torch.no_grad()
    def denoise_frame(
        self,
        memory: Memory,
        frame: Frame,
        state: flow.FlowState,
        *,
        stop: float | None = None,
        steps: int | None = None,
    ) -> flow.FlowState:
        """Stage 1 in part: the next frame's normalised latents [B, L C_m] from `state.s` to `stop` (`flow.video_stop`).

        In so many solver `steps`, by default their share of `flow.video_steps`. What comes out may be kept and taken up
        again, with another frame or memory too, as speculation does.
        """
        settings = self.config.flow
        caches, _, present = self._see(memory, frame, settings.video_guidance)

        def velocity(x_s: Tensor, s: Tensor) -> Tensor:
            x, _ = self.extend(self.video_tokens(x_s, s), caches, None)
            return flow.velocity_from_output(self.video_output(x, present), x_s, s, predict=self.predict, floor=1e-6)

        stop = settings.video_stop if stop is None else stop
        return flow.advance(guided(velocity, settings.video_guidance), state, stop, settings.video_grid, steps=steps)

    @torch.no_grad()
    def denoise_actions(
        self,
        memory: Memory,
        frame: Frame,
        imagined: Tensor | None,
        state: flow.FlowState,
        *,
        level: float | None = None,
        stop: float = 1.0,
        steps: int | None = None,
    ) -> flow.FlowState:
        """Stage 2 in part: normalised codes of the chunk [B, N A_c] from `state.s` to `stop`.

        The memory is read, and a working copy of it is forked and written with the imagined frame.

        Args:
            memory: as in `act`; so are `frame`, `imagined` and `level`.
            frame: the present.
            imagined: the next one.
            state: what to go on from; between 0 and 1 it may come from another frame, as in speculative inference.
            level: how far that is denoised.
            stop: flow time to go to.
            steps: of the solver; by default their share of `flow.action_steps`, and one from `flow.action_stop` to 1.
        """
        b, settings = len(frame.tokens), self.config.flow
        caches, states, present = self._see(memory, frame, settings.action_guidance)
        if imagined is None:
            condition = self.missing.expand(b, -1, -1)
        else:
            tokens = self.preprocess.tokens(imagined, frame.token_mask[..., None])
            level = self.config.shown_level if level is None else level
            condition = self.condition_tokens(tokens, torch.full((b,), level, device=tokens.device), present[:b])
        if settings.action_guidance != 1.0:
            (condition,) = twice(condition)
        _, caches = self.extend(condition, caches, states, fork=imagined is not None)

        def velocity(x_s: Tensor, s: Tensor) -> Tensor:
            h, _ = self.extend(self.action_tokens(x_s, s), caches, None)
            output = self.action_out(self.norm_action(h).flatten(1))
            return flow.velocity_from_output(output, x_s, s, predict=self.predict, floor=1e-6)

        return flow.advance(guided(velocity, settings.action_guidance), state, stop, settings.action_grid, steps=steps)

    def frame_of(self, state: flow.FlowState, frame: Frame) -> Tensor:
        """A denoised next frame in the encoder's units, f32[B, L, C], masked tokens zero."""
        x = state.x.unflatten(-1, (self.data.tokens, -1))
        return torch.where(frame.token_mask[..., None], self.preprocess.token.restore(x), 0.0)

    def chunk_of(self, state: flow.FlowState, frame: Frame) -> Tensor:
        """A denoised chunk as absolute targets f32[B, N, A], zero in dims that are not executed.

        Raises:
            ValueError: for a chunk that is not denoised to the end: nobody must execute noise.
        """
        if state.s < 1.0:
            raise ValueError(f"chunk at flow time s={state.s}: expected 1, a chunk denoised to the end")
        return self.preprocess.decode(state.x.unflatten(1, (self.data.chunk, -1)), frame.proprio, frame.action_valid)
