"""Pretrain the micro backbone that ships in `vpt/assets/`: a 1.6 M parameter ViT for 64 px images.

Three losses share one forward pass over a partly masked image:

* cross-entropy on the CLS token             -> a global feature,
* cross-entropy on the mean of the patch tokens -> patch tokens that carry meaning,
* regression of the masked patches' normalised pixels (SimMIM, Xie et al., CVPR 2022, section 3)
  -> patch tokens that carry place and structure.

All augmentation runs in batches on the training device, so one process keeps a GPU or two CPU cores busy.
The run resumes from `OUT/state.pt` after any interruption; the weights are the moving average of the run.

    python data_scripts/pretrain_micro.py ../shared/pretrain/tinyimagenet64_webp.npz --out runs/micro --epochs 60

`vpt/assets/vit_micro.md` (the model card) says which command made the weights that ship.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import os
import time
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
ARCHITECTURE = {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 8, "num_heads": 4}


def read_images(pack: Path, part: str) -> tuple[Tensor, Tensor]:
    """Pack of encoded files -> images (N, 3, 64, 64) uint8 RGB, labels (N,) int64."""
    with np.load(pack) as arrays:
        data, offsets = arrays[f"{part}_data"], arrays[f"{part}_offsets"]
        labels = torch.from_numpy(arrays[f"{part}_labels"].astype(np.int64))
    images = np.empty((len(labels), 64, 64, 3), np.uint8)
    for i, (start, stop) in enumerate(itertools.pairwise(offsets)):
        images[i] = cv2.imdecode(data[start:stop], cv2.IMREAD_COLOR)[:, :, ::-1]
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def augment(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """uint8 (B, 3, 64, 64) -> float (B, 3, size, size) in [-1, 1]: crop, flip, brightness, contrast, saturation."""
    count, device = len(images), images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=device) * (high - low) + low

    scale = uniform(0.25, 1.0).sqrt()
    ratio = torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)) / 2)
    width, height = (scale * ratio).clamp(max=1), (scale / ratio).clamp(max=1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    out = F.grid_sample(images.float() / 255, grid, padding_mode="reflection", align_corners=False)

    out = out * uniform(0.6, 1.4, 1, 1, 1)
    mean = out.mean((1, 2, 3), keepdim=True)
    out = mean + (out - mean) * uniform(0.6, 1.4, 1, 1, 1)
    grey = out.mean(1, keepdim=True)
    saturation = torch.where(uniform(0, 1, 1, 1, 1) < 0.2, torch.zeros((), device=device), uniform(0.6, 1.4, 1, 1, 1))
    return (grey + (out - grey) * saturation).clamp(0, 1) * 2 - 1


def mix(images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix with the batch in reverse order; targets (B, K) are mixed by the share of each picture."""
    if rng.random() < 0.5:
        share = float(rng.beta(0.8, 0.8))
        return share * images + (1 - share) * images.flip(0), share * targets + (1 - share) * targets.flip(0)
    size = images.shape[-1]
    side = int(size * math.sqrt(1 - rng.beta(1.0, 1.0)))
    top, left = rng.integers(0, size - side + 1, 2)
    images = images.clone()
    images[:, :, top : top + side, left : left + side] = images.flip(0)[:, :, top : top + side, left : left + side]
    share = 1 - side * side / size**2
    return images, share * targets + (1 - share) * targets.flip(0)


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, 3, H, W) -> (B, H/p * W/p, 3 * p * p), row-major, each patch with zero mean and unit variance."""
    patches = F.unfold(images, patch, stride=patch).transpose(1, 2)
    mean, var = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    return (patches - mean) / (var + 1e-4).sqrt()


class Pretrainer(nn.Module):
    """The backbone with the three heads that are thrown away afterwards."""

    def __init__(self, classes: int, drop_path: float):
        super().__init__()
        self.vit = timm.models.VisionTransformer(
            **ARCHITECTURE, num_classes=0, drop_path_rate=drop_path, dynamic_img_size=True, weight_init="jax"
        )
        width = ARCHITECTURE["embed_dim"]
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.from_cls = nn.Linear(width, classes)
        self.from_patches = nn.Linear(width, classes)
        self.to_pixels = nn.Linear(width, 3 * ARCHITECTURE["patch_size"] ** 2)

    def forward(self, images: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, H, W), mask (B, h, w) bool -> CLS logits (B, K), patch logits (B, K), pixels (B, h*w, 3pp)."""
        grid = self.vit.patch_embed(images)
        if mask is not None:
            grid = torch.where(mask[..., None], self.mask_token.to(grid.dtype), grid)
        tokens = self.vit.norm(self.vit.blocks(self.vit._pos_embed(grid)))
        patches = tokens[:, 1:]
        return self.from_cls(tokens[:, 0]), self.from_patches(patches.mean(1)), self.to_pixels(patches)


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return 1e-3 * peak + (1 - 1e-3) * peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.no_grad()
def accuracy(model: Pretrainer, images: Tensor, labels: Tensor, device: torch.device) -> float:
    """Top-1 of the mean of both classifiers, in percent."""
    model.eval()
    right = 0
    for batch, truth in zip(images.split(500), labels.split(500), strict=True):
        cls, patches, _ = model(batch.to(device).float() / 127.5 - 1, None)
        right += ((cls + patches).argmax(1).cpu() == truth).sum().item()
    model.train()
    return 100 * right / len(labels)


