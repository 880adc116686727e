"""What remembering costs: bytes of state and time per step after T frames, for each kind of memory.

Every kind sees the same T frames through `observe`, in a model of the same size. A step is what a policy does at a
frame: observe, imagine, act. Its time is processor time on one thread, the median over rounds in which all kinds and
lengths take turns, so that other work on the machine and a warm or cold cache meet all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from learner.batch import Frame
from learner.build import build_model
from learner.clwm import CLWM
from learner.config import DataSpec, ModelConfig, preset
from learner.memory import state_bytes

KINDS = ("ttt", "kv", "window", "none")
WINDOW = 4  # frames that `window` keeps
LENGTHS = (10, 30, 100, 300, 1_000, 3_000, 10_000)
STEPS_PER_ROUND = 3


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a frame is made of: `tokens` of `channels` numbers, and into how many model tokens it goes."""

    name: str
    tokens: int
    channels: int
    frame_mode: str
    longest: int  # frames; an image's cache reaches memory's limits sooner


LAYOUTS = (
    Layout(name="poses", tokens=5, channels=53, frame_mode="packed", longest=10_000),
    Layout(name="image", tokens=64, channels=192, frame_mode="token", longest=1_000),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model, and what it remembers after `frames` frames."""

    layout: str
    kind: str
    frames: int
    model: CLWM
    memory: Any
    frame: Frame


def run(size: str, lengths: tuple[int, ...], rounds: int, tick: Callable[[], None]) -> list[dict[str, object]]:
    """Rows by layout, kind and number of frames.

    Args:
        size: name of a model preset.
        lengths: T, ascending; those beyond a layout's longest are left out.
        rounds: times that all cases take turns.
        tick: told of every case that is ready, and of every round.
    """
    torch.set_num_threads(1)
    cases = []
    for layout in LAYOUTS:
        for kind in KINDS:
            cases += _cases(layout, kind, size, [t for t in lengths if t <= layout.longest])
            tick()
    times: list[list[tuple[float, float]]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, taken in zip(cases, times, strict=True):
            taken.append(_time(case))
        tick()
    return [
        {
            "layout": case.layout,
            "memory": case.kind,
            "frames": case.frames,
            "state_bytes": state_bytes(case.memory.states),
            "step_ms": 1e3 * statistics.median(whole for whole, _ in taken),
            "observe_ms": 1e3 * statistics.median(part for _, part in taken),
        }
        for case, taken in zip(cases, times, strict=True)
    ]


def _cases(layout: Layout, kind: str, size: str, lengths: list[int]) -> list[Case]:
    config = preset(size)
    config = replace(config, frame_mode=layout.frame_mode, memory=replace(config.memory, kind=kind, window=WINDOW))
    model = _model(config, layout)
    frame, previous, known = _inputs(model)
    memory, seen, cases = model.initial_memory(1), 0, []
    for length in lengths:
        with torch.inference_mode():
            while seen < length:
                memory, seen = model.observe(memory, frame, previous, known), seen + 1
        cases.append(Case(layout=layout.name, kind=kind, frames=length, model=model, memory=memory, frame=frame))
    return cases


def _model(config: ModelConfig, layout: Layout) -> CLWM:
    model = build_model(config, DataSpec(tokens=layout.tokens, channels=layout.channels))
    assert isinstance(model, CLWM)
    return model.eval().requires_grad_(False)


def _inputs(model: CLWM) -> tuple[Frame, torch.Tensor, torch.Tensor]:
    data, rng = model.data, torch.Generator().manual_seed(0)
    frame = Frame(
        tokens=torch.randn(1, data.tokens, data.channels, generator=rng),
        token_mask=torch.ones(1, data.tokens, dtype=torch.bool),
        proprio=torch.randn(1, data.proprio, generator=rng),
        text=torch.randn(1, data.text_dim, generator=rng),
        action_valid=torch.ones(1, data.proprio, dtype=torch.bool),
    )
    return frame, torch.randn(1, data.tau, data.proprio, generator=rng), torch.ones(1, dtype=torch.bool)


@torch.inference_mode()
def _time(case: Case) -> tuple[float, float]:
    """Processor seconds of a whole step, and of observing in it."""
    _, previous, known = _inputs(case.model)
    rng = torch.Generator().manual_seed(0)
    whole, part = [], []
    for _ in range(STEPS_PER_ROUND):
        started = time.process_time()
        memory = case.model.observe(case.memory, case.frame, previous, known)
        observed = time.process_time()
        imagined = case.model.imagine(memory, case.frame, rng)
        case.model.act(memory, case.frame, imagined, rng)
        whole.append(time.process_time() - started)
        part.append(observed - started)
    return min(whole), min(part)


def findings(rows: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Per layout: how flat `ttt` is over all lengths, and from how many frames on `kv` is larger and slower."""
    found = []
    for layout in dict.fromkeys(row["layout"] for row in rows):
        of = {
            kind: [row for row in rows if row["layout"] == layout and row["memory"] == kind] for kind in ("ttt", "kv")
        }
        found.append(
            {
                "layout": layout,
                "ttt_bytes": of["ttt"][0]["state_bytes"],
                "ttt_bytes_off_mean": _spread([row["state_bytes"] for row in of["ttt"]]),
                "ttt_step_off_mean": _spread([row["step_ms"] for row in of["ttt"]]),
                "kv_larger_from": _crossing(of, "state_bytes"),
                "kv_slower_from": _crossing(of, "step_ms"),
            }
        )
    return found


def _spread(values: list[float]) -> float:
    """The largest distance from the mean, as a share of it."""
    mean = statistics.fmean(values)
    return max(abs(value - mean) for value in values) / mean


def _crossing(of: dict[str, list[dict[str, Any]]], key: str) -> float | str:
    """Frames from which `kv` stays above `ttt`, between two measured lengths by a straight line; or `not reached`."""
    points = [(kv["frames"], kv[key] - ttt[key]) for ttt, kv in zip(of["ttt"], of["kv"], strict=True)]
    below = [i for i, (_, gap) in enumerate(points) if gap <= 0]
    if below and below[-1] == len(points) - 1:
        return "not reached"
    if not below:
        return f"below {points[0][0]}"
    (t0, a), (t1, b) = points[below[-1]], points[below[-1] + 1]
    return t0 + (t1 - t0) * a / (a - b)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bytes and step time over frames, one line per kind of memory, one row of panels per layout."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    layouts = list(dict.fromkeys(row["layout"] for row in rows))
    figure, panels = pyplot.subplots(len(layouts), 2, figsize=(9, 3.2 * len(layouts)), squeeze=False)
    for row_of_panels, layout in zip(panels, layouts, strict=True):
        for panel, key, label in zip(
            row_of_panels, ("state_bytes", "step_ms"), ("state, bytes", "step, ms of processor time"), strict=True
        ):
            for kind in KINDS:
                own = [row for row in rows if row["layout"] == layout and row["memory"] == kind]
                values = [row[key] for row in own]
                if any(values):
                    panel.plot([row["frames"] for row in own], values, "o-", markersize=3, label=kind)
            panel.set(xscale="log", yscale="log", xlabel="frames seen", ylabel=label, title=layout)
            panel.legend(fontsize=8)
            panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
