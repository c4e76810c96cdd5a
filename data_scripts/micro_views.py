"""Random views of pictures, made in batches on the device; one view can be cut in several sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = 8  # a mixed picture changes at the borders of an 8x8 grid, which are borders of patches in every size


@dataclass(frozen=True)
class Views:
    """Where a batch of views is cut, theta (B, 2, 3) as `affine_grid` takes it, and its colours (B, 1, 1, 1)."""

    theta: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor

    def cut(self, images: Tensor, size: int, mode: str = "bilinear") -> Tensor:
        """Of (B, C, H, W) float, (B, C, size, size); what lies outside is mirrored."""
        grid = F.affine_grid(self.theta, [len(images), images.shape[1], size, size], align_corners=False)
        return F.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)

    def tint(self, pictures: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in [0, 1] -> the same under the view's brightness, contrast and saturation."""
        out = pictures * self.brightness
        mean = out.mean((1, 2, 3), keepdim=True)
        out = mean + (out - mean) * self.contrast
        grey = out.mean(1, keepdim=True)
        return (grey + (out - grey) * self.saturation).clamp(0, 1)


def draw_views(count: int, generator: torch.Generator) -> Views:
    """Crops of a quarter to the whole area, flips, brightness, contrast, saturation (a fifth of them grey)."""
    device = generator.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=device) * (high - low) + low

    scale = uniform(0.25, 1.0).sqrt()
    ratio = torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)) / 2)
    width, height = (scale * ratio).clamp(max=1), (scale / ratio).clamp(max=1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    saturation = torch.where(uniform(0, 1, 1, 1, 1) < 0.2, torch.zeros((), device=device), uniform(0.6, 1.4, 1, 1, 1))
    return Views(theta, uniform(0.6, 1.4, 1, 1, 1), uniform(0.6, 1.4, 1, 1, 1), saturation)


def draw_mixing(rng: np.random.Generator, device: torch.device) -> Tensor:
    """Mixup or CutMix with the batch in reverse order: each cell's share (8, 8) of the picture itself."""
    if rng.random() < 0.5:
        return torch.full((CELLS, CELLS), float(rng.beta(0.8, 0.8)), device=device)
    side = round(CELLS * math.sqrt(1 - rng.beta(1.0, 1.0)))
    top, left = rng.integers(0, CELLS - side + 1, 2)
    shares = torch.ones(CELLS, CELLS, device=device)
    shares[top : top + side, left : left + side] = 0
    return shares


def mixed(pictures: Tensor, shares: Tensor) -> Tensor:
    """(B, 3, H, W) mixed with those in reverse order by the shares (8, 8) of `draw_mixing`."""
    here = F.interpolate(shares[None, None], pictures.shape[-2:])
    return here * pictures + (1 - here) * pictures.flip(0)
