"""From settings to a model: the explicit registry of model kinds."""

from __future__ import annotations

import torch

from learner.clwm import CLWM
from learner.config import DataSpec, ModelConfig
from learner.flow_policy import FlowPolicy


def build_model(config: ModelConfig, data: DataSpec, seed: int = 0) -> CLWM | FlowPolicy:
    """A freshly initialised model; the same `seed` gives the same weights, and the global generator is left alone.

    Raises:
        ValueError: for an unknown kind.
    """
    kinds: dict[str, type[CLWM] | type[FlowPolicy]] = {"clwm": CLWM, "flow_policy": FlowPolicy}
    if config.kind not in kinds:
        raise ValueError(f"model.kind={config.kind!r}: expected one of {', '.join(sorted(kinds))}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kinds[config.kind](config, data)
