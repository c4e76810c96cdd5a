"""What LiteMedSAM makes of a model's mask: told the box around its largest region, as a radiologist would draw one.

    python benchmarks/told_by_masks.py ../shared/data/busi RUN/validation RUN/validation ... --weights FILE

Images with one label, the folders of their masks (a run's validation, or what `vpt evaluate RUN` wrote), LiteMedSAM's
file. Of the cases that have the label: Dice of the masks, of their largest regions, of what the checkpoint's own prompt
encoder and decoder, both frozen, answer to the box, and of the same told the reference's box, which is the ceiling.
Differences are paired by case, with 95 % intervals (bootstrap over cases, a case's folders averaged). A mask with
nothing in it keeps its 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from comparison import interval
from torch import Tensor
from torch.nn import functional

from vpt.backbones.tiny_vit import TinyVitBackbone
from vpt.backbones.tiny_vit_models import load_tiny_sam
from vpt.data.framing import resize_image
from vpt.data.layouts import read_dataset

SIDE = 256
WAYS = ("mask", "largest region", "told its box", "told the reference's box")


class Teller:
    """The frozen checkpoint, asked about one image after the other."""

    def __init__(self, weights: Path):
        self.encoder: TinyVitBackbone = load_tiny_sam("lite_medsam", weights, None).eval()
        assert self.encoder.decoder is not None, "the file holds an encoder alone"
        self.decoder = self.encoder.decoder.eval()

    @torch.inference_mode()
    def look(self, image: np.ndarray) -> None:
        """image: (rows, columns, 3) of any range; it goes in as the authors' own do, minimum to maximum in 0 to 1."""
        self.shape = image.shape[:2]
        self.scale = SIDE / max(self.shape)
        self.seen = tuple(round(side * self.scale) for side in self.shape)
        values = image.astype(np.float32)
        values = (values - values.min()) / max(float(np.ptp(values)), 1e-8)
        square = np.zeros((SIDE, SIDE, 3), np.float32)
        square[: self.seen[0], : self.seen[1]] = resize_image(values, self.seen)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = self.encoder.embed(torch.from_numpy(square).permute(2, 0, 1)[None])
            for i in range(self.encoder.spec.depth):
                tokens = self.encoder.block(i, tokens, None)
            self.embedding: Tensor = self.encoder.finish(tokens).grid.float()

    @torch.inference_mode()
    def told(self, region: np.ndarray) -> np.ndarray:
        """What it finds in the box around the region, (rows, columns) of the image."""
        rows, columns = np.nonzero(region)
        box = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]) * self.scale
        asker, answerer = self.decoder.prompt_encoder, self.decoder.mask_decoder
        sparse, dense = asker(points=None, boxes=box, masks=None)
        logits, _ = answerer(self.embedding, asker.get_dense_pe(), sparse, dense, multimask_output=False)
        logits = functional.interpolate(logits, (SIDE, SIDE), mode="bilinear")[:, :, : self.seen[0], : self.seen[1]]
        return (functional.interpolate(logits, self.shape, mode="bilinear")[0, 0] > 0).numpy()


def largest(mask: np.ndarray) -> np.ndarray:
    """Its largest region; regions touch at their sides or corners."""
    count, regions, sizes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return np.equal(regions, 1 + sizes[1:, cv2.CC_STAT_AREA].argmax()) if count > 1 else mask


def read_mask(path: Path) -> np.ndarray:
    return _read(path, cv2.IMREAD_GRAYSCALE) > 0


def _read(path: str | Path, flag: int) -> np.ndarray:
    image = cv2.imread(str(path), flag)
    assert image is not None, f"{path} is no picture"
    return image


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * int((found & truth).sum()) / int(found.sum() + truth.sum())


def scores(folders: list[Path], data: Path, weights: Path) -> np.ndarray:
    """(folders, cases that have the label, WAYS)."""
    dataset, teller = read_dataset(data, None, None), Teller(weights)
    found: list[list[list[float]]] = []
    for path in sorted(folders[0].glob("*.png")):
        case = dataset.case(path.stem)
        assert case.label is not None
        truth = read_mask(Path(case.label))
        if not truth.any():
            continue
        teller.look(_read(case.images[0], cv2.IMREAD_COLOR)[..., ::-1])
        ceiling = dice(teller.told(truth), truth)
        found.append([])
        for folder in folders:
            mask = read_mask(folder / path.name)
            region = largest(mask)
            told = teller.told(region) if region.any() else region
            found[-1].append([*(dice(each, truth) for each in (mask, region, told)), ceiling])
    return np.array(found).swapaxes(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("masks", type=Path, nargs="+", help="folders")
    parser.add_argument("--weights", type=Path, required=True)
    given = parser.parse_args()
    found = scores(given.masks, given.data, given.weights)
    print(f"{given.data.name}: {found.shape[1]} cases, {', '.join(WAYS)}")
    for folder, of_cases in zip(given.masks, found, strict=True):
        print(folder, *(f"{value:.4f}" for value in of_cases.mean(0)))
    mean = found.mean(0)
    for k, way in enumerate(WAYS):
        print(f"{way:26s} {interval(mean[:, k])}")
    for k in (0, 1):
        print(f"told its box minus {WAYS[k]:15s} {interval(mean[:, 2] - mean[:, k])}")


if __name__ == "__main__":
    main()
