"""Memories of the network behind one interface: `ttt`, `kv`, `window`, or none."""

from learner.memory.build import LAYERS, build_memories
from learner.memory.cache import CacheLayer, CacheState
from learner.memory.interface import MemoryLayer, first_rows, state_bytes
from learner.memory.ttt import FastWeights, TTTLayer

__all__ = [
    "LAYERS",
    "CacheLayer",
    "CacheState",
    "FastWeights",
    "MemoryLayer",
    "TTTLayer",
    "build_memories",
    "first_rows",
    "state_bytes",
]