def size_of_epoch(epoch: int, epochs: int, small: float) -> int:
    """The first share `small` of the epochs runs at 32, then 48 px (a quarter, half of the tokens), the rest at 64."""
    return 64 if epoch >= small * epochs else 48 if epoch >= 0.5 * small * epochs else 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--drop-path", type=float, default=0.0)
    parser.add_argument("--mix", type=float, default=0.5, help="share of the batches under mixup or CutMix")
    parser.add_argument("--mask", type=float, default=0.3, help="share of the patches that is masked")
    parser.add_argument("--pixels", type=float, default=0.5, help="weight of the reconstruction loss")
    parser.add_argument("--small", type=float, default=0.0, help="share of the epochs at 32 and 48 px")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    timm.layers.set_fused_attn(device.type != "cpu")  # on CPUs plain attention steps 1.8 times faster in bfloat16
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    images, labels = read_images(args.pack, "train")
    val_images, val_labels = read_images(args.pack, "val")
    classes = int(labels.max()) + 1
    images, labels = images.to(device), labels.to(device)

    model = Pretrainer(classes, args.drop_path).to(device)
    average = copy.deepcopy(model).requires_grad_(False)
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": args.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=args.lr, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    epoch, step, log = 0, 0, []
    state_file = args.out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        epoch, step, log = state["epoch"], state["step"], state["log"]
        print(f"resumed at epoch {epoch}", flush=True)
    forward = torch.compile(model) if args.compile else model

    per_epoch = len(images) // args.batch
    steps, warmup = per_epoch * args.epochs, per_epoch * max(1, args.epochs // 20)
    patch = ARCHITECTURE["patch_size"]
    while epoch < args.epochs:
        start, size = time.perf_counter(), size_of_epoch(epoch, args.epochs, args.small)
        generator = torch.Generator(device).manual_seed(args.seed * 10007 + epoch)
        rng = np.random.default_rng((args.seed, epoch))
        order = torch.randperm(len(images), generator=generator, device=device)
        losses = torch.zeros(3, device=device)
        for rows in order[: per_epoch * args.batch].view(per_epoch, args.batch):
            batch = augment(images[rows], size, generator)
            targets = F.one_hot(labels[rows], classes).float() * 0.9 + 0.1 / classes
            if rng.random() < args.mix:
                batch, targets = mix(batch, targets, rng)
            cells = size // patch
            mask = torch.rand(len(batch), cells, cells, generator=generator, device=device) < args.mask
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, warmup, args.lr)
            with torch.autocast(device.type, torch.bfloat16):
                cls, patches, pixels = forward(batch, mask)
            error = (pixels.float() - patchify(batch, patch)).abs().mean(-1)
            parts = torch.stack([
                F.cross_entropy(cls.float(), targets),
                F.cross_entropy(patches.float(), targets),
                (error * mask.flatten(1)).sum() / mask.sum().clamp(min=1),
            ])  # fmt: skip
            optimizer.zero_grad(set_to_none=True)
            (parts[0] + parts[1] + args.pixels * parts[2]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            keep = min(0.9995, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
            losses += parts.detach() / per_epoch
            step += 1
        epoch += 1
        if epoch % max(1, args.epochs // 100) == 0 or epoch == args.epochs:
            cls_loss, patch_loss, pixel_loss = losses.tolist()
            score = accuracy(average, val_images, val_labels, device)
            log.append([epoch, size, cls_loss, patch_loss, pixel_loss, score])
            print(
                f"epoch {epoch} ({size} px): cls {cls_loss:.3f} patches {patch_loss:.3f} pixels {pixel_loss:.3f}, "
                f"validation {score:.2f} % in {time.perf_counter() - start:.1f} s",
                flush=True,
            )
            state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state | {"epoch": epoch, "step": step, "log": log}, state_file.with_suffix(".part"))
            os.replace(state_file.with_suffix(".part"), state_file)

    weights = {k: v.to("cpu", torch.float16).contiguous() for k, v in average.vit.state_dict().items()}
    note = {"architecture": ARCHITECTURE, "mean": MEAN, "std": STD, "epochs": args.epochs, "seed": args.seed}
    save_file(weights, args.out / "vit_micro.safetensors", metadata={"micro": json.dumps(note)})
    (args.out / "log.json").write_text(
        json.dumps({"args": vars(args) | {"pack": args.pack.name, "out": ""}, "log": log})
    )


if __name__ == "__main__":
    main()
