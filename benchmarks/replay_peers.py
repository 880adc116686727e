"""Other replay buffers on the replay's workloads: torchrl and cpprb, where they are installed (extra `bench`).

Both hold one item per token frame with everything that belongs to it, so that a window is K+1 consecutive items:
the layout that suits them best. cpprb cuts no windows; its batches are as many single frames.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from embodichain.contracts import ACTION_DIM, Episode

if TYPE_CHECKING:
    from benchmarks.replay import Workload

TORCHRL = importlib.util.find_spec("torchrl") is not None
CPPRB = importlib.util.find_spec("cpprb") is not None


def shapes(work: Workload) -> dict[str, tuple[int, ...]]:
    """What belongs to one frame."""
    spec = work.spec
    return {
        "tokens": work.tokens,
        "proprio": (ACTION_DIM,),
        "chunk": (spec.chunk, ACTION_DIM),
        "previous": (spec.tau, ACTION_DIM),
    }


def frames(work: Workload, episode: Episode) -> dict[str, np.ndarray]:
    """An episode's frames, one every tau control steps, each with its chunk and the actions before it."""
    spec, assembled = work.spec, {}
    assert episode.tokens is not None
    at = np.arange(0, episode.pairs + 1, spec.tau)
    padded = np.pad(episode.action, ((spec.tau, spec.chunk), (0, 0)))
    assembled["tokens"], assembled["proprio"] = episode.tokens[at], episode.proprio[at]
    assembled["chunk"] = padded[at[:, None] + spec.tau + np.arange(spec.chunk)]
    assembled["previous"] = padded[at[:, None] + np.arange(spec.tau)]
    return assembled


def samplers(work: Workload) -> dict[str, Callable[[], object] | None]:
    """By name: a call that makes one batch; None where the package is missing."""
    steps: dict[str, Callable[[], object] | None] = dict.fromkeys(
        ("torchrl SliceSampler", "torchrl storage.get", "cpprb sample")
    )
    episodes = [work.episode(seed) for seed in range(work.episodes)]
    items = work.windows * (work.spec.frames + 1)
    if TORCHRL:
        import torch

        buffer, _ = torchrl_buffer(work, episodes)
        rng, count = np.random.default_rng(0), len(buffer)
        offsets = np.arange(work.spec.frames + 1)

        def get() -> object:
            start = rng.integers(0, count - len(offsets), work.windows)
            return buffer.storage.get(torch.from_numpy((start[:, None] + offsets).ravel()))

        steps["torchrl SliceSampler"], steps["torchrl storage.get"] = buffer.sample, get
    if CPPRB:
        rows, _ = cpprb_buffer(work, episodes)
        steps["cpprb sample"] = lambda: rows.sample(items)
    return steps


def adders(work: Workload) -> dict[str, Callable[[list[Episode]], object] | None]:
    """By name: a call that takes episodes in, already cut into frames by then or not as the package needs it."""
    steps: dict[str, Callable[[list[Episode]], object] | None] = dict.fromkeys(("torchrl extend", "cpprb add"))
    few = [work.episode(seed) for seed in range(2)]
    if TORCHRL:
        steps["torchrl extend"] = torchrl_buffer(work, few)[1]
    if CPPRB:
        steps["cpprb add"] = cpprb_buffer(work, few)[1]
    return steps


def torchrl_buffer(work: Workload, episodes: Iterable[Episode]) -> tuple[Any, Callable[[list[Episode]], None]]:
    """A filled buffer in memory that samples windows, and how to add to it."""
    import torch
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, SliceSampler, TensorDictReplayBuffer

    logging.getLogger("torchrl").setLevel(logging.WARNING)  # it writes to standard output, where --json prints
    per_episode = work.length // work.spec.tau + 1
    slice_len = work.spec.frames + 1
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(per_episode * (work.episodes + 2)),
        sampler=SliceSampler(slice_len=slice_len, traj_key="episode", cache_values=True, strict_length=True),
        batch_size=work.windows * slice_len,
    )

    def extend(added: list[Episode]) -> None:
        for episode in added:
            arrays = {name: torch.from_numpy(array) for name, array in frames(work, episode).items()}
            arrays["episode"] = torch.full((per_episode,), episode.recipe.seed)
            buffer.extend(TensorDict(arrays, batch_size=[per_episode]))

    extend(list(episodes))
    return buffer, extend


def cpprb_buffer(work: Workload, episodes: Iterable[Episode]) -> tuple[Any, Callable[[list[Episode]], None]]:
    """A filled buffer, and how to add to it."""
    from cpprb import ReplayBuffer

    size = (work.length // work.spec.tau + 1) * (work.episodes + 2)
    buffer = ReplayBuffer(size, {name: {"shape": shape, "dtype": np.float32} for name, shape in shapes(work).items()})

    def add(added: list[Episode]) -> None:
        for episode in added:
            buffer.add(**frames(work, episode))

    add(list(episodes))
    return buffer, add
