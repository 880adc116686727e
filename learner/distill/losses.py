"""What the student is taught: projection heads, balanced targets and their cross-entropy.

DINO (arXiv 2104.14294, eq. 2) for the class token, iBOT (arXiv 2111.07832, eq. 2) for patch tokens, with targets
balanced by Sinkhorn-Knopp as in DINOv2 (arXiv 2304.07193, section 4) and SwAV (arXiv 2006.09882, eq. 3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Token f32[N, C] -> scores f32[N, K] against K prototypes, as cosines."""

    def __init__(self, channels: int, width: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.Linear(width, bottleneck))
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, tokens_NC: Tensor) -> Tensor:
        """Cosines in [-1, 1], in float32 whatever the tokens are: their small differences are what counts."""
        with torch.autocast(tokens_NC.device.type, enabled=False):
            return F.normalize(self.mlp(tokens_NC.float()), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


@torch.no_grad()
def balanced(scores_NK: Tensor, sharpness: float, iterations: int = 3) -> Tensor:
    """Target distributions f32[N, K]: rows sum to 1, and every prototype is used about equally over the N rows.

    Sinkhorn-Knopp from exp(sharpness * z), z the scores less their mean over rows, in units of their deviation. The
    balance keeps rows from agreeing on one prototype. The unit keeps them from agreeing on all alike: at a fixed
    temperature, tokens that differ little at first got even targets, and then differed less and less.
    """
    z = scores_NK.float() - scores_NK.float().mean(dim=0)
    z = sharpness * z / z.std().clamp_min(1e-8)
    targets = torch.exp(z - z.max()) + 1e-12
    for _ in range(iterations):
        targets = targets / targets.sum(dim=0, keepdim=True)
        targets = targets / targets.sum(dim=1, keepdim=True)
    return targets


def cross_entropy(targets_NK: Tensor, scores_NK: Tensor, temperature: float) -> Tensor:
    """Mean over rows of -sum_k p_k log softmax(scores / temperature)_k."""
    return -(targets_NK * F.log_softmax(scores_NK.float() / temperature, dim=-1)).sum(dim=-1).mean()


def patches_of(images_B3HW: Tensor, patch: int) -> Tensor:
    """f32[B, L, 3 * patch^2], row by row; each patch without its mean and divided by its deviation (MAE's targets)."""
    flat = F.unfold(images_B3HW, patch, stride=patch).transpose(1, 2)
    return (flat - flat.mean(dim=-1, keepdim=True)) / (flat.std(dim=-1, keepdim=True) + 0.1)
