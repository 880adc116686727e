"""The recipe of a distillation."""

from __future__ import annotations

from dataclasses import dataclass

PATCH = 16


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Shape of the network, views, losses and optimisation.

    Attributes:
        width, depth, heads: of the vision transformer.
        registers: its register tokens.
        global_size, local_size: pixels of the two kinds of crops, multiples of 16.
        locals: local crops per picture.
        global_area, local_area: share of the picture's area that a crop covers, lowest and highest.
        mask_ratio: lowest and highest share of patches hidden from the student in a masked picture.
        masked: share of pictures with hidden patches.
        head_width, bottleneck: of the projection heads.
        prototypes: dimensions of the class token's target distribution.
        patch_prototypes: likewise of a patch token's.
        temperature: of the student's softmax.
        sharpness: of the targets (`losses.balanced`).
        cls_weight, patch_weight, pixel_weight: of the losses (`losses.py`).
        momentum: of the teacher's moving average at the start; it rises to 1 along a cosine.
        steps: optimiser steps.
        batch: pictures per step.
        lr: peak of the learning rate, after `warmup` of the steps; then a cosine to a hundredth.
        warmup: share of the steps.
        weight_decay: of matrices.
        clip: greatest norm of the gradient.
        bf16: multiply in bfloat16.
        seed: of weights, batches, crops and masks.
    """

    width: int = 192
    depth: int = 4
    heads: int = 3
    registers: int = 4
    global_size: int = 96
    local_size: int = 48
    locals: int = 2
    global_area: tuple[float, float] = (0.35, 0.9)
    local_area: tuple[float, float] = (0.05, 0.3)
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    masked: float = 0.5
    head_width: int = 384
    bottleneck: int = 64
    prototypes: int = 128
    patch_prototypes: int = 512
    temperature: float = 0.1
    sharpness: float = 3.0
    cls_weight: float = 0.5
    patch_weight: float = 1.0
    pixel_weight: float = 4.0
    momentum: float = 0.98
    steps: int = 2500
    batch: int = 32
    lr: float = 1e-3
    warmup: float = 0.06
    weight_decay: float = 0.04
    clip: float = 3.0
    bf16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % (4 * self.heads):
            raise ValueError(
                f"distill.width={self.width}, heads={self.heads}: expected a multiple of 4 per head (rotary positions)"
            )
        for key in ("global_size", "local_size"):
            if getattr(self, key) < PATCH or getattr(self, key) % PATCH:
                raise ValueError(f"distill.{key}={getattr(self, key)}: expected a positive multiple of {PATCH}")
        least = {"registers": 0, "locals": 0}
        for key in ("depth", "steps", "prototypes", "patch_prototypes", "head_width", "bottleneck", *least):
            if getattr(self, key) < least.get(key, 1):
                raise ValueError(f"distill.{key}={getattr(self, key)}: expected at least {least.get(key, 1)}")
        for key in ("temperature", "sharpness", "lr", "clip"):
            if not getattr(self, key) > 0:
                raise ValueError(f"distill.{key}={getattr(self, key)}: expected more than 0")
        for key in ("cls_weight", "patch_weight", "pixel_weight", "weight_decay"):
            if not getattr(self, key) >= 0:
                raise ValueError(f"distill.{key}={getattr(self, key)}: expected at least 0")
        for key in ("masked", "momentum", "warmup"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"distill.{key}={getattr(self, key)}: expected a number in [0, 1]")
        if self.batch < 2:
            raise ValueError(
                f"distill.batch={self.batch}: expected at least 2; balancing targets over one means nothing"
            )
        for key in ("global_area", "local_area", "mask_ratio"):
            low, high = getattr(self, key)
            if not 0.0 < low <= high <= 1.0:
                raise ValueError(f"distill.{key}={low, high}: expected 0 < lowest <= highest <= 1")
