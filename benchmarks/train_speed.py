"""How fast a training step is, with and without bfloat16, compiled blocks and recomputed activations.

Model FLOPs are those of one forward and backward pass as `torch.utils.flop_counter` counts them (matrix products and
attention; recomputation is not counted again). Utilisation is their rate as a share of what this machine reaches on one
large matrix product in the same number format, measured between the cases, or of `peak` where that is given. On a CPU
time is processor time of all threads together, so that other work on the machine does not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from embodichain.contracts import WindowSpec
from learner.batch import TensorBatch, prepare_batch
from learner.build import build_model
from learner.config import DataSpec, TrainConfig, preset
from learner.testing import fake_batch
from learner.train_step import TrainState

WINDOW = WindowSpec(frames=4, tau=8, chunk=16)
TOKENS, CHANNELS, TEXT = 6, 53, 384  # of pose tokens, as in the shipped presets
MATRIX = {"cpu": 1024, "cuda": 8192}
CASES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"bf16": True},
    "fp32 compiled": {"compile": True},
    "bf16 compiled": {"bf16": True, "compile": True},
    "fp32 recomputed": {"recompute": True},
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure.

    Attributes:
        size: name of a model preset. `windows`: per step. `threads`: of torch. `rounds`: times all cases take turns.
        device: `cpu` or `cuda`.
        peak: FLOP/s to compare with, in every number format; None: measured.
    """

    size: str
    windows: int
    threads: int
    rounds: int
    device: str
    peak: float | None = None


def run(job: Job, cases: list[str], tick: Callable[[], None]) -> list[dict[str, object]]:
    """One row per case; `tick` is told of every case that is warm, and of every round."""
    torch.set_num_threads(job.threads)
    batch = _batch(job)
    states = {}
    for name in cases:
        states[name] = _state(job, TrainConfig(**CASES[name]), batch)
        for _ in range(2):
            states[name].step(batch, 0.5)
        tick()
    flops = _flops(states[cases[0]], batch)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    peaks: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(job.rounds):
        for name, state in states.items():
            seconds[name].append(_seconds(job.device, partial(state.step, batch, 0.5)))
        for dtype, reached in peaks.items():
            reached.append(_matmul_rate(job.device, dtype))
        tick()
    rows = []
    for name in cases:
        step = statistics.median(seconds[name])
        own = statistics.median(peaks[torch.bfloat16 if states[name].config.bf16 else torch.float32])
        rows.append(
            {
                "preset": job.size,
                "windows": job.windows,
                "device": job.device,
                "threads": job.threads,
                "case": name,
                "parameters": sum(p.numel() for p in states[name].model.parameters()),
                "windows_per_s": job.windows / step,
                "step_s": step,
                "gflop_per_window": flops / job.windows / 1e9,
                "gflop_per_s": flops / step / 1e9,
                "peak_gflop_per_s": (job.peak or own) / 1e9,
                "mfu": flops / step / (job.peak or own),
            }
        )
    return rows


def _batch(job: Job) -> TensorBatch:
    batch = fake_batch(np.random.default_rng(0), job.windows, spec=WINDOW, tokens=TOKENS, channels=CHANNELS)
    return prepare_batch(batch, np.zeros((job.windows, TEXT), dtype=np.float32)).to(job.device)


def _state(job: Job, config: TrainConfig, batch: TensorBatch) -> TrainState:
    data = DataSpec(tokens=TOKENS, channels=CHANNELS, chunk=WINDOW.chunk, tau=WINDOW.tau, text_dim=TEXT)
    return TrainState(build_model(preset(job.size), data).to(job.device), config)


def _flops(state: TrainState, batch: TensorBatch) -> float:
    with FlopCounterMode(display=False) as counter:
        state.model.loss(batch, state.slots.generators[0], 0.5)["loss"].backward()
    state.optimiser.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def _matmul_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of one large matrix product, the best of three."""
    n = MATRIX[device]
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    return 2.0 * n**3 / min(_seconds(device, lambda: torch.mm(a, b)) for _ in range(3))


def _seconds(device: str, work: Callable[[], object]) -> float:
    with _clock(device) as elapsed:
        work()
    return elapsed[0]


@contextmanager
def _clock(device: str) -> Iterator[list[float]]:
    """Processor seconds per thread on a CPU, seconds on a GPU."""
    taken: list[float] = []
    if device == "cpu":
        started = time.process_time()
        yield taken
        taken.append((time.process_time() - started) / torch.get_num_threads())
    else:
        torch.cuda.synchronize()
        started = time.perf_counter()
        yield taken
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
