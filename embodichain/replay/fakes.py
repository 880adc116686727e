"""Episodes without physics, for tests and benchmarks of whatever stands behind the replay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embodichain.contracts import ACTION_DIM, Episode, Recipe


def fake_episode(
    seed: int,
    length: int = 100,
    tokens: int = 4,
    channels: int = 41,
    *,
    task: str = "pick_place",
    tau: int = 1,
    state_dim: int = 64,
    mistakes: float = 0.0,
    changes: Sequence[int] = (),
) -> Episode:
    """A valid episode of random numbers that tell where they came from.

    Args:
        seed: of the numbers, and the recipe's seed.
        length: T.
        tokens: L.
        channels: C.
        task: the recipe's task.
        tau: 1 makes f32 tokens at every step, more makes f16 tokens at every tau-th.
        state_dim: S.
        mistakes: share of steps, at random, whose action is no label.
        changes: steps at which another segment begins, ascending, in [1, T).

    Returns:
        An episode in which channel 0 of action, proprio and tokens is the time index + 1 (step or frame), so never 0.
    """
    rng = np.random.default_rng(seed)
    frames = length // tau + 1

    def noise(*shape: int) -> np.ndarray:
        array = rng.standard_normal(shape, dtype=np.float32)
        array[..., 0] = np.arange(1, shape[0] + 1).reshape(-1, *[1] * (len(shape) - 2))
        return array

    return Episode(
        recipe=Recipe(task=task, seed=seed),
        instruction=f"do {task}",
        action=noise(length, ACTION_DIM),
        action_valid=np.ones(ACTION_DIM, dtype=bool),
        proprio=noise(length + 1, ACTION_DIM),
        sim_state=noise(length + 1, state_dim),
        segment_id=np.searchsorted(changes, np.arange(length), side="right").astype(np.int16),
        control_hz=20.0,
        success=True,
        label_valid=rng.random(length) >= mistakes,
        tokens=noise(frames, tokens, channels).astype(np.float32 if tau == 1 else np.float16),
        token_mask=np.ones(tokens, dtype=bool),
        tau=tau,
        encoder_id="fake",
    )
