"""What the micro backbone learns from: features of larger encoders, in an 8x8 grid, standardised per group of pictures.

A group is the natural pictures, or one medical data set. Of each group a teacher's features have a mean and a deviation
of their own, so that what differs within a data set counts as much as what differs between them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from micro_data import Pictures
from micro_views import CELLS, Views, draw_views
from torch import Tensor, nn

from vpt.backbones import load_backbone
from vpt.errors import VptError
from vpt.machine.precision import autocast, choose_precision
from vpt.model import encode
from vpt.prompts import Prompts

MAP = 16  # cells a side of the stored features of a whole medical picture
FLOOR = 0.1  # of the mean deviation: a dimension that hardly varies is not blown up


@dataclass(frozen=True)
class Scale:
    """Mean and deviation (G, C) of features, by group."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, groups: list[Tensor]) -> Scale:
        """Of features (N, C) of every group."""
        std = torch.stack([rows.std(0, correction=0) for rows in groups]) + 1e-6
        return cls(torch.stack([rows.mean(0) for rows in groups]), std.clamp(min=FLOOR * std.mean()))

    def apply(self, features: Tensor, group: Tensor) -> Tensor:
        """(B, T, C) of the groups (B,), standardised."""
        return (features - self.mean[group][:, None]) / self.std[group][:, None]


class Teacher(nn.Module):
    """A frozen ViT that looks at views of 8x8 of its patches: a ViT of patch 14 at 112 px.

    Its CLS token is taken at the end, its patches after three quarters of its blocks: of the ViT-S that salient regions
    were learned with, a linear probe of Caltech-101 reads 61 % from the last CLS token (45 % after block 9 of 12), but
    58 % from the mean of the patches after block 9 and 48 % from that of the last.
    """

    def __init__(self, name: str, weights: Path, device: torch.device):
        super().__init__()
        patch = load_backbone(name, weights="random").spec.patch[0]
        backbone: Any = load_backbone(name, weights=weights, image_size=CELLS * patch)
        if not backbone.spec.has_cls:
            raise VptError(f"{name}: has no CLS token, which a teacher needs; choose a ViT with one")
        self.size, self.width = CELLS * patch, backbone.spec.finished.width
        self.blocks = [backbone.spec.depth * 3 // 4 - 1, backbone.spec.depth - 1]
        self.dtype = torch.bfloat16 if choose_precision("auto", device) == "bf16-mixed" else torch.float32
        self.vit = backbone.vit.to(device, self.dtype).eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(backbone.spec.mean, device=device).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.spec.std, device=device).view(3, 1, 1))
        self.scales: tuple[Scale, Scale] | None = None

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """RGB (B, 3, size, size) in [0, 1] -> CLS (B, 1, C) and patches (B, 64, C), float32."""
        (patches, _), (_, prefix) = self.vit.forward_intermediates(
            ((pictures - self.mean) / self.std).to(self.dtype),
            indices=self.blocks, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True,
        )  # fmt: skip
        return prefix[:, :1].float(), patches.float()

    def measure(self, groups: list[Tensor], generator: torch.Generator, count: int = 1024, batch: int = 256) -> None:
        """Learn each group's scale from views of at most `count` of its images (N, 3, S, S) uint8."""
        found = []
        for images in groups:
            rows = torch.randperm(len(images), generator=generator, device=images.device)[:count]
            parts = []
            for some in images[rows].split(batch):
                views = draw_views(len(some), generator)
                parts.append(self(enlarged(some, views, self.size)))
            found.append([torch.cat(part).flatten(0, 1) for part in zip(*parts, strict=True)])
        cls, patches = ([group[k] for group in found] for k in (0, 1))
        self.scales = Scale.of(cls), Scale.of(patches)

    def targets(self, pictures: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """What the student is to give for views of the groups (B,): CLS (B, 1, C) and patches (B, 64, C)."""
        assert self.scales is not None, "measure first"
        cls, patches = self(pictures)
        return self.scales[0].apply(cls, group), self.scales[1].apply(patches, group)


def enlarged(images: Tensor, views: Views, size: int) -> Tensor:
    """Views of uint8 images (B, 3, S, S) as a teacher sees them: RGB in [0, 1], bicubic."""
    return views.tint(views.cut(images.float() / 255, size, "bicubic").clamp(0, 1))


@torch.no_grad()
def medical_maps(pictures: Pictures, weights: Path, size: int, batch: int = 32) -> Tensor:
    """Features of LiteMedSAM for whole pictures, seen at `size` px -> (N, C, 16, 16), standardised by data set.

    A view's target is cut from its picture's map where the view is cut, so that the encoder (75 GFLOP at 256 px) runs
    once per picture. In bfloat16 where the device computes with it.
    """
    device, started = pictures.images.device, time.perf_counter()
    backbone = load_backbone("lite_medsam", weights=weights, image_size=size).to(device)
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (backbone.spec.mean, backbone.spec.std))
    precision = choose_precision("auto", device)
    parts = []
    for images in pictures.images.split(batch):
        seen = F.interpolate(images.float() / 255, (size, size), mode="bicubic").clamp(0, 1)
        low, high = seen.amin((1, 2, 3), keepdim=True), seen.amax((1, 2, 3), keepdim=True)
        seen = (seen - low) / (high - low).clamp(min=1e-3)
        with autocast(precision, device):
            grid = encode(backbone, Prompts(), (seen - mean) / std).grid
        parts.append(F.adaptive_avg_pool2d(grid.float(), MAP))
    maps = torch.cat(parts)
    groups = [maps[pictures.numbers == k].transpose(0, 1).flatten(1).T for k in range(len(pictures.names))]
    maps = Scale.of(groups).apply(maps.flatten(2).transpose(1, 2), pictures.numbers).transpose(1, 2)
    print(f"medical teacher: {len(maps)} pictures in {time.perf_counter() - started:.1f} s", flush=True)
    return maps.unflatten(2, (MAP, MAP)).to(torch.float16 if device.type == "cuda" else torch.float32)


class GroupLinear(nn.Module):
    """A linear map of its own for every group."""

    def __init__(self, groups: int, width: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(groups, width * out))
        self.bias = nn.Parameter(torch.zeros(groups, out))

    def forward(self, tokens: Tensor, member: Tensor) -> Tensor:
        """Tokens (B, T, C), group of each as one-hot rows (B, G) -> (B, T, out)."""
        weight = (member @ self.weight).unflatten(1, (tokens.shape[-1], -1))
        return torch.baddbmm((member @ self.bias)[:, None].to(weight.dtype), tokens.to(weight.dtype), weight)
