"""One optimisation step, and everything that has to survive between two of them.

`TrainState` owns the model, its moving average, the optimiser, the noise generator and the counters. It takes batches
and the share of training done; where they come from, and who else computes gradients, is the caller's business.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from learner.batch import TensorBatch
from learner.clwm import CLWM
from learner.config import TrainConfig
from learner.flow_policy import FlowPolicy
from learner.parallel import Ranks, Slots, mine, whole

Model = CLWM | FlowPolicy


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Linear warm-up, then a cosine to `lr_end * lr`; a function of progress in [0, 1] alone."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < config.warmup:
        return config.lr * max(progress / config.warmup, 1e-2)
    done = (progress - config.warmup) / max(1.0 - config.warmup, 1e-9)
    return config.lr * (config.lr_end + (1.0 - config.lr_end) * 0.5 * (1.0 + math.cos(math.pi * done)))


class TrainState:
    """A model in training.

    Attributes:
        model: the weights that gradients change. `ema`: their moving average, what is evaluated and served.
        steps: batches seen. `skipped`: those whose gradient was not finite and changed nothing.
        slots: sources of all training noise.
    """

    def __init__(
        self, model: Model, config: TrainConfig, *, ema: Model | None = None, ranks: Ranks | None = None
    ) -> None:
        """Prepare training.

        Args:
            model: freshly built or loaded, on its device, whole; equal on all ranks.
            config: optimisation settings.
            ema: its moving average, if it has one already.
            ranks: who else computes gradients of the same step.
        """
        self.config, self.model, self.ranks = config, model, ranks or Ranks()
        self.ema: Model = (ema if ema is not None else copy.deepcopy(model)).requires_grad_(False).eval()
        self.device = next(model.parameters()).device
        for placed in (self.model, self.ema):
            self.ranks.place(placed)
        self.model.recompute = config.recompute
        if config.compile:
            for block in self.model.blocks:
                block.compile()
        self._forward = self.ranks.wrap(model)
        self.steps, self.skipped, self.updates = 0, 0, 0
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
        noise_from = torch.device("cpu") if config.noise == "cpu" else self.device
        self.slots = Slots(config.seed, self.ranks, config.accumulate, noise_from)

    def step(self, batch: TensorBatch, progress: float) -> dict[str, float]:
        """Learn from one batch.

        Args:
            batch: this rank's windows of it, on the model's device.
            progress: share of training done, in [0, 1]: sets the learning rate.

        Returns:
            Scalars of the batch over all ranks: the model's losses, `grad_norm` (before clipping), `lr`, `skipped` (so
            far).
        """
        self.model.train()
        self.model.preprocess.observe(batch, self.ranks.sum)
        lr = learning_rate(self.config, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)
        losses = self._gradients(batch, progress)
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip, foreach=True))
        self.steps += 1
        if bool(torch.isfinite(norm)):
            self.optimiser.step()
            self.updates += 1
            self._average()
        else:
            self.skipped += 1
        return {**losses, "grad_norm": float(norm), "lr": lr, "skipped": float(self.skipped)}

    def _gradients(self, batch: TensorBatch, progress: float) -> dict[str, float]:
        """Add up the gradients of the micro-batches; returns the losses of the whole batch."""
        parts = batch.split(self.config.accumulate)
        alone = len(parts) == 1 and self.ranks.kind == "none"
        # Ranks average their gradients: each divides by its share of the entries of all.
        whole_batch = () if alone else (self.ranks.sum(self.model.entries(batch)) / self.ranks.world,)
        totals: dict[str, Tensor] = {}
        for i, (part, rng) in enumerate(zip(parts, self.slots.generators, strict=False)):  # a short batch: fewer parts
            with self.ranks.gradients(self._forward, last=i + 1 == len(parts)):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
                    losses: dict[str, Tensor] = self._forward(part, rng, progress, *whole_batch)
                losses["loss"].backward()
            for name, value in losses.items():
                totals[name] = totals[name] + value.detach() if name in totals else value.detach()
        sums = self.ranks.sum(torch.stack(list(totals.values()))) / self.ranks.world
        return dict(zip(totals, sums.tolist(), strict=True))

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema, (1.0 + self.updates) / (10.0 + self.updates))
        averages = [mine(p.detach()) for p in self.ema.parameters()]
        weights = [mine(p.detach()) for p in self.model.parameters()]
        torch._foreach_lerp_(averages, weights, 1.0 - decay)
        for average, buffer in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            average.copy_(buffer)
