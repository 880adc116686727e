"""Streaming statistics of what goes through the models, as buffers, so that they travel with a checkpoint.

`RunningStats` keeps mean and scale of every entry; `PrincipalComponents` does the same for image tokens in fewer
channels, of which each says something.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Sum = Callable[[Tensor], Tensor]


class RunningStats(nn.Module):
    """Mean and standard deviation per entry of vectors of a fixed shape, over masked streams of them.

    An entry whose deviation lies below `floor` gets scale `max(deviation, floor)` if `keep_floor`, else 1: a constant
    channel's numerical noise is never blown up.
    """

    count: Tensor
    total: Tensor
    square: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...], *, floor: float, keep_floor: bool = False) -> None:
        super().__init__()
        self.floor, self.keep_floor = floor, keep_floor
        for name in ("count", "total", "square"):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    @staticmethod
    def sums(x: Tensor, mask: Tensor, over_ranks: Sum | None = None) -> Tensor:
        """f64[3, *shape]: counts, sums and sums of squares of rows `x` [n, *shape]; what to `add`.

        Only where `mask` (bool, broadcastable to x) is true; the rest is not looked at. `over_ranks` adds up what every
        rank has seen.
        """
        mask = mask.expand_as(x)
        x = torch.where(mask, x, 0.0).double()
        new = torch.stack((mask.sum(0).double(), x.sum(0), x.square().sum(0)))
        return new if over_ranks is None else over_ranks(new)

    @torch.no_grad()
    def add(self, sums: Tensor) -> None:
        """Let mean and scale follow what `sums` are of."""
        self.count += sums[0]
        self.total += sums[1]
        self.square += sums[2]
        n = self.count.clamp_min(1.0)
        mean = self.total / n
        std = (self.square / n - mean.square()).clamp_min(0.0).sqrt()
        low = torch.full_like(std, self.floor if self.keep_floor else 1.0)
        self.shift.copy_(mean)
        self.scale.copy_(torch.where(std < self.floor, low, std))

    def normalise(self, x: Tensor) -> Tensor:
        """[..., *shape] -> the same, zero mean and unit variance over the stream."""
        return (x - self.shift) / self.scale

    def restore(self, x: Tensor) -> Tensor:
        """Inverse of `normalise`."""
        return torch.addcmul(self.shift, x, self.scale)


class PrincipalComponents(nn.Module):
    """The first k principal components of token channels about each slot's own mean, normalised per slot and component.

    Many channels of a vision transformer say much the same, and imagining them all is work. Reduced features as
    generative targets are also what DINO-Foresight (arXiv 2412.11673) trains on. One basis serves all L slots, since
    what patches look like is the same everywhere; how much happens in a slot is not, and what seldom happens may be
    what matters. Answers as `RunningStats` does.

    Args:
        tokens: L. `channels`: C. `components`: k.
        basis_adds: so many calls of `add` decide the basis; from then on mean and scale along it follow.

    Raises:
        ValueError: fewer channels than components.
    """

    adds: Tensor
    count: Tensor
    total: Tensor
    product: Tensor
    shift: Tensor
    basis: Tensor

    def __init__(self, tokens: int, channels: int, components: int, *, basis_adds: int) -> None:
        super().__init__()
        if components > channels:
            raise ValueError(f"model.components={components}: expected at most the {channels} channels of a token")
        self.basis_adds = basis_adds
        self.register_buffer("adds", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros(tokens, dtype=torch.float64))
        self.register_buffer("total", torch.zeros(tokens, channels, dtype=torch.float64))
        self.register_buffer("product", torch.zeros(channels, channels, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(tokens, channels))
        self.register_buffer("basis", torch.eye(channels)[:, :components].contiguous())
        self.along = RunningStats((tokens, components), floor=1e-3)

    def sums(self, x: Tensor, mask: Tensor, over_ranks: Sum | None = None) -> Tensor:
        """Of rows `x` [n, L, C], what to `add`: f64[L + L C + C C] counts, sums and products, later f64[3, L, k].

        Only where `mask` (bool, broadcastable to [n, L, 1]) is true; the rest is not looked at. `over_ranks` adds up
        what every rank has seen.
        """
        if int(self.adds) >= self.basis_adds:
            return self.along.sums(self._along(torch.where(mask, x, 0.0)), mask, over_ranks)
        x = torch.where(mask, x, 0.0).double()
        flat = x.flatten(0, 1)
        count = mask.expand(*x.shape[:2], 1).sum((0, 2)).double()
        new = torch.cat((count, x.sum(0).flatten(), (flat.T @ flat).flatten()))
        return new if over_ranks is None else over_ranks(new)

    @torch.no_grad()
    def add(self, sums: Tensor) -> None:
        """Let the basis, or mean and scale along it, follow what `sums` are of."""
        self.adds += 1
        if int(self.adds) > self.basis_adds:
            self.along.add(sums)
            return
        seen = (self.count, self.total, self.product)
        for whole, part in zip(seen, sums.split([buffer.numel() for buffer in seen]), strict=True):
            whole.add_(part.view_as(whole))
        mean = self.total / self.count.clamp_min(1.0)[:, None]
        within = (self.product - self.total.T @ mean) / self.count.sum().clamp_min(1.0)
        values, vectors = torch.linalg.eigh(within)
        k = self.basis.shape[1]
        basis, deviation = vectors.flip(-1)[:, :k], values.flip(-1)[:k].clamp_min(0.0).sqrt()
        largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))  # an eigenvector's sign is anybody's choice
        self.shift.copy_(mean)
        self.basis.copy_(basis * largest.sign())
        self.along.scale.copy_(torch.where(deviation < self.along.floor, 1.0, deviation))

    def normalise(self, x: Tensor) -> Tensor:
        """[..., L, C] -> [..., L, k], zero mean and unit variance over the stream."""
        return self.along.normalise(self._along(x))

    def restore(self, x: Tensor) -> Tensor:
        """[..., L, k] -> [..., L, C]: the nearest tokens that have these components."""
        with torch.autocast(x.device.type, enabled=False):
            return self.shift + self.along.restore(x.float()) @ self.basis.T

    def _along(self, x: Tensor) -> Tensor:
        # In float32 whatever format a model multiplies in: means are large beside what varies.
        with torch.autocast(x.device.type, enabled=False):
            return (x.float() - self.shift) @ self.basis
