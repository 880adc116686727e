"""What every model of this project answers a train step, whatever its network is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from learner.batch import TensorBatch
from learner.config import DataSpec, ModelConfig
from learner.losses import entries_under_loss
from learner.normalise import Preprocessor


class TrainedModel(nn.Module, ABC):
    """A model with a loss, which it defines; its network sets the attributes. See `interface.WorldActionModel`."""

    config: ModelConfig
    data: DataSpec
    preprocess: Preprocessor

    def forward(
        self, batch: TensorBatch, rng: torch.Generator, progress: float = 1.0, entries: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`loss`, under the name that wrappers for distributed training call."""
        return self.loss(batch, rng, progress, entries)

    def entries(self, batch: TensorBatch) -> Tensor:
        """f64[2], see `losses.entries_under_loss`."""
        valid = self.preprocess.codec.valid(batch.action_valid)
        return entries_under_loss(batch, valid, self.config.channels(self.data), self.config.action_draws)

    @abstractmethod
    def loss(
        self, batch: TensorBatch, rng: torch.Generator, progress: float = 1.0, entries: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What a model defines: see `interface.WorldActionModel.loss`."""
