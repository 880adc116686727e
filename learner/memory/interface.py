"""What every memory inside the network can do: a state goes in and comes out, and is never kept on the module.

A *long-term* state is written with what was really seen and done. A *working* state is forked from it with an imagined
frame, read, and dropped; the long-term state is not changed by that. Tokens [B, n, D] are those of one frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from learner.config import MemoryConfig

S = TypeVar("S")


class MemoryLayer(nn.Module, ABC, Generic[S]):
    """One memory before one block: reads with a gated residual tanh(alpha) * theta_O read + x, alpha per channel."""

    def __init__(self, width: int, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(width, elementwise_affine=False)  # a gain would outgrow the noise of histories
        self.theta_kv = nn.Linear(width, 2 * config.dim, bias=False)
        self.theta_q = nn.Linear(width, config.dim, bias=False)
        self.theta_o = nn.Linear(config.dim, width, bias=False)
        self.alpha = nn.Parameter(torch.full((width,), config.alpha))

    def gate(self, x: Tensor, read: Tensor) -> Tensor:
        """tanh(alpha) * theta_O read + x."""
        return torch.addcmul(x, torch.tanh(self.alpha), self.theta_o(read))

    @abstractmethod
    def start(self, batch: int) -> S:
        """The state of `batch` sequences of which nothing was seen."""

    @abstractmethod
    def write(self, state: S, written: Tensor, exists: Tensor) -> S:
        """The long-term state after one more frame; what was only predicted is purged.

        Args:
            state: before; not changed.
            written: [B, n, D], normalised tokens.
            exists: bool[B]; other sequences write nothing.
        """

    @abstractmethod
    def fork(self, state: S, imagined: Tensor, shown: Tensor) -> S:
        """A working state: `state` as it would be if the imagined tokens [B, c, D] had been seen, where `shown`."""

    @abstractmethod
    def read(self, state: S, x: Tensor) -> Tensor:
        """Tokens [B, n, D] with what the memory answers added, gated."""

    @abstractmethod
    def scan(
        self, context: Tensor, written: Tensor, exists: Tensor, condition: Tensor | None, shown: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Write, fork and read over whole windows: what the frame-by-frame form does, and as it does it.

        Args:
            context: [B, K, n, D], tokens that read the long-term state, their own frame written already.
            written: [B, K, n, D], normalised tokens that the long-term state is written with.
            exists: bool[B, K]; other frames are not written.
            condition: [B, K, c, D], next-frame tokens: frame t's fork and read the working state of frame t.
            shown: bool[B, K], where a next frame is shown at all; elsewhere the working state is the long-term one.

        Returns:
            `context` and `condition` with their reads added.
        """

    def scan_frames(
        self, context: Tensor, written: Tensor, exists: Tensor, condition: Tensor | None, shown: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """`scan`, frame by frame: the reference for every faster form."""
        state = self.start(context.shape[0])
        contexts, conditions = [], []
        for t in range(context.shape[1]):
            state = self.write(state, written[:, t], exists[:, t])
            contexts.append(self.read(state, context[:, t]))
            if condition is not None and shown is not None:
                working = self.fork(state, condition[:, t], shown[:, t])
                conditions.append(self.read(working, condition[:, t]))
        return torch.stack(contexts, 1), torch.stack(conditions, 1) if conditions else None


def state_bytes(states: Iterable[object]) -> int:
    """Bytes of all tensors in the states of a model's memories, views of shared storage at their full size."""
    tensors = [
        getattr(state, field.name)
        for state in states
        if is_dataclass(state)
        for field in fields(state)
        if _is_tensor(state, field.name)
    ]
    return sum(t.numel() * t.element_size() for t in tensors)


def first_rows(states: Iterable[Any], batch: int) -> tuple[Any, ...]:
    """The states of the first `batch` sequences."""
    return tuple(
        replace(state, **{f.name: getattr(state, f.name)[:batch] for f in fields(state) if _is_tensor(state, f.name)})
        for state in states
    )


def _is_tensor(state: object, name: str) -> bool:
    return isinstance(getattr(state, name), Tensor)
