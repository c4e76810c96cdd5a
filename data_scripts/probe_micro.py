r"""Linear-probe accuracy of the micro backbone beside random weights: what its frozen features are worth.

Softmax regression on [CLS; mean of the patch tokens], standardised, with L2 chosen on validation images:

* tiny-imagenet: fitted on the 40,000 pretraining images (4,000 of them choose L2), scored on the 2,000 for validation;
* labelled data sets: L2 chosen on their val, refitted on train and val, scored once on test.

    python data_scripts/probe_micro.py --pack ../shared/pretrain/tinyimagenet64_webp.npz \
        --sets ../shared/data/{caltech101_vtab,busi,brain_tumor_mri4,cxr_pneumonia} --weights pretrained random
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from micro_data import read_classes, read_images
from torch import Tensor

from vpt.backbones import Backbone, load_backbone
from vpt.model import encode
from vpt.prompts import Prompts

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SIDES = ("train", "val", "test")
Side = tuple[Tensor, Tensor]  # features (N, 2C), classes (N,)


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


@dataclass(frozen=True)
class Result:
    """Top-1 in percent on test, and on val at the strength that was best there."""

    score: float
    strength: float
    chosen: float


def probe(train: Side, val: Side, test: Side) -> Result:
    """Choose the strength on val, fit it on train and val, score that once on test."""
    classes = int(train[1].max()) + 1

    def score(fitted: Side, held: Side, strength: float) -> float:
        mean, std = fitted[0].mean(0), fitted[0].std(0) + 1e-6
        fitted_x, held_x = (F.pad((x - mean) / std, (0, 1), value=1.0) for x in (fitted[0], held[0]))
        weights = fit(fitted_x, fitted[1], classes, strength)
        return 100 * ((held_x @ weights).argmax(1) == held[1]).float().mean().item()

    chosen, best = max((score(train, val, strength), -strength) for strength in STRENGTHS)
    both = (torch.cat([train[0], val[0]]), torch.cat([train[1], val[1]]))
    return Result(score(both, test, -best), -best, chosen)


def tiny_imagenet(backbone: Backbone, pack: Path) -> Result:
    images, labels = read_images(pack, "train")
    held_images, held_labels = read_images(pack, "val")
    x = features(backbone, images)
    return probe((x[4000:], labels[4000:]), (x[:4000], labels[:4000]), (features(backbone, held_images), held_labels))


def of_set(backbone: Backbone, folder: Path) -> Result:
    """The probe of a labelled data set by its own split, its pictures pressed into squares of 64 px."""
    sides = {}
    for side in SIDES:
        pictures = read_classes(folder, side, 64)
        sides[side] = (features(backbone, pictures.images), pictures.numbers)
    return probe(*(sides[side] for side in SIDES))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pack", type=Path, help="of tiny-imagenet")
    parser.add_argument("--sets", type=Path, nargs="*", default=[], help="labelled data sets, with val and test sides")
    parser.add_argument("--weights", nargs="+", default=["pretrained", "random"], help="files, or these words")
    args = parser.parse_args()
    for weights in args.weights:
        backbone = load_backbone("vit_micro", weights=None if weights == "pretrained" else weights)
        if args.pack:
            tell(weights, "tiny-imagenet validation", tiny_imagenet(backbone, args.pack))
        for folder in args.sets:
            tell(weights, f"{folder.name} test", of_set(backbone, folder))


def tell(weights: str, what: str, result: Result) -> None:
    print(f"{weights}: {what} {result.score:.2f} % (L2 {result.strength:g}; {result.chosen:.2f} % where it was chosen)")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
