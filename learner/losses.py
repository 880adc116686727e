"""Masked means of flow-matching errors: what exists counts, padding does not."""

from __future__ import annotations

from torch import Tensor

from learner import flow
from learner.config import FlowConfig


def masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    """Mean of `error` [...] where `mask` [...] (bool or weight, broadcastable) holds; 0 if it holds nowhere."""
    weight = mask.to(error.dtype).expand_as(error)
    return (error * weight).sum() / weight.sum().clamp_min(1.0)


def action_error(output: Tensor, path: flow.PathSample, mask: Tensor, config: FlowConfig) -> Tensor:
    """Mean squared velocity error of action chunks.

    Args:
        output: [R, M, N A_c], network outputs for M draws per chunk.
        path: the points they were computed at.
        mask: bool[R, N, A_c], entries under the loss.
        config: parameterisation.
    """
    error = flow.velocity_error(output.float(), path, predict=config.predict, floor=config.floor)
    return masked_mean(error, mask.flatten(1)[:, None])
