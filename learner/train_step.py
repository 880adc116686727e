"""One optimisation step, and everything that has to survive between two of them.

`TrainState` owns the model, its moving average, the optimiser, the noise generator and the counters. It takes batches
and the share of training done; where they come from, and who else computes gradients, is the caller's business.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from learner.batch import TensorBatch
from learner.clwm import CLWM
from learner.config import TrainConfig
from learner.flow_policy import FlowPolicy

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
        rng: source of all training noise.
    """

    def __init__(
        self, model: Model, config: TrainConfig, *, wrap: Callable[[nn.Module], nn.Module] | None = None, rank: int = 0
    ) -> None:
        """Prepare training.

        Args:
            model: freshly built or loaded, on its device.
            config: optimisation settings.
            wrap: put around the model for the forward pass (distributed data parallel, compilation).
            rank: of this worker; workers with different ranks draw different noise.
        """
        self.config, self.model = config, model
        self.ema: Model = copy.deepcopy(model).requires_grad_(False).eval()
        self._forward = wrap(model) if wrap is not None else model
        self.steps, self.skipped, self.updates = 0, 0, 0
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
        device = next(model.parameters()).device
        self.rng = torch.Generator(device=device).manual_seed(config.seed * 1_000_003 + rank)

    def step(self, batch: TensorBatch, progress: float) -> dict[str, float]:
        """Learn from one batch.

        Args:
            batch: B windows, on the model's device.
            progress: share of training done, in [0, 1]: sets the learning rate.

        Returns:
            Scalars: the model's losses, `grad_norm` (before clipping), `lr`, `skipped` (so far).
        """
        self.model.train()
        self.model.preprocess.observe(batch)
        lr = learning_rate(self.config, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        with torch.autocast(batch.tokens.device.type, torch.bfloat16, enabled=self.config.bf16):
            losses: dict[str, Tensor] = self._forward(batch, self.rng, progress)
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip, foreach=True)
        self.steps += 1
        if bool(torch.isfinite(norm)):
            self.optimiser.step()
            self.updates += 1
            self._average()
        else:
            self.skipped += 1
        scalars = {name: float(value.detach()) for name, value in losses.items()}
        return {**scalars, "grad_norm": float(norm), "lr": lr, "skipped": float(self.skipped)}

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema, (1.0 + self.updates) / (10.0 + self.updates))
        averages = [p.detach() for p in self.ema.parameters()]
        weights = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(averages, weights, 1.0 - decay)
        for average, buffer in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            average.copy_(buffer)
