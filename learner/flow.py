"""Flow matching: the straight path from noise to data, its velocity, and the solvers that follow it.

Stateless. Time runs from s=0 (noise) to s=1 (data). Source: arXiv 2604.16484, section "Flow matching":
x^(s) = (1 - s) eps + s x with target velocity x - eps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.noise import uniform

Velocity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class PathSample:
    """A point of the path from noise to data.

    Attributes:
        x_s: [..., n], the point at time `s`.
        dx_s: [..., n], the velocity there, x - eps.
        s: [...], times in [0, 1].
    """

    x_s: Tensor
    dx_s: Tensor
    s: Tensor


@dataclass(frozen=True, kw_only=True)
class FlowState:
    """A sample on its way from noise to data: `x` [B, n] at time `s` in [0, 1]."""

    x: Tensor
    s: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How finely to integrate: `steps` equal solver steps from 0 to `stop`, and one more from there to 1."""

    steps: int
    stop: float = 1.0
    solver: str = "euler"

    @property
    def evaluations_per_step(self) -> int:
        """Of the velocity."""
        return 2 if self.solver == "midpoint" else 1

    def share(self, s0: float, s1: float) -> int:
        """How many of its steps the stretch from `s0` to `s1` <= `stop` gets, at least one."""
        return max(1, round(self.steps / self.stop * (s1 - s0)))


def sample_path(x: Tensor, noise: Tensor, s: Tensor) -> PathSample:
    """The point at time `s` between `noise` and `x`.

    Args:
        x: [..., n] data.
        noise: the same shape, or one that x broadcasts to.
        s: [...] times in [0, 1], one per vector.

    Raises:
        ValueError: if `s` has not the leading shape of `noise`.
    """
    if s.shape != noise.shape[:-1]:
        raise ValueError(f"s: shape {list(s.shape)}, expected {list(noise.shape[:-1])}")
    s_1 = s.unsqueeze(-1)
    return PathSample(x_s=torch.lerp(noise, x.expand_as(noise), s_1), dx_s=x - noise, s=s)


def sample_times(shape: tuple[int, ...], noise_bias: float, rng: torch.Generator, device: torch.device) -> Tensor:
    """Training times s = 1 - u^(1 / noise_bias), u uniform in [0, 1): Beta(1, noise_bias), uniform at 1."""
    u = uniform(shape, rng, device)
    return 1.0 - u if noise_bias == 1.0 else 1.0 - u.pow(1.0 / noise_bias)


def velocity_from_output(output: Tensor, x_s: Tensor, s: Tensor, *, predict: str, floor: float) -> Tensor:
    """The velocity that a network's output stands for.

    Args:
        output: [..., n], the network's output.
        x_s: [..., n], where it was evaluated.
        s: [...], when.
        predict: `velocity` (output is returned) or `clean` (output is an estimate of x).
        floor: lower limit of 1 - s in the division.
    """
    if predict == "velocity":
        return output
    return (output - x_s) / (1.0 - s).clamp_min(floor).unsqueeze(-1)


def velocity_error(output: Tensor, path: PathSample, *, predict: str, floor: float) -> Tensor:
    """Squared velocity error per entry, [..., n]: the flow-matching loss before its mean.

    For `clean` this is the squared error of the estimate of x times 1 / max(1 - s, floor)^2, which equals the squared
    velocity error wherever 1 - s >= floor.
    """
    if predict == "velocity":
        return (output - path.dx_s).square()
    s_1 = path.s.unsqueeze(-1)
    x = path.x_s + (1.0 - s_1) * path.dx_s
    return ((output - x) / (1.0 - s_1).clamp_min(floor)).square()


def integrate(
    velocity: Velocity, x: Tensor, *, steps: int, s0: float = 0.0, s1: float = 1.0, solver: str = "euler"
) -> Tensor:
    """Follow dx/ds = velocity(x, s) from `s0` to `s1`; two calls that meet at s_mid equal one with the same grid.

    Args:
        velocity: maps ([B, n], s: [B]) to [B, n].
        x: [B, n], the point at `s0` (noise where s0 = 0).
        steps: equal solver steps, at least 1.
        s0: start, 0 <= s0 <= s1.
        s1: end, at most 1.
        solver: `euler` or `midpoint` (two evaluations per step).

    Raises:
        ValueError: for times out of order, no steps, or an unknown solver.
    """
    if not 0.0 <= s0 <= s1 <= 1.0:
        raise ValueError(f"s0={s0}, s1={s1}: expected 0 <= s0 <= s1 <= 1")
    if steps < 1:
        raise ValueError(f"steps={steps}: expected at least 1")
    if solver not in ("euler", "midpoint"):
        raise ValueError(f"solver={solver!r}: expected euler or midpoint")
    h = (s1 - s0) / steps
    for i in range(steps):
        s = torch.full(x.shape[:1], s0 + i * h, dtype=x.dtype, device=x.device)
        dx = velocity(x, s)
        if solver == "midpoint":
            dx = velocity(x + 0.5 * h * dx, s + 0.5 * h)
        x = x + h * dx
    return x


def advance(velocity: Velocity, state: FlowState, stop: float, grid: Grid, *, steps: int | None = None) -> FlowState:
    """Take `state` on to time `stop`, in so many `steps`, or as finely as `grid` says.

    A stretch gets its share of the grid's steps, at least one: stretches that meet on grid points equal one in one go.

    Raises:
        ValueError: if `stop` lies before `state.s` or after 1, or for fewer than one step.
    """
    if not state.s <= stop <= 1.0:
        raise ValueError(f"stop={stop}: expected a flow time between the sample's {state.s} and 1")
    x, s = state.x, state.s
    stretches = [(min(stop, grid.stop), None), (stop, 1)] if steps is None else [(stop, steps)]
    for end, given in stretches:
        if s < end:
            count = grid.share(s, end) if given is None else given
            x, s = integrate(velocity, x, steps=count, s0=s, s1=end, solver=grid.solver), end
    return FlowState(x=x, s=s)
