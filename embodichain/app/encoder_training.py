"""From nothing to a small image encoder: frames from the simulator, self-distillation, a decoder, and what it cost.

Everything lies in one folder: `train.yaml`, `frames/`, `state.pt`, `losses.jsonl`, `weights/` (config.json,
model.safetensors, decoder.safetensors) and `made.json`. Whatever is there already is not done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodichain.app.settings import ConfigError, device_for, write_json
from embodichain.app.version import code_version
from learner.distill import DistillConfig

if TYPE_CHECKING:
    from learner.distill.training import Distillation

Report = Callable[[str, int, int, dict[str, float]], None]
LOG_EVERY = 10


@dataclass(frozen=True, kw_only=True)
class EncoderTraining:
    """The settings of `embodichain encoder train`.

    Attributes:
        frames: pictures to learn from.
        size: their width and height, pixels.
        every: control steps between pictures of an episode.
        part: episodes per file of frames; a run that was stopped goes on after the last whole file.
        seed: of the episodes.
        distill: the recipe of the encoder.
        decoder_steps: optimiser steps of the decoder; 0: none is made.
        threads: of torch.
        gpu: distil and teach the decoder on the GPU.
    """

    frames: int = 8000
    size: int = 128
    every: int = 24
    part: int = 24
    seed: int = 0
    distill: DistillConfig = field(default_factory=DistillConfig)
    decoder_steps: int = 600
    threads: int = 2
    gpu: bool = False

    def __post_init__(self) -> None:
        for key, low in (("frames", 1), ("every", 1), ("part", 1), ("decoder_steps", 0), ("threads", 1)):
            if getattr(self, key) < low:
                raise ConfigError(f"{key}={getattr(self, key)}: expected at least {low}")
        if self.size < 16 or self.size % 16:
            raise ConfigError(f"size={self.size}: expected a positive multiple of 16")
        if self.frames < self.distill.batch:
            raise ConfigError(f"frames={self.frames}: expected at least distill.batch={self.distill.batch}")


def train_encoder(
    config: EncoderTraining, folder: Path, report: Report, stopping: Callable[[], bool]
) -> dict[str, Any] | None:
    """Do what is left to do in `folder`; what was made, or None if it was stopped before the end.

    Args:
        config: must be the one that the folder was begun with, but for `distill.steps`.
        folder: made if missing.
        report: told the stage, what is done of how much, and the figures of the moment.
        stopping: asked now and then.

    Raises:
        ConfigError: the folder holds the work of another recipe.
        RuntimeError: a task's code raised while frames were made.
    """
    import torch

    from embodichain.app.frames import collect
    from learner.distill.training import Distillation

    torch.set_num_threads(config.threads)
    device = device_for(config.gpu, "gpu=true")
    clock = _Clock(folder / "cost.json")
    try:
        frames = collect(
            folder / "frames",
            frames=config.frames,
            seed=config.seed,
            size=config.size,
            every=config.every,
            part_episodes=config.part,
            on_frames=lambda done: report("frames", done, config.frames, {}),
            stopping=stopping,
        )
        clock.note("frames")
        if len(frames) < config.frames:
            return None
        run, state = Distillation(config.distill, device), folder / "state.pt"
        if state.exists():
            run.restore(state)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    _distil(run, frames.rgb, folder, report, stopping)
    clock.note("distilling")
    run.export(folder / "weights")
    if run.step < config.distill.steps:
        return None
    made = _decoder(config, folder, device, frames.rgb, report, stopping)
    clock.note("decoder")
    if made is None:
        return None
    made |= {"config": asdict(config), "frames": len(frames), "episodes": len(set(frames.episode.tolist()))}
    made |= {"cost": clock.spent, "code_version": code_version()}
    write_json(folder / "made.json", made)
    return made


def _distil(run: Distillation, rgb: Any, folder: Path, report: Report, stopping: Callable[[], bool]) -> None:
    """The steps that are left, their losses written down every `LOG_EVERY`."""
    from learner.distill.training import distil

    with (folder / "losses.jsonl").open("a") as log:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            report("distilling", step, run.config.steps, metrics)
            if step % LOG_EVERY == 0:
                log.write(json.dumps({"step": step, **{k: round(v, 5) for k, v in metrics.items()}}) + "\n")
                log.flush()

        distil(run, rgb, folder / "state.pt", on_step, stopping)


def _decoder(
    config: EncoderTraining, folder: Path, device: str, rgb: Any, report: Report, stopping: Callable[[], bool]
) -> dict[str, Any] | None:
    """Teach and write the decoder of the exported weights; the encoder's id and the decoder's last errors."""
    from embodichain.encoders.dinov3 import DINOv3Encoder
    from learner.distill.decoding import teach_decoder

    encoder = DINOv3Encoder(
        weights=str(folder / "weights"),
        views=1,
        height=config.size,
        width=config.size,
        device=device,
    )
    errors: list[float] = []

    def on_step(step: int, error: float) -> None:
        errors.append(error)
        report("decoder", step, config.decoder_steps, {"pixel error": error})

    if config.decoder_steps:
        decoder = teach_decoder(
            encoder, rgb, steps=config.decoder_steps, seed=config.distill.seed, on_step=on_step, stopping=stopping
        )
        if stopping():
            return None
        decoder.save(folder / "weights")
    last = errors[-50:]
    return {"encoder_id": encoder.id, "decoder_pixel_error": round(sum(last) / len(last), 5) if last else None}


class _Clock:
    """Seconds of wall and of this process's processor time that each stage took, over all starts of the command."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.spent: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def note(self, stage: str) -> None:
        """Add what passed since the last note to `stage`."""
        wall, cpu = time.monotonic(), time.process_time()
        entry = self.spent.setdefault(stage, {"wall_s": 0.0, "cpu_s": 0.0})
        entry["wall_s"] = round(entry["wall_s"] + wall - self._wall, 1)
        entry["cpu_s"] = round(entry["cpu_s"] + cpu - self._cpu, 1)
        self._wall, self._cpu = wall, cpu
        write_json(self._path, self.spent)
