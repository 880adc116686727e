"""The dual-state TTT-MLP memory: an inner MLP whose weights are the state, of constant size for any history.

Source: arXiv 2604.16484, section on the dual-state memory. Inner model f(z; W) = gelu(z W1 + b1) W2 / sqrt(m) + b2,
inner loss l(W; z) = |f(theta_K z; W) - theta_V z|^2 with keys and targets of unit length, read-out f(theta_Q z; W).
The long-term state is written with real observations and executed actions; a working state is a copy, written once with
an imagined frame, read, and thrown away. Each inner gradient is a sum of outer products of its factors, which gives two
forms: the primal one keeps the weights per sequence (inference), the dual one never builds them (training).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from learner.config import MemoryConfig
from learner.memory.interface import MemoryLayer


@dataclass(frozen=True, kw_only=True)
class FastWeights:
    """State of one memory: w1 [B, d, m], b1 [B, 1, m], w2 [B, m, d], b2 [B, 1, d]; B is absent when shared."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.w1, self.b1, self.w2, self.b2))


@dataclass(frozen=True, kw_only=True)
class GradientFactors:
    """Per written token: dl/dW2 = hidden^T error, dl/db2 = error, dl/dW1 = key^T slope, dl/db1 = slope.

    Attributes: key [..., n, d], slope [..., n, m], hidden [..., n, m] (divided by sqrt(m)), error [..., n, d].
    """

    key: Tensor
    slope: Tensor
    hidden: Tensor
    error: Tensor


