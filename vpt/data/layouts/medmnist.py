"""A MedMNIST .npz as labelled rows: the arrays {train,val,test}_{images,labels}, kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpt.data.layouts.rows import Row
from vpt.errors import VptError
from vpt.readers.nifti import volume_in_memory
from vpt.readers.npz import SCAN, described, read_array
from vpt.vocabulary import SIDES
from vpt.words import listed

EXPECTED = "expected {train,val,test}_images and {train,val,test}_labels, as MedMNIST has them"
MOST_CLASSES = 100_000


def npz_rows(source: Path, classes: Sequence[str] | None) -> tuple[list[Row], list[str], bool]:
    """Rows named `train_00017`, the classes in order, and whether the labels are several (a column of 0 and 1 each).

    Images (N, H, W) or (N, H, W, 3) are pictures, (N, D, H, W) volumes with the axes X = W, Y = H, Z = D and the
    identity as affine. Raises VptError for everything that is not so.
    """
    arrays = _arrays(source)
    sides = [side for side in SIDES if f"{side}_images" in arrays]
    several = {side: _checked(source, side, arrays) for side in sides}
    if len(set(several.values())) > 1:
        raise VptError(f"{source}: the labels have one column on one side and several on another; give all the same")
    shapes = {side: arrays[f"{side}_images"].shape[1:] for side in sides}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{side} {shape}" for side, shape in shapes.items())
        raise VptError(f"{source}: images of different shapes ({found}), expected one for all sides; export it again")
    multi = next(iter(several.values()))
    held = [_held(arrays[f"{side}_labels"], multi) for side in sides]
    count = max(held)
    if count > MOST_CLASSES:
        raise VptError(
            f"{source}: a label of {count - 1}, expected at most {MOST_CLASSES - 1}; number the classes from 0"
        )
    names = [f"class {k}" for k in range(count)] if classes is None else list(classes)
    if len(names) < count or (multi and len(names) > count):
        raise VptError(f"{source}: labels of {count} classes, but `classes` has {len(names)} names; give {count}")
    return [row for side in sides for row in _rows(source, side, arrays, names, multi)], names, multi


def is_medmnist(path: Path) -> bool:
    """Whether a file is such a set by its list of contents; not where that cannot be read."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        return bool(described(path, ["train_images"])[0])
    except VptError:
        return False


def _arrays(source: Path) -> dict[str, np.ndarray]:
    if not source.is_file() or source.stat().st_size == 0:
        found = "an empty file" if source.is_file() else "no such file"
        raise VptError(f"{source}: {found}, {EXPECTED}; download it again")
    claimed, there = described(source, [f"{side}_{what}" for side in SIDES for what in ("images", "labels")])
    if SCAN in there:
        raise VptError(f"{source}: one case as MedSAM keeps them (`{SCAN}`), no data set; give the folder of all cases")
    lone = [name for name in claimed if name.endswith("images") and name.replace("images", "labels") not in claimed]
    if "train_images" not in claimed or lone:
        raise VptError(f"{source}: holds {listed(there) if there else 'nothing'}, {EXPECTED}; rename its arrays")
    return {name: read_array(source, name, array) for name, array in claimed.items()}


def _checked(source: Path, side: str, arrays: dict[str, np.ndarray]) -> bool:
    """Whether the labels of a side are several columns; raises VptError for odd shapes, types or values."""
    images, labels = arrays[f"{side}_images"], arrays[f"{side}_labels"]
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        expected = "(N, H, W), (N, H, W, 3) or (N, D, H, W)"
        raise VptError(f"{source}: {side}_images has the shape {images.shape}, expected {expected}; reshape it")
    if images.dtype != np.uint8:
        raise VptError(f"{source}: {side}_images is {images.dtype}, expected uint8; scale it to 0..255 and convert it")
    if labels.ndim not in (1, 2) or len(labels) != len(images) or labels.size < len(labels):
        expected = f"({len(images)}, 1), or a column for each of several labels"
        raise VptError(f"{source}: {side}_labels has the shape {labels.shape}, expected {expected}; reshape it")
    if labels.dtype.kind not in "iub":
        raise VptError(f"{source}: {side}_labels is {labels.dtype}, expected whole numbers; convert it")
    several = labels.ndim == 2 and labels.shape[1] > 1
    low, high = (int(labels.min(initial=0)), int(labels.max(initial=0)))
    if low < 0 or (several and high > 1):
        expected = "0 and 1" if several else "classes from 0 on"
        raise VptError(f"{source}: {side}_labels holds {low if low < 0 else high}, expected {expected}; correct it")
    return several


def _held(labels: np.ndarray, multi: bool) -> int:
    """How many classes there must be for such labels."""
    return labels.shape[1] if multi else int(labels.max(initial=0)) + 1


def _rows(source: Path, side: str, arrays: dict[str, np.ndarray], names: Sequence[str], multi: bool) -> list[Row]:
    images, labels = arrays[f"{side}_images"], arrays[f"{side}_labels"].reshape(len(arrays[f"{side}_images"]), -1)
    rows = []
    for number, (image, held) in enumerate(zip(images, labels, strict=True)):
        name = f"{side}_{number:05d}"
        places = np.flatnonzero(held) if multi else held
        rows.append(Row(f"{source}: {name}", name, _image(image), tuple(names[int(k)] for k in places), side))
    return rows


def _image(pixels: np.ndarray) -> Any:
    """Pixels as they are, or voxels (D, H, W) as a nibabel image (W, H, D)."""
    if pixels.ndim == 2 or pixels.shape[-1] == 3:
        return pixels
    return volume_in_memory(pixels.T, np.eye(4))
