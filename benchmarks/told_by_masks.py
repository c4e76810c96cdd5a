"""What LiteMedSAM makes of a model's mask: told the box around its largest region, as a radiologist would draw one.

    python benchmarks/told_by_masks.py ../shared/data/busi RUN/validation RUN/validation ... --weights FILE

Images with one label, the folders of their masks (a run's validation, or what `vpt evaluate RUN` wrote), LiteMedSAM's
file. Of the cases that have the label: Dice of the masks, of their largest regions, of what the checkpoint's own prompt
encoder and decoder, both frozen, answer to the box, and of the same told the reference's box, which is the ceiling.
Differences are paired by case, with 95 % intervals (bootstrap over patients, a case's folders averaged). A mask with
nothing in it keeps its 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import torch
from timing import CPU
from torch import Tensor
from torch.nn import functional
from trust import dice_of

from vpt.backbones.tiny_vit_models import load_tiny_sam
from vpt.data.framing import resize_image
from vpt.data.label_maps import read_label
from vpt.data.layouts import read_dataset
from vpt.data.postprocess import largest_component
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import encode
from vpt.prompts import Prompts
from vpt.readers.picture import read_picture
from vpt.scores.bootstrap import bootstrap

SIDE = 256
HALF: Final = "bf16-mixed"
WAYS = ("mask", "largest region", "told its box", "told the reference's box")


class Teller:
    """The frozen checkpoint, asked about one image after the other."""

    def __init__(self, weights: Path):
        self.encoder = load_tiny_sam("lite_medsam", weights, None)
        assert self.encoder.decoder is not None, "the file holds an encoder alone"
        self.decoder = self.encoder.decoder.eval()
        prepare_frozen(self.encoder, HALF)

    @torch.inference_mode()
    def look(self, image: np.ndarray) -> None:
        """image: (channels, rows, columns); it goes in as the authors' own do, from its minimum to its maximum."""
        self.shape = image.shape[1:]
        self.scale = SIDE / max(self.shape)
        self.seen = round(self.shape[0] * self.scale), round(self.shape[1] * self.scale)
        values = image.astype(np.float32) - image.min()
        values /= max(float(values.max()), 1e-8)
        square = torch.zeros(1, 3, SIDE, SIDE)  # padded at the right and bottom; a grey image is the same in all three
        square[0, :, : self.seen[0], : self.seen[1]] = torch.from_numpy(
            np.stack([resize_image(channel, self.seen) for channel in values])
        )
        with autocast(HALF, CPU):
            self.embedding: Tensor = encode(self.encoder, Prompts(), square).grid.float()

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


def measure(data: Path, folders: list[Path], weights: Path) -> tuple[np.ndarray, list[str]]:
    """(cases that have the label, folders, WAYS), and the patient of each case."""
    dataset, teller = read_dataset(data, None, None), Teller(weights)
    found, patients = [], []
    for path in sorted(folders[0].glob("*.png")):
        case = dataset.case(path.stem)
        truth = read_label(case.label, dataset.labels, None, case.name).counted[..., 0].T > 0  # (rows, columns)
        if not truth.any():
            continue
        teller.look(read_picture(case.images[0]))
        ceiling, of_folders = dice_of(teller.told(truth), truth), []
        for folder in folders:
            mask = read_picture(folder / path.name)[0] > 0
            region = largest_component(mask)
            told = teller.told(region) if mask.any() else mask
            of_folders.append([*(dice_of(each, truth) for each in (mask, region, told)), ceiling])
        found.append(of_folders)
        patients.append(dataset.patient(case.name))
    return np.array(found), patients


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("masks", type=Path, nargs="+", help="folders")
    parser.add_argument("--weights", type=Path, required=True)
    given = parser.parse_args()
    found, patients = measure(given.data, given.masks, given.weights)
    print(f"{given.data.name}: {len(found)} cases of {len(set(patients))} patients; Dice: {', '.join(WAYS)}")
    for folder, dice in zip(given.masks, found.mean(0), strict=True):
        print(folder, *(f"{value:.4f}" for value in dice))
    mask, region, told, ceiling = found.mean(1).T
    rows = dict(zip(WAYS, (mask, region, told, ceiling), strict=True))
    rows |= {f"{WAYS[2]} minus {WAYS[0]}": told - mask, f"{WAYS[2]} minus {WAYS[1]}": told - region}
    intervals = bootstrap(
        lambda weights: {name: values @ weights / weights.sum(0) for name, values in rows.items()}, len(found), patients
    )
    for name, values in rows.items():
        low, high = intervals[name]
        print(f"{name:34s} {values.mean():+.4f} ({low:+.4f} to {high:+.4f})")


if __name__ == "__main__":
    main()
