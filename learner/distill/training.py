"""Self-distillation of a small DINOv3 on camera frames: one step, its state, and the loop around it.

Takes u8 pictures, hands on a `DINOv3ViTModel`. A student sees local crops, and a global crop under another light
with patches hidden; it predicts what its own moving average, the teacher, says of the global crop: of the class token
from every crop, of each patch token from the same place. A third loss asks each of its patch tokens for the pixels of
the undisturbed patch, hidden or not, so that where something is inside a patch is not lost on the way.

Step i is a function of the state before it, (seed, i) and the kind of device, whose random numbers are its own: on a
CPU a run that was stopped goes on as if it had not been; on a GPU but for the order of its sums.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embodichain.encoders.dinov3 import pixels_of
from embodichain.encoders.weights import quiet
from learner.distill.config import PATCH, DistillConfig
from learner.distill.crops import boxes, cut, hidden_patches, relight
from learner.distill.losses import ProjectionHead, balanced, cross_entropy, patches_of

Metrics = dict[str, float]


class Branch(nn.Module):
    """A backbone and its two heads: what the student and the teacher both are."""

    def __init__(self, config: DistillConfig) -> None:
        from transformers import DINOv3ViTConfig, DINOv3ViTModel

        super().__init__()
        self.backbone: nn.Module = DINOv3ViTModel(
            DINOv3ViTConfig(
                hidden_size=config.width,
                intermediate_size=4 * config.width,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                num_register_tokens=config.registers,
                pos_embed_rescale=2.0,
            )
        )
        head = (config.width, config.head_width, config.bottleneck)
        self.cls_head = ProjectionHead(*head, config.prototypes)
        self.patch_head = ProjectionHead(*head, config.patch_prototypes)
        self._skip = 1 + config.registers

    def forward(self, images_B3HW: Tensor, hidden_BL: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class tokens [B, C] and patch tokens [B, L, C] of pictures in [0, 1]."""
        hidden = self.backbone(pixel_values=pixels_of(images_B3HW), bool_masked_pos=hidden_BL).last_hidden_state
        return hidden[:, 0], hidden[:, self._skip :]


