"""Views of a picture: where it is cut and what light and camera do to it. Torch only, batched, seeded by the caller.

Nothing here changes a hue or mirrors a picture: colours name objects in instructions, and left and right name arms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ASPECT = (3 / 4, 4 / 3)


def boxes(count: int, area: tuple[float, float], device: torch.device | str = "cpu") -> Tensor:
    """f32[count, 4]: centre x, y and half width, height of crops inside the picture, in [-1, 1] coordinates."""
    share = torch.empty(count, device=device).uniform_(*area)
    aspect = torch.empty(count, device=device).uniform_(ASPECT[0], ASPECT[1])
    half = torch.stack([(share * aspect).sqrt(), (share / aspect).sqrt()], dim=1).clamp(max=1.0)
    centre = (2.0 * torch.rand(count, 2, device=device) - 1.0) * (1.0 - half)
    return torch.cat([centre, half], dim=1)


def cut(images_BCHW: Tensor, boxes_B4: Tensor, size: int) -> Tensor:
    """f32[B, C, size, size]: what lies in each picture's box, bilinear."""
    theta = torch.zeros(len(boxes_B4), 2, 3, device=boxes_B4.device)
    theta[:, 0, 0], theta[:, 1, 1] = boxes_B4[:, 2], boxes_B4[:, 3]
    theta[:, :, 2] = boxes_B4[:, :2]
    grid = F.affine_grid(theta, [len(boxes_B4), images_BCHW.shape[1], size, size], align_corners=False)
    return F.grid_sample(images_BCHW, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def relight(images_B3HW: Tensor) -> Tensor:
    """The same pictures in [0, 1] under another light and from another sensor.

    Exposure, white balance, contrast, saturation and noise; each picture draws its own.
    """
    b = len(images_B3HW)

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.empty(b, channels, 1, 1, device=images_B3HW.device).uniform_(low, high)

    out = images_B3HW * draw(0.65, 1.4) * draw(0.9, 1.1, 3)
    grey = out.mean(dim=1, keepdim=True)
    out = grey + (out - grey) * draw(0.7, 1.3)
    mean = out.mean(dim=(1, 2, 3), keepdim=True)
    out = mean + (out - mean) * draw(0.75, 1.25)
    return (out + torch.randn_like(out) * draw(0.0, 0.04)).clamp(0.0, 1.0)


def hidden_patches(
    count: int, patches: int, ratio: tuple[float, float], masked: float, device: torch.device | str = "cpu"
) -> Tensor:
    """bool[count, patches]: which patches the student does not see; none at all in a share 1 - `masked` of the rows."""
    share = torch.empty(count, 1, device=device).uniform_(*ratio) * (torch.rand(count, 1, device=device) < masked)
    order = torch.rand(count, patches, device=device).argsort(dim=1).argsort(dim=1)
    return order < (share * patches).round()
