"""Several ranks, one model: replicas (`ddp`) or shards (`fsdp2`), and the sums that make them one learner.

Ranks see parts of one global batch. Losses are divided by the entries of that whole batch, statistics are summed over
it, and noise belongs to a place in it (`Slots`), so a step does not depend on how the batch was divided.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

KINDS = ("none", "ddp", "fsdp2")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This rank's place among all.

    Attributes:
        rank, world: as in `torch.distributed`.
        kind: `none`, alone; `ddp`, every rank holds the whole model; or `fsdp2`, each holds a shard of it and of the
            optimiser's state. The last two need an initialised process group.
    """

    rank: int = 0
    world: int = 1
    kind: str = "none"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"parallel={self.kind!r}: expected one of {', '.join(KINDS)}")

    def place(self, model: nn.Module) -> None:
        """Shard `model` in place where that is asked for: block by block, and the rest as one group."""
        if self.kind == "fsdp2":
            blocks = model.get_submodule("blocks")
            for block in blocks.children():
                fully_shard(block)
            fully_shard(model)

    def wrap(self, model: nn.Module) -> nn.Module:
        """What to call for a forward pass: `model`, or replicas of it kept equal."""
        return DistributedDataParallel(model) if self.kind == "ddp" else model

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over all ranks, in place."""
        if self.kind != "none":
            dist.all_reduce(values)
        return values

    def merged(self, states: dict[str, Tensor]) -> dict[str, Tensor]:
        """`states` of all ranks, which have different keys, as one; every rank must ask for it."""
        if self.kind == "none":
            return states
        parts: list[dict[str, Tensor]] = [{}] * self.world
        dist.all_gather_object(parts, states)
        return {key: value for part in parts for key, value in part.items()}

    @contextmanager
    def gradients(self, wrapped: nn.Module, *, last: bool) -> Iterator[None]:
        """For a forward and a backward pass: gradients are exchanged after the last one of a step alone."""
        if isinstance(wrapped, FSDPModule):
            wrapped.set_requires_gradient_sync(last)
        if isinstance(wrapped, DistributedDataParallel) and not last:
            with wrapped.no_sync():
                yield
        else:
            yield


def whole(tensor: Tensor) -> Tensor:
    """A tensor, or all of one that is sharded; every rank must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def mine(tensor: Tensor) -> Tensor:
    """A tensor, or this rank's part of one that is sharded; shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor placed as `parameter` is: on its device, and sharded if it is."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value.to(parameter.device)


class Slots:
    """Noise generators of a rank's micro-batches, numbered through the global batch.

    One rank with four micro-batches draws what four ranks with one each do.

    Args:
        seed: of the training noise.
        ranks: this rank's place. `count`: its micro-batches per step.
        device: where noise is drawn.
    """

    def __init__(self, seed: int, ranks: Ranks, count: int, device: torch.device) -> None:
        self.first, self._seed = ranks.rank * count, seed
        self.generators = [
            torch.Generator(device=device).manual_seed(seed * 1_000_003 + self.first + i) for i in range(count)
        ]

    def states(self) -> dict[str, Tensor]:
        """By slot number; what a checkpoint keeps."""
        return {str(self.first + i): generator.get_state() for i, generator in enumerate(self.generators)}

    def restore(self, states: dict[str, Tensor], steps: int) -> None:
        """Go on from saved states; a slot that has none starts from its own seed, moved on by the steps done.

        So does one whose state is that of another kind of device, whose generators are others; a warning says so.
        """
        foreign = None
        for i, generator in enumerate(self.generators):
            slot = self.first + i
            saved, own = states.get(str(slot)), generator.get_state()
            if saved is not None and saved.shape == own.shape:
                generator.set_state(saved)
                continue
            generator.manual_seed((self._seed * 1_000_003 + slot) * 1_000_003 + steps)
            foreign = foreign if saved is None else (saved.numel(), own.numel())
        if foreign is not None:
            logging.getLogger(__name__).warning(
                "the checkpoint's noise generators are of another kind of device (%d bytes of state, expected %d on "
                "%s): they start anew from their seeds, training does not go on bit for bit",
                *foreign,
                self.generators[0].device,
            )
