"""What the micro backbone is trained and probed on: packs of small pictures, and the two files for another machine.

    python data_scripts/micro_data.py medical runs/medical.npz ../shared/data/busi ../shared/data/kvasir_seg
    python data_scripts/micro_data.py half vit_small_focus.safetensors runs/vit_small.safetensors
    python data_scripts/micro_data.py half lite_medsam.safetensors runs/lite_medsam.safetensors --only image_encoder.

`medical` keeps the training pictures of data sets, never one for validation or test, as WebP of 96 px. `half` keeps
weights in float16, without the parts that no feature comes from.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vpt.errors import VptError
from vpt.tensor_files import write_tensors

SIDE, QUALITY = 96, 90  # pixels; of WebP


@dataclass(frozen=True)
class Pictures:
    """Images (N, 3, S, S) uint8 RGB, and of each the number (N,) int64 of its name: a class or a data set."""

    images: Tensor
    numbers: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device) -> Pictures:
        return Pictures(self.images.to(device), self.numbers.to(device), self.names)


def read_images(pack: Path, part: str) -> tuple[Tensor, Tensor]:
    """Pack of encoded files -> images (N, 3, 64, 64) uint8 RGB, labels (N,) int64."""
    with np.load(pack) as arrays:
        images = _decoded(arrays[f"{part}_data"], arrays[f"{part}_offsets"], 64)
        return images, torch.from_numpy(arrays[f"{part}_labels"].astype(np.int64))


def read_medical(sources: Sequence[Path]) -> Pictures:
    """The training pictures of data sets, numbered by set; or those of one pack that `write_medical` wrote."""
    if len(sources) > 1 or sources[0].is_dir():
        return collect(sources, SIDE)
    with np.load(sources[0]) as arrays:
        images = _decoded(arrays["data"], arrays["offsets"], int(arrays["side"]))
        return Pictures(images, torch.from_numpy(arrays["numbers"]), tuple(arrays["names"].tolist()))


def collect(folders: Sequence[Path], side: int) -> Pictures:
    """The training pictures of data sets, numbered by set."""
    parts = [read_set(folder, "train", side) for folder in folders]
    numbers = [torch.full((len(part),), k) for k, part in enumerate(parts)]
    return Pictures(torch.cat(parts), torch.cat(numbers), tuple(folder.name for folder in folders))


def read_set(folder: Path, part: str, side: int) -> Tensor:
    """The pictures of one side of a data set's own split -> (N, 3, side, side) uint8."""
    from vpt.data.layouts import is_labelled, read_dataset, read_labelled
    from vpt.data.splits import read_splits

    found: Any = read_labelled(folder) if is_labelled(folder) else read_dataset(folder)
    names = getattr(read_splits(found), part)
    return _squeezed([found.case(name).images for name in names], len(found.channels), side)


def read_classes(folder: Path, part: str, side: int) -> Pictures:
    """The pictures of one side of a labelled set's own split, numbered by class."""
    from vpt.data.layouts import read_labelled
    from vpt.data.splits import read_splits

    found = read_labelled(folder)
    examples = [found.case(name) for name in getattr(read_splits(found), part)]
    images = _squeezed([example.images for example in examples], len(found.channels), side)
    return Pictures(images, torch.tensor([example.target[0] for example in examples]), found.classes)


def _squeezed(sources: Sequence[Any], channels: int, side: int) -> Tensor:
    """Picture files -> (N, 3, side, side) uint8, each pressed into a square."""
    from vpt.data.plan import ORIENTATIONS
    from vpt.readers import reader_of

    images = np.empty((len(sources), side, side, 3), np.uint8)
    for image, source in zip(images, sources, strict=True):
        voxels = reader_of(source).voxels(channels).oriented(ORIENTATIONS["axial"])
        seen = np.stack([next(voxels.slices(channel)).copy() for channel in range(channels)], -1)
        if seen.max() > 255:
            raise VptError(f"{voxels.name}: holds values up to {seen.max():g}, expected pictures of 8 bits")
        image[:] = cv2.resize(seen, (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1).round()
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _decoded(data: np.ndarray, offsets: np.ndarray, side: int) -> Tensor:
    images = np.empty((len(offsets) - 1, side, side, 3), np.uint8)
    files = [data[start:stop] for start, stop in itertools.pairwise(offsets)]
    with ThreadPoolExecutor() as pool:
        for image, decoded in zip(images, pool.map(_decode, files), strict=True):
            image[:] = decoded
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _decode(file: np.ndarray) -> Any:
    return cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)


def write_medical(folders: Sequence[Path], out: Path) -> Pictures:
    """The training pictures of data sets as one pack."""
    pictures = collect(folders, SIDE)
    encoded = [
        cv2.imencode(".webp", image[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1]
        for image in pictures.images.permute(0, 2, 3, 1).numpy()
    ]
    offsets = np.cumsum([0, *(len(file) for file in encoded)])
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        np.savez(
            file,
            data=np.concatenate(encoded), offsets=offsets, side=SIDE,
            numbers=pictures.numbers.numpy(), names=np.array(pictures.names),
        )  # fmt: skip
    return pictures


def write_half(weights: Path, out: Path, only: str) -> None:
    """The tensors whose names begin with `only`, in float16."""
    from vpt.backbones.weights import read_state

    kept = {name: tensor for name, tensor in read_state(weights).items() if name.startswith(only)}
    if not kept:
        raise VptError(f"{weights}: no tensor's name begins with {only!r}")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(out, {name: t.half() if t.is_floating_point() else t for name, t in kept.items()}, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    medical = commands.add_parser("medical", help="training pictures of data sets -> one pack")
    medical.add_argument("out", type=Path)
    medical.add_argument("folders", type=Path, nargs="+")
    half = commands.add_parser("half", help="weights -> the same in float16")
    half.add_argument("weights", type=Path)
    half.add_argument("out", type=Path)
    half.add_argument("--only", default="", help="beginning of the names that are kept")
    args = parser.parse_args()
    if args.command == "half":
        write_half(args.weights, args.out, args.only)
    else:
        pictures = write_medical(args.folders, args.out)
        for k, name in enumerate(pictures.names):
            print(f"{name}: {int((pictures.numbers == k).sum())} training pictures")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
