"""Fetch Kvasir-SEG (polyps in colonoscopy), or take it from disk, and make a folder that `vpt` reads.

    python data_scripts/prepare_kvasir.py --to data/kvasir
    vpt check data/kvasir
    vpt train data/kvasir

The masks are published as JPEG, which keeps no exact values: they are written anew as PNG, above 127 as polyp. No
patients are known, and neighbouring frames look alike: those stand as one patient in dataset.json, and the split is
drawn by these groups.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from likeness import likeness, read_grey
from PIL import Image
from preparing import prepare_drawn

from vpt.data.cases import case_name, scan_files
from vpt.errors import VptError
from vpt.files import write_json
from vpt.published.material import Archive, Material, Origin, draw, place, write_split

ORIGIN = Origin(
    "Kvasir-SEG",
    "https://datasets.simula.no/kvasir-seg",
    "46 MB",
    "research and education only; commercial use needs the authors' permission",
    "Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MultiMedia Modeling (2020)",
    (
        Archive(
            "kvasir-seg.zip",
            "https://datasets.simula.no/downloads/kvasir-seg.zip",
            sha256="03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7",
        ),
    ),
)
POLYP = 255


def build(seed: int, material: Material, new: Path) -> None:
    folder = material.folder("masks").parent
    images, masks = (
        {case_name(path): path for path in scan_files(folder / each, "images")} for each in ("images", "masks")
    )
    if alone := sorted(images.keys() ^ masks.keys()):
        raise VptError(f"{folder}: {alone[0]} has no {'mask' if alone[0] in images else 'image'}; get all files again")
    if not images:
        raise VptError(f"{folder}: no images with masks in it; {ORIGIN.by_hand}")
    (new / "masks").mkdir()
    for name, image in images.items():
        place(image, new / "images" / image.name)
        mask = np.asarray(read_grey(masks[name])) > 127
        Image.fromarray(mask.astype(np.uint8) * POLYP).save(new / "masks" / f"{name}.png")
    groups = likeness(images).groups()
    write_json(new / "dataset.json", ORIGIN.description({"background": 0, "polyp": POLYP}, patients=groups))
    write_split(new, draw(groups, seed=seed))


def main() -> None:
    prepare_drawn(__doc__, ORIGIN, build)


if __name__ == "__main__":
    main()
