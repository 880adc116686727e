"""Masked means of flow-matching errors: what exists counts, padding does not."""

from __future__ import annotations

import torch
from torch import Tensor

from learner import flow
from learner.batch import TensorBatch
from learner.config import FlowConfig


def masked_mean(error: Tensor, mask: Tensor, entries: Tensor | None = None) -> Tensor:
    """Mean of `error` [...] where `mask` [...] (bool or weight, broadcastable) holds; 0 if it holds nowhere.

    `entries` is what to divide by where `error` is a part of a larger batch: the number of entries in all of it.
    """
    weight = mask.to(error.dtype).expand_as(error)
    total = weight.sum() if entries is None else entries.to(error.dtype)
    return (error * weight).sum() / total.clamp_min(1.0)


def frames_under_loss(batch: TensorBatch) -> Tensor:
    """bool[B, K], frames from which the next one is learned.

    Both exist, and an action of the frame is under the loss: neither burn-in nor what a mistake leads to shall be
    imagined.
    """
    return batch.frame_mask[:, 1:] & batch.frame_mask[:, :-1] & batch.action_mask.any(-1)


def entries_under_loss(batch: TensorBatch, valid: Tensor, channels: int, draws: int) -> Tensor:
    """f64[2]: entries under the action loss and under the video loss, which the means of a batch divide by.

    Args:
        batch: B windows.
        valid: bool[B, A_c], codes that the embodiment has.
        channels: of a token under the video loss.
        draws: noise draws per chunk.
    """
    chosen = (batch.action_mask[..., None] & valid[:, None, None]).sum() * draws
    video = (frames_under_loss(batch)[:, :, None] & batch.token_mask[:, None]).sum() * channels
    return torch.stack((chosen, video)).double()


def action_error(
    output: Tensor, path: flow.PathSample, mask: Tensor, config: FlowConfig, entries: Tensor | None = None
) -> Tensor:
    """Mean squared velocity error of action chunks.

    Args:
        output: [R, M, N A_c], network outputs for M draws per chunk.
        path: the points they were computed at.
        mask: bool[R, N, A_c], entries under the loss.
        config: parameterisation.
        entries: see `masked_mean`.
    """
    error = flow.velocity_error(output.float(), path, predict=config.predict, floor=config.floor)
    return masked_mean(error, mask.flatten(1)[:, None], entries)
