"""Which shard an episode belongs to. Owns: the one rule that producers and restarts share."""

from __future__ import annotations


def route(recipe_id: str, n_shards: int) -> int:
    """Shard of a recipe: its id (16 hex digits, already a hash) modulo the number of shards.

    A recipe goes to the same shard on every machine and after every restart, which makes an append idempotent.

    Raises:
        ValueError: for fewer than one shard or an id that is not hexadecimal.
    """
    if n_shards < 1:
        raise ValueError(f"n_shards={n_shards}: expected at least 1")
    return int(recipe_id, 16) % n_shards
