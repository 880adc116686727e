"""What every model of this project can do, seen from a training loop, a policy runtime or a benchmark.

A memory goes in and comes out; it never lives on a model. Its type is the model's own business.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from learner.batch import Frame, TensorBatch
from learner.config import DataSpec, ModelConfig
from learner.flow import FlowState
from learner.normalise import Preprocessor

Memory = Any


class WorldActionModel(Protocol):
    """CLWM, the plain flow policy, and every system that is compared with them.

    Attributes:
        config: the model's settings. `data`: what it was built for. `preprocess`: normalisers and action codec.
    """

    config: ModelConfig
    data: DataSpec
    preprocess: Preprocessor

    def loss(
        self, batch: TensorBatch, rng: torch.Generator, progress: float = 1.0, entries: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Scalar losses; `loss` is the one to minimise, the others are its parts. Masked entries have no effect.

        Args:
            batch: B windows.
            rng: source of noise and times.
            progress: share of training done, in [0, 1].
            entries: of a larger batch that this is a part of, see `losses.entries_under_loss`; None: it is all.
        """
        ...

    def initial_memory(self, batch: int, context_frames: int | None = None) -> Memory:
        """The memory before anything was seen, for `batch` sequences.

        After every `context_frames` frames it starts anew: by default the model's own setting, 0: never.
        """
        ...

    def observe(
        self,
        memory: Memory,
        frame: Frame,
        previous_action: Tensor,
        previous_mask: Tensor,
        *,
        exists: Tensor | None = None,
    ) -> Memory:
        """The memory after a real frame and the tau actions executed before it.

        What acting needs of the frame comes with it: `imagine` and `act` on the very same `frame` do not look again.

        Args:
            memory: of the frames before; not changed.
            frame: the present.
            previous_action: f32[B, tau, A], absolute.
            previous_mask: bool[B], whether they existed.
            exists: bool[B], whether the frame does; where not, nothing is written. None: everywhere.
        """
        ...

    def imagine(
        self, memory: Memory, frame: Frame, rng: torch.Generator, *, stop: float | None = None
    ) -> Tensor | None:
        """The frame tau steps ahead, f32[B, L, C] in the encoder's units; None from a model without a world model.

        `stop` is the flow time to denoise to; by default the model's setting, at which `act` expects to be shown it.
        """
        ...

    def act(
        self,
        memory: Memory,
        frame: Frame,
        imagined: Tensor | None,
        rng: torch.Generator,
        *,
        level: float | None = None,
    ) -> Tensor:
        """Absolute targets of the next N steps, f32[B, N, A], zero in dims that are not executed.

        `level` is the flow time to which `imagined` was denoised; by default where `imagine` stops.
        """
        ...


class StagedModel(WorldActionModel, Protocol):
    """A world-action model whose two flows can be followed in parts: what speculative inference needs."""

    def frame_noise(self, frame: Frame, rng: torch.Generator) -> FlowState:
        """Where the next frame starts: [B, L C_m] at s = 0."""
        ...

    def chunk_noise(self, frame: Frame, rng: torch.Generator) -> FlowState:
        """Where the chunk starts: [B, N A_c] at s = 0."""
        ...

    def denoise_frame(
        self,
        memory: Memory,
        frame: Frame,
        state: FlowState,
        *,
        stop: float | None = None,
        steps: int | None = None,
    ) -> FlowState:
        """The next frame's latents taken on to `stop`, by default `flow.video_stop`, in `steps` of the solver."""
        ...

    def denoise_actions(
        self,
        memory: Memory,
        frame: Frame,
        imagined: Tensor | None,
        state: FlowState,
        *,
        level: float | None = None,
        stop: float = 1.0,
        steps: int | None = None,
    ) -> FlowState:
        """The chunk's codes taken on to `stop`, given a next frame in the encoder's units, denoised to `level`.

        `steps` are the solver's.
        """
        ...

    def frame_of(self, state: FlowState, frame: Frame) -> Tensor:
        """A next frame in the encoder's units, f32[B, L, C]."""
        ...

    def chunk_of(self, state: FlowState, frame: Frame) -> Tensor:
        """A finished chunk as absolute targets f32[B, N, A]; see there for what is refused."""
        ...
