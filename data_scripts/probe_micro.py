r"""Linear-probe accuracy of the micro backbone beside random weights: what its frozen features are worth.

Softmax regression on [CLS; mean of the patch tokens], standardised, with L2 chosen on validation images:

* tiny-imagenet: fitted on the 40,000 pretraining images (4,000 of them choose L2), scored on the 2,000 for validation;
* Caltech-101, VTAB-1k style: L2 chosen on train/val, refitted on both, scored once on test.

    python data_scripts/probe_micro.py --pack ../shared/pretrain/tinyimagenet64_webp.npz \
        --caltech ../shared/data/caltech101_vtab
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pretrain_micro import read_images
from torch import Tensor

from vpt.backbones import Backbone, load_backbone
from vpt.model import encode
from vpt.prompts import Prompts

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@torch.inference_mode()
def features(backbone: Backbone, images: Tensor) -> Tensor:
    """uint8 (N, 3, 64, 64) -> (N, 2C) float32."""
    parts = []
    for batch in images.split(256):
        found = encode(backbone, Prompts(), batch.float() / 127.5 - 1)
        parts.append(torch.cat([found.prefix[:, 0], found.grid.mean((2, 3))], dim=1))
    return torch.cat(parts)


def fit(x: Tensor, y: Tensor, classes: int, strength: float) -> Tensor:
    """Softmax regression by L-BFGS on standardised features with a constant column -> weights (2C + 1, classes)."""
    weights = torch.zeros(x.shape[1], classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weights, y) + strength * weights.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def probe(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Top-1 on test in percent, and the strength that was best on val; the final fit uses train and val."""
    classes = int(train[1].max()) + 1

    def score(fitted: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], strength: float) -> float:
        mean, std = fitted[0].mean(0), fitted[0].std(0) + 1e-6
        fitted_x, held_x = (F.pad((x - mean) / std, (0, 1), value=1.0) for x in (fitted[0], held[0]))
        weights = fit(fitted_x, fitted[1], classes, strength)
        return 100 * ((held_x @ weights).argmax(1) == held[1]).float().mean().item()

    best = max(STRENGTHS, key=lambda strength: score(train, val, strength))
    both = (torch.cat([train[0], val[0]]), torch.cat([train[1], val[1]]))
    return score(both, test, best), best


def read_caltech(root: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Split -> images (N, 3, 64, 64) uint8 squeezed to a square, labels (N,)."""
    split = json.loads((root / "split.json").read_text())
    names = sorted({name.split("/")[0] for part in ("train", "val", "test") for name in split[part]})
    parts = {}
    for part in ("train", "val", "test"):
        images = [cv2.imread(str(root / name), cv2.IMREAD_COLOR_RGB) for name in split[part]]
        small = [cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in images]
        labels = torch.tensor([names.index(name.split("/")[0]) for name in split[part]])
        parts[part] = (torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous(), labels)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--caltech", type=Path, required=True)
    args = parser.parse_args()
    images, labels = read_images(args.pack, "train")
    held_images, held_labels = read_images(args.pack, "val")
    caltech = read_caltech(args.caltech)
    for weights in (None, "random"):
        backbone = load_backbone("vit_micro", weights=weights)
        x = features(backbone, images)
        tiny = probe(
            (x[4000:], labels[4000:]), (x[:4000], labels[:4000]), (features(backbone, held_images), held_labels)
        )
        side = {part: (features(backbone, shown), truth) for part, (shown, truth) in caltech.items()}
        small = probe(side["train"], side["val"], side["test"])
        print(
            f"{weights or 'pretrained'}: tiny-imagenet validation {tiny[0]:.2f} % (L2 {tiny[1]:g}), "
            f"Caltech-101 test {small[0]:.2f} % (L2 {small[1]:g})",
            flush=True,
        )


if __name__ == "__main__":
    main()
