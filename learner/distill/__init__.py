"""A small DINOv3 of one's own: self-distillation on camera frames, and a decoder that draws what its tokens hold."""

from learner.distill.config import DistillConfig
from learner.distill.training import Distillation

__all__ = ["DistillConfig", "Distillation"]
