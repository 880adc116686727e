"""From settings to memories: the explicit registry of memory kinds."""

from __future__ import annotations

from typing import Any

from torch import nn

from learner.config import MemoryConfig
from learner.memory.cache import CacheLayer
from learner.memory.interface import MemoryLayer
from learner.memory.ttt import TTTLayer

LAYERS: dict[str, type[TTTLayer] | type[CacheLayer] | None] = {
    "ttt": TTTLayer,
    "kv": CacheLayer,
    "window": CacheLayer,
    "none": None,
}


def build_memories(width: int, config: MemoryConfig) -> nn.ModuleDict:
    """Memories by the number of the block that reads them first; none of them for the kind `none`."""
    layer = LAYERS[config.kind]
    made: dict[str, MemoryLayer[Any]] = {}
    if layer is not None:
        made = {str(i): layer(width, config) for i in sorted(config.layers)}
    return nn.ModuleDict(made)
