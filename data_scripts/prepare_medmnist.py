"""Fetch a data set of MedMNIST (Yang et al., 2023), or take its file from disk, and write a config to train on it.

    python data_scripts/prepare_medmnist.py --name dermamnist --size 64 --to data/dermamnist
    vpt check data/dermamnist/dermamnist_64.npz
    vpt train data/dermamnist/config.yaml

The folder then has the published file, unchanged, and config.yaml with its class names and what is asked of them:
`classes`, for chestmnist `labels` (any number of findings at once), for retinamnist `grades` (classes in an order).
Without a network get the file elsewhere, https://zenodo.org/records/10519652, and give it with `--from`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from preparing import told

from vpt.errors import VptError
from vpt.files import write_text
from vpt.published.material import fetch, place

RECORD = "https://zenodo.org/records/10519652/files"
SIDES = ("train", "val", "test")
DAMAGED = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError)
BY_HAND = "get the file elsewhere and give it with `--from FILE`"


@dataclass(frozen=True)
class Published:
    """A data set: its classes and what is asked of them, the shape of an image, the MD5 of the file by its size."""

    target: str
    shape: tuple[int | str, ...]  # "size" for each side
    md5: dict[int, str]
    classes: tuple[str, ...]


def catalogue() -> dict[str, Published]:
    """The published data sets by name."""
    table = yaml.safe_load(Path(__file__).with_name("medmnist.yaml").read_text(encoding="utf-8"))
    return {
        name: Published(entry["target"], tuple(entry["shape"]), entry["md5"], tuple(entry["classes"]))
        for name, entry in table.items()
    }


def prepare(name: str, size: int, to: Path, source: Path | None = None) -> Path:
    """The config in `to`, beside the published file; what is there already is verified and kept.

    Raises:
        VptError: no such set or size, no network, a file that is not the data set, another config in the folder.
    """
    sets = catalogue()
    if name not in sets:
        raise VptError(f"{name}: no data set of MedMNIST; choose one of {', '.join(sets)}")
    published = sets[name]
    if size not in published.md5:
        raise VptError(f"{name}: not published in size {size}; choose {' or '.join(map(str, published.md5))}")
    file = to / (f"{name}.npz" if size == 28 else f"{name}_{size}.npz")
    config, text = to / "config.yaml", config_of(published, file.name)
    if config.exists() and config.read_text(encoding="utf-8") != text:
        raise VptError(f"{config}: is there already and says something else; move it away, or give another --to")
    if source is None:
        fetch(f"{RECORD}/{file.name}?download=1", file, BY_HAND, md5=published.md5[size])
    else:
        take(source, file, published, size)
    write_text(config, text)
    return config


def config_of(published: Published, file: str) -> str:
    data = {"path": file, "target": published.target, "classes": list(published.classes)}
    return yaml.safe_dump({"task": "classification", "data": data}, sort_keys=False)


# --- the file ---------------------------------------------------------------------------------------------------------


def take(source: Path, file: Path, published: Published, size: int) -> None:
    """A file from disk, linked or copied to its place; one that is not the published one is taken with a warning."""
    if not source.is_file():
        raise VptError(f"{source}: no such file; give the .npz with --from, or leave it out to fetch it")
    found = md5_of(source)
    if found != published.md5[size]:
        check_arrays(source, published, size)
        check_whole(source)
        print(
            f"warning: {source} has MD5 {found}, published is {published.md5[size]}; it is another version of the data "
            "set: only its archive and the shapes in it were checked",
            file=sys.stderr,
        )
    if file.exists():
        if md5_of(file) != found:
            raise VptError(f"{file}: is there already with other content; move it away, or give another --to")
        return
    place(source, file)


def md5_of(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_whole(file: Path) -> None:
    """Every array of the archive against its checksum."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except DAMAGED as error:
        raise VptError(f"{file}: truncated or damaged ({error}); copy or download it again") from error
    if damaged:
        raise VptError(f"{file}: {damaged} is damaged; copy or download it again")


def check_arrays(file: Path, published: Published, size: int) -> None:
    """Images of the size and dimensions of that set, and a label for each; only the arrays' headers are read."""
    try:
        with zipfile.ZipFile(file) as archive:
            shapes = {name.removesuffix(".npy"): shape_of(archive, name) for name in archive.namelist()}
    except DAMAGED as error:
        raise VptError(f"{file}: no .npz, or damaged ({error}); copy or download it again") from error
    pixels = tuple(size if side == "size" else side for side in published.shape)
    columns = len(published.classes) if published.target == "labels" else 1
    for side in SIDES:
        images, labels = (shapes.get(f"{side}_{what}") for what in ("images", "labels"))
        if images is None or labels is None:
            raise VptError(f"{file}: no {side}_images with {side}_labels; expected a file of MedMNIST")
        if images[1:] != pixels or labels != (images[0], columns):
            expected = f"(N, {', '.join(map(str, pixels))}) and (N, {columns})"
            raise VptError(
                f"{file}: {side} has images {images} and labels {labels}, expected {expected}; "
                "give the --name and --size of that file"
            )


def shape_of(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(stream)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="dermamnist, pathmnist, organmnist3d, ...")
    parser.add_argument("--size", type=int, default=28, help="pixels of a side: 28, 64, 128, 224; in 3D 28, 64")
    parser.add_argument("--to", type=Path, required=True, help="the folder for the file and config.yaml")
    parser.add_argument("--from", dest="source", type=Path, help="the .npz on disk, instead of the network")
    args = parser.parse_args()
    with told():
        print(f"{prepare(args.name, args.size, args.to, args.source)}: ready for `vpt train`")


if __name__ == "__main__":
    main()
