"""The layout of nnU-Net, made of links to the scans and label maps of a data set that lays them out in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpt.data.cases import kind_of
from vpt.errors import VptError
from vpt.files import write_json
from vpt.published.material import place


def scans_in(folder: Path) -> dict[str, Path]:
    """Name -> scan, of the NIfTI files in a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and kind_of(path) == "volumes")
    return {path.name.split(".")[0]: path for path in files}


def in_pairs(images: Mapping[str, Path], labels: Mapping[str, Path], where: Path) -> dict[str, tuple[Path, Path]]:
    """Case -> scan and label map; raises VptError where one has no partner, or there is none at all."""
    if alone := sorted(images.keys() ^ labels.keys()):
        lacking = "label map" if alone[0] in images else "scan"
        raise VptError(f"{where}: {len(alone)} cases lack a partner, first {alone[0]} a {lacking}; get all files again")
    if not images:
        raise VptError(f"{where}: no scans (.nii.gz) found; get all files again")
    return {name: (images[name], labels[name]) for name in sorted(images)}


def lay_out(
    new: Path,
    pairs: Mapping[str, tuple[Path, Path]],
    unlabelled: Mapping[str, Path],
    description: Mapping[str, Any],
    channel: str,
) -> None:
    """imagesTr/, labelsTr/, imagesTs/ for those to predict, and dataset.json."""
    for name, (image, label) in pairs.items():
        place(image, new / "imagesTr" / f"{name}_0000{_ending(image)}")
        place(label, new / "labelsTr" / f"{name}{_ending(label)}")
    for name, image in unlabelled.items():
        place(image, new / "imagesTs" / f"{name}_0000{_ending(image)}")
    write_json(new / "dataset.json", {**description, "channel_names": {"0": channel}, "file_ending": ".nii.gz"})


def _ending(path: Path) -> str:
    return path.name[path.name.index(".") :]
