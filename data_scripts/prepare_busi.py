"""Fetch BUSI (breast ultrasound, lesions and three classes), or take it from disk, and make a folder that `vpt` reads.

    python data_scripts/prepare_busi.py --to data/busi
    vpt check data/busi
    vpt train data/busi                                  # segmentation of the lesions
    vpt train data/busi --task classification            # benign, malignant, normal

Several masks of one image become one. No patients are known, and many images are shown twice or nearly so: images that
look alike stand as one patient in dataset.json, and the split is drawn by these groups, each class with its share. An
image that lies in two classes is left out, and named.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from likeness import likeness, read_grey
from PIL import Image
from preparing import prepare_drawn

from vpt.data.cases import scan_files
from vpt.errors import VptError
from vpt.files import write_json
from vpt.published.material import Archive, Material, Origin, draw, place, write_split
from vpt.words import listed

ORIGIN = Origin(
    "BUSI",
    "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    "0.2 GB",
    "none is stated with the files; their article is under CC BY 4.0",
    "Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28, 104863 (2020)",
    (Archive("Dataset_BUSI.zip", "https://scholar.cu.edu.eg/Dataset_BUSI.zip"),),
)
CLASSES = ("benign", "malignant", "normal")
NAME = re.compile(r"(?P<name>[a-z]+ \(\d+\))(?P<mask>_mask(_\d+)?)?\.png", re.IGNORECASE)
LESION = 255


def build(seed: int, material: Material, new: Path) -> None:
    folder = material.folder(CLASSES[0]).parent
    images, masks, classes = read_names(folder)
    alike = likeness(images)
    for name in (twice := alike.in_two_classes(classes)):
        images.pop(name)
    if twice:
        print(f"left out: {len(twice)} images that two classes have ({listed(twice, 8)})")
    groups = {name: group for name, group in alike.groups().items() if name in images}
    for name, image in images.items():
        place(image, new / "images" / f"{name}.png")
        save_mask(masks[name], image, new / "masks" / f"{name}.png")
    write_json(new / "dataset.json", ORIGIN.description({"background": 0, "lesion": LESION}, patients=groups))
    write_labels(new / "labels.csv", {name: classes[name] for name in images}, groups)
    write_split(new, draw(groups, classes, seed))


def read_names(folder: Path) -> tuple[dict[str, Path], dict[str, list[Path]], dict[str, str]]:
    """Images, masks and classes by the image's new name: `benign (3).png` is benign_003."""
    images: dict[str, Path] = {}
    masks: defaultdict[str, list[Path]] = defaultdict(list)
    for path in (path for kind in CLASSES for path in scan_files(folder / kind, "images")):
        found = NAME.fullmatch(path.name)
        if found is None or not path.name.startswith(path.parent.name):
            raise VptError(
                f"{path}: no image or mask of BUSI by its name; expected {path.parent.name} (1).png, ..._mask.png"
            )
        number = int(re.sub(r"\D", "", found["name"]))
        name = f"{path.parent.name}_{number:03d}"
        if found["mask"]:
            masks[name].append(path)
        else:
            images[name] = path
    if alone := sorted(images.keys() ^ masks.keys()):
        raise VptError(f"{folder}: {alone[0]} has no {'mask' if alone[0] in images else 'image'}; get all files again")
    return images, masks, {name: name.rpartition("_")[0] for name in images}


def save_mask(parts: Sequence[Path], image: Path, target: Path) -> None:
    """The union of an image's masks, 0 and 255."""
    with Image.open(image) as opened:
        size = opened.size
    whole = np.zeros(size[::-1], bool)
    for path in parts:
        part = np.asarray(read_grey(path)) > 127
        if part.shape != whole.shape:
            raise VptError(f"{path}: {part.shape[1]}x{part.shape[0]} pixels, its image has {size[0]}x{size[1]}")
        whole |= part
    target.parent.mkdir(exist_ok=True)
    Image.fromarray(whole.astype(np.uint8) * LESION).save(target)


def write_labels(path: Path, classes: Mapping[str, str], groups: Mapping[str, str]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "group"])
        writer.writerows([f"{name}.png", label, groups[name]] for name, label in sorted(classes.items()))


def main() -> None:
    prepare_drawn(__doc__, ORIGIN, build)


if __name__ == "__main__":
    main()
