"""The micro ViT with the heads that are thrown away after its pretraining, and their losses."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from micro_teachers import GroupLinear
from torch import Tensor, nn

ARCHITECTURE: dict[str, Any] = {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 8, "num_heads": 4}


@dataclass(frozen=True)
class Batch:
    """What one step learns from: N natural pictures, then M medical ones, B in all.

    images: (B, 3, H, W) in [-1, 1]; targets: (N, K), of the natural ones; member: (B, G), the group as one-hot row;
    features: the teacher's CLS (B, 1, C) and patches (B, h*w, C); maps: LiteMedSAM's features (M, h*w, D).
    """

    images: Tensor
    targets: Tensor
    member: Tensor
    features: tuple[Tensor, Tensor] | None
    maps: Tensor | None


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, 3, H, W) -> (B, H/p * W/p, 3 * p * p), row-major, each patch with zero mean and unit variance."""
    patches = F.unfold(images, patch, stride=patch).transpose(1, 2)
    mean, var = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    return (patches - mean) / (var + 1e-4).sqrt()


class Student(nn.Module):
    """teacher, medical: widths of the features that are learned, 0 where there is no such teacher."""

    def __init__(self, classes: int, groups: int, teacher: int, medical: int, drop_path: float):
        super().__init__()
        self.vit: Any = timm.models.VisionTransformer(
            **ARCHITECTURE, num_classes=0, drop_path_rate=drop_path, dynamic_img_size=True, weight_init="jax"
        )
        width, self.patch = ARCHITECTURE["embed_dim"], ARCHITECTURE["patch_size"]
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.from_cls = nn.Linear(width, classes)
        self.from_patches = nn.Linear(width, classes)
        self.to_pixels = nn.Linear(width, 3 * self.patch**2)
        self.to_cls = GroupLinear(groups, width, teacher) if teacher else None
        self.to_patches = GroupLinear(groups, width, teacher) if teacher else None
        self.to_maps = GroupLinear(groups, width, medical) if medical else None

    def forward(self, images: Tensor, mask: Tensor | None) -> Tensor:
        """Images (B, 3, H, W), mask (B, h, w) bool -> tokens (B, 1 + h*w, C), CLS first."""
        grid = self.vit.patch_embed(images)
        if mask is not None:
            grid = torch.where(mask[..., None], self.mask_token.to(grid.dtype), grid)
        return self.vit.norm(self.vit.blocks(self.vit._pos_embed(grid)))

    def logits(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K) from the CLS token, and from the mean of the patches."""
        return self.from_cls(tokens[:, 0]), self.from_patches(tokens[:, 1:].mean(1))

    def losses(self, batch: Batch, mask: Tensor) -> Tensor:
        """(6,): labels by CLS, labels by patches, masked pixels, teacher's CLS, its patches, LiteMedSAM's features."""
        tokens = self(batch.images, mask)
        cls, patches = self.logits(tokens[: len(batch.targets)])
        error = (self.to_pixels(tokens[:, 1:]).float() - patchify(batch.images, self.patch)).abs().mean(-1)
        none = tokens.new_zeros(())
        parts = [
            F.cross_entropy(cls.float(), batch.targets),
            F.cross_entropy(patches.float(), batch.targets),
            (error * mask.flatten(1)).sum() / mask.sum().clamp(min=1),
            *(none, none, none),
        ]
        if self.to_cls is not None and self.to_patches is not None and batch.features is not None:
            parts[3] = F.smooth_l1_loss(self.to_cls(tokens[:, :1], batch.member).float(), batch.features[0])
            parts[4] = F.smooth_l1_loss(self.to_patches(tokens[:, 1:], batch.member).float(), batch.features[1])
        if self.to_maps is not None and batch.maps is not None:
            medical = slice(len(batch.targets), None)
            parts[5] = F.smooth_l1_loss(self.to_maps(tokens[medical, 1:], batch.member[medical]).float(), batch.maps)
        return torch.stack([part.float() for part in parts])


def compile_blocks(vit: Any, count: int, size: int, dtype: torch.dtype) -> None:
    """Run a ViT's blocks through torch.compile, one graph for all; where that fails, say so and go on without.

    count, size, dtype: of the images that will be given.
    """
    device, started = vit.pos_embed.device, time.perf_counter()
    for block in vit.blocks:
        block.compile()
    try:
        images = torch.zeros(count, 3, size, size, device=device, dtype=dtype)
        with (
            torch.set_grad_enabled(vit.pos_embed.requires_grad),
            torch.autocast(device.type, torch.bfloat16, enabled=vit.pos_embed.requires_grad),
        ):
            tokens = vit.forward_features(images)
        if tokens.requires_grad:
            tokens.float().square().mean().backward()
            vit.zero_grad(set_to_none=True)
        print(f"compiled blocks of width {vit.embed_dim} in {time.perf_counter() - started:.1f} s", flush=True)
    except Exception as error:  # a compiler fails in a dozen ways, none of which should cost the run
        for block in vit.blocks:
            block._compiled_call_impl = None
        vit.zero_grad(set_to_none=True)
        print(f"NOT COMPILED, width {vit.embed_dim}: {type(error).__name__}: {str(error)[:500]}", flush=True)