class Distillation:
    """Student, teacher, optimiser and step counter.

    Attributes:
        config: the recipe.
        step: steps done.
        student, teacher: the two branches.
        device: where they are.
    """

    def __init__(self, config: DistillConfig, device: torch.device | str = "cpu") -> None:
        self.config, self.step, self.device = config, 0, torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.student = Branch(config).to(self.device)
            self._pixels = nn.Linear(config.width, 3 * PATCH * PATCH).to(self.device)
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        parameters = [*self.student.named_parameters(), *self._pixels.named_parameters()]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": [p for _, p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [p for _, p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=(0.9, 0.98),
        )
        self._parameters = [p for _, p in parameters]

    def rows(self, pictures: int) -> np.ndarray:
        """i64[B]: which of so many pictures the next step takes."""
        rng = np.random.default_rng([self.config.seed, self.step, 0xD1])
        return np.sort(rng.choice(pictures, size=min(self.config.batch, pictures), replace=False))

    def train_step(self, images_BHW3: np.ndarray) -> Metrics:
        """One step on u8[B, H, W, 3]. A non-finite loss changes nothing but the counter.

        Returns the losses, the norm of the gradient, and `gain_cls` and `gain_patch`: by how much, in nats, the student
        predicts its targets better than the even distribution; at 0 there is nothing to learn from them.
        """
        config = self.config
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(np.random.default_rng([config.seed, self.step, 0xC2]).integers(2**31)))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16):
                images = torch.from_numpy(images_BHW3).to(self.device).permute(0, 3, 1, 2).float() / 255.0
                losses = self._losses(images)
        total = (
            config.cls_weight * losses["cls"]
            + config.patch_weight * losses["patch"]
            + config.pixel_weight * losses["pixel"]
        )
        metrics = {name: value.item() for name, value in {"loss": total, **losses}.items()}
        metrics["gain_cls"] = math.log(config.prototypes) - metrics["cls"]
        metrics["gain_patch"] = math.log(config.patch_prototypes) - metrics["patch"]
        progress = self.step / config.steps
        self.step += 1
        if not math.isfinite(metrics["loss"]):
            return metrics | {"gradient": math.nan}
        self._optimiser.zero_grad(set_to_none=True)
        total.backward()
        metrics["gradient"] = float(nn.utils.clip_grad_norm_(self._parameters, config.clip))
        for group in self._optimiser.param_groups:
            group["lr"] = config.lr * _schedule(progress, config.warmup)
        self._optimiser.step()
        self._follow(1.0 - (1.0 - config.momentum) * (0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))))
        return metrics

    def _losses(self, images_B3HW: Tensor) -> dict[str, Tensor]:
        config, count = self.config, len(images_B3HW)
        clean = cut(images_B3HW, boxes(count, config.global_area, self.device), config.global_size)
        with torch.no_grad():
            cls_BC, patch_BLC = self.teacher(relight(clean))
            cls_target = balanced(self.teacher.cls_head(cls_BC), config.sharpness)
            patch_target = balanced(self.teacher.patch_head(patch_BLC.flatten(0, 1)), config.sharpness)
        hidden = hidden_patches(count, patch_BLC.shape[1], config.mask_ratio, config.masked, self.device)
        self.student.train()
        cls_BC, patch_BLC = self.student(relight(clean), hidden)
        temperature = config.temperature
        losses = {
            "cls": cross_entropy(cls_target, self.student.cls_head(cls_BC), temperature),
            "patch": cross_entropy(patch_target, self.student.patch_head(patch_BLC.flatten(0, 1)), temperature),
            "pixel": (self._pixels(patch_BLC).float() - patches_of(clean, PATCH)).square().mean(),
        }
        if config.locals:
            many = images_B3HW.repeat(config.locals, 1, 1, 1)
            small = relight(cut(many, boxes(len(many), config.local_area, self.device), config.local_size))
            scores = self.student.cls_head(self.student(small)[0])
            others = cross_entropy(cls_target.repeat(config.locals, 1), scores, temperature)
            losses["cls"] = (losses["cls"] + config.locals * others) / (1 + config.locals)
        return losses

    @torch.no_grad()
    def _follow(self, momentum: float) -> None:
        for mine, its in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(its, 1.0 - momentum)

    def state(self) -> dict[str, Any]:
        """All that a later run needs to go on."""
        parts = {"student": self.student, "teacher": self.teacher, "pixels": self._pixels}
        return {
            "config": asdict(self.config),
            "step": self.step,
            "device": self.device.type,
            "optimiser": self._optimiser.state_dict(),
            **{name: part.state_dict() for name, part in parts.items()},
        }

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        partial = path.with_suffix(".partial")
        torch.save(self.state(), partial)
        os.replace(partial, path)

    def restore(self, path: Path) -> None:
        """Take a saved state. Raises `ValueError` if it cannot be read or is of another recipe."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            found = state["config"]
        except Exception as error:  # torch raises what unpickling raises: anything
            raise ValueError(f"{path}: not a state of a distillation ({str(error).splitlines()[0]})") from error
        for key, value in asdict(self.config).items():
            if key != "steps" and found.get(key) != value:
                raise ValueError(f"{path}: {key}={found.get(key)}, this run wants {value}; expected the same recipe")
        if (begun := state.get("device", "cpu")) != self.device.type:
            raise ValueError(
                f"{path}: begun on {begun}, this run is on {self.device.type}; expected the same kind of device"
            )
        self.step = int(state["step"])
        self._optimiser.load_state_dict(state["optimiser"])
        for name, part in (("student", self.student), ("teacher", self.teacher), ("pixels", self._pixels)):
            part.load_state_dict(state[name])

    def export(self, folder: Path) -> None:
        """Write the teacher's backbone as `config.json` and `model.safetensors` (float16)."""
        backbone: Any = copy.deepcopy(self.teacher.backbone)
        with quiet():
            backbone.half().save_pretrained(str(folder))


def distil(
    run: Distillation,
    rgb: np.ndarray,
    path: Path,
    on_step: Callable[[int, Metrics], None],
    stopping: Callable[[], bool],
    *,
    save_every: int = 50,
) -> None:
    """Run what is left of the recipe's steps on u8[N, H, W, 3], saving to `path` every so often and at the end."""
    while run.step < run.config.steps and not stopping():
        metrics = run.train_step(rgb[run.rows(len(rgb))])
        on_step(run.step, metrics)
        if run.step % save_every == 0:
            run.save(path)
    run.save(path)


def _schedule(progress: float, warmup: float) -> float:
    """Factor on the learning rate: a linear rise, then a cosine from 1 to 0.01."""
    if progress < warmup:
        return (progress + 1e-3) / warmup
    return 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * min((progress - warmup) / (1.0 - warmup), 1.0)))