class GeluPair(torch.autograd.Function):
    """The tanh form of GELU and its derivative, [...] -> ([...], [...]), sharing one tanh, with closed-form backward.

    Plain autograd through the derivative costs several times as much on a CPU, where the inner loss needs both.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        """GELU and slope of `z`."""
        t = torch.tanh(GeluPair._argument(z))
        half = 0.5 * (1.0 + t)
        slope = torch.addcmul(half, 0.5 * z * (1.0 - t * t), GeluPair._argument_slope(z))
        ctx.save_for_backward(z, t, slope)
        ctx.set_materialize_grads(False)
        return z * half, slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_slope: Tensor | None) -> Tensor | None:
        """Gradient with respect to `z`."""
        z, t, slope = ctx.saved_tensors
        total = None if grad is None else grad * slope
        if grad_slope is not None:
            du, q = GeluPair._argument_slope(z), 1.0 - t * t
            ddu = (6 * 0.044715 * math.sqrt(2.0 / math.pi)) * z
            bend = q * torch.addcmul(du, 0.5 * z, ddu - 2.0 * t * du * du)
            total = grad_slope * bend if total is None else torch.addcmul(total, grad_slope, bend)
        return total

    @staticmethod
    def _argument(z: Tensor) -> Tensor:
        return z * (math.sqrt(2.0 / math.pi) * (1.0 + 0.044715 * (z * z)))

    @staticmethod
    def _argument_slope(z: Tensor) -> Tensor:
        return math.sqrt(2.0 / math.pi) * (1.0 + 3 * 0.044715 * (z * z))


def inner_read(w: FastWeights, q: Tensor) -> Tensor:
    """f(q; W): [..., n, d] -> [..., n, d]."""
    scale = w.b1.shape[-1] ** -0.5
    return (GeluPair.apply(q @ w.w1 + w.b1)[0] * scale) @ w.w2 + w.b2


def inner_gradients(w: FastWeights, k: Tensor, v: Tensor) -> GradientFactors:
    """Factors of the gradient of l(W) = |f(k; W) - v|^2 for keys and targets [..., n, d]."""
    scale = w.b1.shape[-1] ** -0.5
    z = k @ w.w1 + w.b1
    value, bend = GeluPair.apply(z)
    hidden = value * scale
    error = 2.0 * (hidden @ w.w2 + w.b2 - v)
    slope = (error @ w.w2.transpose(-1, -2)) * bend * scale
    return GradientFactors(key=k, slope=slope, hidden=hidden, error=error)


def primal_step(w: FastWeights, initial: FastWeights, g: GradientFactors, rate: Tensor, keep: Tensor) -> FastWeights:
    """W0 + keep (W - W0) - sum_n rate_n grad_n.

    Args:
        w: present state, one per sequence.
        initial: W0.
        g: factors [B, n, .].
        rate: [B, n], step size per written token.
        keep: [B], share of W - W0 that survives.
    """
    keep_1 = keep[:, None, None]
    rate_1 = rate.unsqueeze(-1)
    slope, error = g.slope * rate_1, g.error * rate_1
    steps = (
        g.key.transpose(-1, -2) @ slope,
        slope.sum(-2, keepdim=True),
        g.hidden.transpose(-1, -2) @ error,
        error.sum(-2, keepdim=True),
    )
    new = [torch.lerp(w_0.expand_as(w_t), w_t, keep_1) - step for w_t, w_0, step in zip(w, initial, steps, strict=True)]
    return FastWeights(w1=new[0], b1=new[1], w2=new[2], b2=new[3])


def dual_read(w: FastWeights, g: GradientFactors, q: Tensor, rate: Tensor) -> Tensor:
    """f(q_i; W - sum_n rate_in grad_n) without building those weights.

    Args:
        w: the state at which all gradients were taken, shared by all sequences.
        g: factors of the written tokens, [B, n, .].
        q: [B, i, d], queries.
        rate: [B, i, n], step size of each written token as query i sees it.
    """
    scale = w.b1.shape[-1] ** -0.5
    z = q @ w.w1 + w.b1 - (rate * (q @ g.key.transpose(-1, -2) + 1.0)) @ g.slope
    hidden = GeluPair.apply(z)[0] * scale
    return hidden @ w.w2 + w.b2 - (rate * (hidden @ g.hidden.transpose(-1, -2) + 1.0)) @ g.error


class TTTLayer(MemoryLayer[FastWeights]):
    """One TTT memory inside the transformer. All methods are pure: states go in and come out."""

    def __init__(self, width: int, config: MemoryConfig) -> None:
        super().__init__(width, config)
        d, m = config.dim, 4 * config.dim
        self.w1 = nn.Parameter(torch.randn(d, m))
        self.b1 = nn.Parameter(torch.zeros(1, m))
        self.w2 = nn.Parameter(torch.randn(m, d) / math.sqrt(d))
        self.b2 = nn.Parameter(torch.zeros(1, d))

    @property
    def initial(self) -> FastWeights:
        """W0, learned, shared by all sequences."""
        return FastWeights(w1=self.w1, b1=self.b1, w2=self.w2, b2=self.b2)

    def start(self, batch: int) -> FastWeights:
        """W0 for each of `batch` sequences."""
        w1, b1, w2, b2 = (w.expand(batch, *w.shape) for w in self.initial)
        return FastWeights(w1=w1, b1=b1, w2=w2, b2=b2)

    def keys(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Unit keys and unit targets [..., d] of normalised tokens [..., D]."""
        k, v = self.theta_kv(z).chunk(2, dim=-1)
        return F.normalize(k, dim=-1), F.normalize(v, dim=-1)

    def queries(self, z: Tensor) -> Tensor:
        """Unit queries [..., d] of normalised tokens [..., D]."""
        return F.normalize(self.theta_q(z), dim=-1)

    def write(self, state: FastWeights, written: Tensor, exists: Tensor) -> FastWeights:
        """See `MemoryLayer.write`: one inner step over the frame's tokens."""
        k, v = self.keys(written)
        at = state if self.config.rule == "online" else self.initial
        rate = (exists.to(k.dtype) * (self.config.lr / written.shape[1])).unsqueeze(-1).expand(k.shape[:2])
        keep = torch.where(exists, self.config.decay, 1.0).to(state.w1.dtype)  # under autocast keys are bfloat16
        return primal_step(state, self.initial, inner_gradients(at, k, v), rate, keep)

    def fork(self, state: FastWeights, imagined: Tensor, shown: Tensor) -> FastWeights:
        """See `MemoryLayer.fork`: one inner step over the imagined tokens, on a copy."""
        return self.write(state, self.norm(imagined), shown)

    def read(self, state: FastWeights, x: Tensor) -> Tensor:
        """Tokens [B, n, D] with what the state remembers about them added."""
        return self.gate(x, inner_read(state, self.queries(self.norm(x))))

    def scan(
        self, context: Tensor, written: Tensor, exists: Tensor, condition: Tensor | None, shown: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `MemoryLayer.scan`, from W0: in the dual form, or for the rule `online` frame by frame."""
        if self.config.rule == "online":
            return self.scan_frames(context, written, exists, condition, shown)
        frames, n = context.shape[1:3]
        rate = self._long_rates(frames, n, exists)
        x, writes = context.flatten(1, 2), written.flatten(1, 2)
        z = self.norm(x)
        if condition is not None and shown is not None:
            imagined = condition.flatten(1, 2)
            z_imagined = self.norm(imagined)
            x, z = torch.cat((x, imagined), dim=1), torch.cat((z, z_imagined), dim=1)
            writes = torch.cat((writes, z_imagined), dim=1)
            rate = self._with_working(rate, frames, n, condition.shape[2], shown)
        factors = inner_gradients(self.initial, *self.keys(writes))
        x = self.gate(x, dual_read(self.initial, factors, self.queries(z), rate))
        new_context = x[:, : frames * n].unflatten(1, (frames, n))
        return new_context, None if condition is None else x[:, frames * n :].unflatten(1, (frames, -1))

    def _long_rates(self, frames: int, n: int, exists: Tensor) -> Tensor:
        """[B, K n, K n]: weight of each written token in each context token's state."""
        t = torch.arange(frames, device=exists.device)
        age = t[:, None] - t[None, :]
        weight = torch.where(age >= 0, self.config.decay ** age.clamp_min(0).float(), 0.0) * (self.config.lr / n)
        weight = weight.repeat_interleave(n, 0).repeat_interleave(n, 1).to(self.w1.dtype)
        return weight * exists.repeat_interleave(n, 1)[:, None, :]

    def _with_working(self, long: Tensor, frames: int, n: int, c: int, shown: Tensor) -> Tensor:
        """[B, K n + K c, K n + K c]: the same with the condition tokens as writers and readers of working states."""
        b = long.shape[0]
        keep = torch.where(shown, self.config.decay, 1.0).to(long.dtype).repeat_interleave(c, 1)
        of_condition = long[:, ::n].repeat_interleave(c, 1) * keep[:, :, None]
        own = torch.eye(frames, device=long.device, dtype=long.dtype) * (self.config.lr / c)
        own = own.repeat_interleave(c, 0).repeat_interleave(c, 1) * shown.repeat_interleave(c, 1)[:, None, :]
        top = torch.cat((long, long.new_zeros(b, frames * n, frames * c)), dim=2)
        return torch.cat((top, torch.cat((of_condition, own), dim=2)), dim=1)
