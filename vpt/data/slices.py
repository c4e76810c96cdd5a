"""Volumes as slices: prepared once, cached on disk, drawn for training, and brought back to the scan's own pixels."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from vpt.data.cases import Case, Dataset
from vpt.data.hints import draw_hints
from vpt.data.plan import Padding, Plan, scale
from vpt.data.stored import Store, Viewed, view_seed
from vpt.data.transforms import Augment
from vpt.data.volumes import as_voxels, load_label, orient, read_voxels
from vpt.data.voxels import Voxels
from vpt.files import atomic
from vpt.progress import Tick

if TYPE_CHECKING:
    from monai.data import MetaTensor


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) -> size, pixel centres half a pixel in; along an axis that shrinks areas are averaged."""
    smaller = min(image.shape[0], size[0]), min(image.shape[1], size[1])
    if image.shape != smaller:  # by itself, since INTER_AREA repeats pixels along an axis that grows
        image = cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA)
    return image if smaller == size else cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def prepared_size(shape: Sequence[int], spacing: Sequence[float], plan: Plan) -> tuple[int, int]:
    """Rows and columns of a slice at the plan's pixel, or with its longer side at the plan's size; at least 1."""
    sides = [n * mm for n, mm in zip(shape, spacing, strict=True)]
    pixel_mm = max(sides) / plan.image_size if plan.pixel_mm is None else plan.pixel_mm
    rows, columns = (max(1, round(side / pixel_mm)) for side in sides)
    return rows, columns


def prepare_image(
    volume: MetaTensor | Voxels, plan: Plan, dtype: torch.dtype = torch.float32, only: Collection[int] | None = None
) -> np.ndarray:
    """Oriented volume (C, slices, rows, columns) -> (slices, C, h, w) float in [0, 1] at the plan's pixel.

    Slice by slice, so that what is worked on stays in the processor's cache. only: these slices; the others are zero.
    """
    voxels = as_voxels(volume)
    channels, depth, *pixels = voxels.shape
    size = prepared_size(pixels, voxels.grid.spacing[1:], plan)
    out = torch.zeros((depth, channels, *size), dtype=dtype)
    for channel, intensity in enumerate(plan.intensity):
        low, high = intensity.limits(partial(voxels.slices, channel))
        chosen = range(depth) if only is None else sorted(only)
        for k, image in zip(chosen, voxels.slices(channel, chosen), strict=True):
            # torch's half is ten times as fast as NumPy's
            out[k, channel] = torch.from_numpy(resize_image(scale(image, low, high), size))
    return out.numpy()


def prepare_label(label: MetaTensor, ids: Sequence[int], plan: Plan) -> np.ndarray:
    """Oriented label map (1, slices, rows, columns) of ids -> (slices, h, w) uint8 of positions in `ids`."""
    size = prepared_size(label.shape[2:], label.pixdim[1:].tolist(), plan)
    slices = (positions(np.ascontiguousarray(found), ids) for found in np.asarray(label)[0])
    return np.stack([cv2.resize(found, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for found in slices])


def as_channels(slices: np.ndarray, k: int, neighbours: bool) -> np.ndarray:
    """Slice `k` of (slices, C, h, w) -> (3, h, w): it and its neighbours, or its channels and, of two, their mean."""
    if neighbours:
        return np.concatenate([slices[max(k - 1, 0)], slices[k], slices[min(k + 1, len(slices) - 1)]])
    image = slices[k]
    if len(image) == 1:
        return np.repeat(image, 3, axis=0)
    return image if len(image) == 3 else np.concatenate([image, image.mean(0, keepdims=True)])


def crop_or_pad(
    array: np.ndarray, size: int | tuple[int, int], top: int, left: int, fill: Sequence[float] | float = 0
) -> np.ndarray:
    """Window of (..., size, size) or (..., *size) whose corner is at (top, left), which may be negative.

    Outside is `fill`, one value or one per channel of (C, rows, columns).
    """
    height, width = (size, size) if isinstance(size, int) else size
    rows, columns = array.shape[-2:]
    out = np.empty((*array.shape[:-2], height, width), array.dtype)
    out[...] = fill if isinstance(fill, int | float) else np.reshape(fill, (-1, 1, 1))
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + height, rows), min(left + width, columns)
    out[..., y0 - top : y1 - top, x0 - left : x1 - left] = array[..., y0:y1, x0:x1]
    return out


def offset(length: int, size: int, padding: Padding) -> int:
    """How many pixels of padding lie before a side of `length` in a square of side `size`; 0 where it does not fit."""
    return max(size - length, 0) // 2 if padding == "centre" else 0


@dataclass(frozen=True)
class PreparedCase:
    """A case in the cache: memory-mapped images (slices, C, h, w) float16 and labels (slices, h, w) uint8.

    native: the labels on the scan's own pixels, (slices, rows, columns) uint8, for validation; None if not asked for.
    """

    name: str
    images: Path
    labels: Path
    native: Path | None
    foreground: tuple[int, ...]  # slices with any label
    depth: int
    size: tuple[int, int]  # rows and columns of a slice

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        return np.load(self.images, mmap_mode="r"), np.load(self.labels, mmap_mode="r")


def prepare_cases(
    dataset: Dataset,
    cases: Sequence[Case],
    plan: Plan,
    cache: Path,
    progress: Tick,
    *,
    native: bool = False,
) -> list[PreparedCase]:
    """Load, orient, scale and resize every case once; what is in `cache` already is taken from there.

    native: keep the labels on the scan's own pixels as well. Raises VptError for what the loaders refuse.
    """
    cache.mkdir(parents=True, exist_ok=True)
    prepared = []
    for done, case in enumerate(cases):
        prepared.append(_prepare_case(dataset, case, plan, cache, native))
        progress(done + 1, len(cases), case.name)
    return prepared


def _prepare_case(dataset: Dataset, case: Case, plan: Plan, cache: Path, native: bool) -> PreparedCase:
    images, labels, own = (cache / f"{case.name}.{kind}.npy" for kind in ("image", "label", "native"))
    if not all(path.exists() for path in (images, labels, own)[: 2 + native]):
        ids = tuple(dataset.labels)
        image = read_voxels(case, len(dataset.channels))
        label = orient(load_label(case.label, image, ids), plan.orientation)
        _save(labels, prepare_label(label, ids, plan))
        if native:
            _save(own, positions(np.asarray(label)[0], ids))
        _save(images, prepare_image(image.oriented(plan.orientation), plan, torch.float16))
    mask = np.load(labels, mmap_mode="r")
    foreground = tuple(int(k) for k in np.flatnonzero(mask.any(axis=(1, 2))))
    return PreparedCase(case.name, images, labels, own if native else None, foreground, len(mask), mask.shape[1:])


def _save(path: Path, array: np.ndarray) -> None:
    with atomic(path) as part, open(part, "wb") as file:
        np.save(file, array)


def positions(label: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Label ids -> their positions in the sorted `ids`: the classes that the head predicts; uint8 up to 256 of them."""
    table = np.zeros(max(ids) + 1, np.min_scalar_type(len(ids) - 1))
    table[list(ids)] = range(len(ids))
    return table[label]


@dataclass(frozen=True)
class Draw:
    """One training sample: case and slice by number, and the seed of its crop and augmentation."""

    case: int
    slice: int
    seed: int


def draw_epoch(
    cases: Sequence[PreparedCase], *, steps: int, batch_size: int, foreground: float, seed: int, epoch: int
) -> list[list[Draw]]:
    """Batches of an epoch, the same for the same seed and epoch, whatever the number of workers.

    A share `foreground` of the samples are slices with any label; cases are drawn evenly, so that long scans do not
    outweigh short ones.
    """
    rng = np.random.default_rng((seed, epoch))
    filled = [k for k, case in enumerate(cases) if case.foreground]

    def one() -> Draw:
        if filled and rng.random() < foreground:
            case = filled[rng.integers(len(filled))]
            chosen = cases[case].foreground
            return Draw(case, chosen[rng.integers(len(chosen))], int(rng.integers(2**31)))
        case = int(rng.integers(len(cases)))
        return Draw(case, int(rng.integers(cases[case].depth)), int(rng.integers(2**31)))

    return [[one() for _ in range(batch_size)] for _ in range(steps)]


class SliceDataset(Viewed):
    """Draw -> (image (3, S, S) float32 in [0, 1], label (S, S) int64), augmented; hints (3, 3) as well if asked for.

    views: so many fixed crops and augmentations of every slice are all there is (see `vpt.data.stored.Viewed`), and a
    draw's seed says which of them, and what the hints are; 0: it makes a new one.
    """

    def __init__(
        self, cases: Sequence[PreparedCase], plan: Plan, augment: Augment, *, hints: bool = False, views: int = 0
    ):
        self.cases = cases
        self.plan = plan
        self.augment = augment
        self.hints = hints
        self.views = views
        self.starts = np.cumsum([0, *(case.depth for case in cases)])  # of the cases, among all slices

    @property
    def count(self) -> int:
        return int(self.starts[-1]) * self.views

    def number(self, draw: Draw) -> int:
        return int(self.starts[draw.case] + draw.slice) * self.views + draw.seed % self.views

    def view(self, number: int) -> Draw:
        place, view = divmod(number, self.views)
        case = int(np.searchsorted(self.starts, place, side="right")) - 1
        return Draw(case, place - int(self.starts[case]), view)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, ...]:
        images, labels = self.cases[draw.case].read()
        seed = view_seed(draw.case, draw.slice, draw.seed % self.views) if self.views else draw.seed
        rng = np.random.default_rng(seed)
        label = np.asarray(labels[draw.slice])
        image = _float32(as_channels(images, draw.slice, self.plan.neighbours)).numpy()
        size = self.plan.image_size
        top, left = _corner(label, size, self.plan.padding, rng)
        image, label = crop_or_pad(image, size, top, left, self.plan.fill), crop_or_pad(label, size, top, left)
        image, label = self.augment(image, label, seed)
        sample = torch.from_numpy(image), torch.from_numpy(label.astype(np.int64))
        if not self.hints:
            return sample
        rng = np.random.default_rng(draw.seed) if self.views else rng  # hints are drawn anew for the same view
        return (*sample, torch.from_numpy(draw_hints(label, rng)))


class StoredSlices(TorchDataset):
    """Draw -> (image, label, what frozen blocks made of the image, hints if there are any); see `SliceDataset`."""

    def __init__(self, slices: SliceDataset, store: Store):
        self.slices = slices
        self.store = store

    def __getitem__(self, draw: Draw) -> tuple[Tensor, ...]:
        image, label, *hints = self.slices[draw]
        return image, label, self.store.read(self.slices.number(draw)), *hints


def _corner(label: np.ndarray, size: int, padding: Padding, rng: np.random.Generator) -> tuple[int, int]:
    """Where to crop: padded where the slice fits; else around a labelled pixel, at random where there is none."""
    focus = np.flatnonzero(label) if max(label.shape) > size else ()
    point = np.unravel_index(focus[rng.integers(len(focus))], label.shape) if len(focus) else None
    corner = []
    for axis, length in enumerate(label.shape):
        if length <= size:
            corner.append(-offset(length, size, padding))
        elif point is None:
            corner.append(int(rng.integers(length - size + 1)))
        else:
            low, high = max(0, point[axis] - size + 1), min(point[axis], length - size)
            corner.append(int(rng.integers(low, high + 1)))
    return corner[0], corner[1]


@dataclass(frozen=True)
class Frame:
    """Where slices (rows, columns) lie in the square, or in the larger rectangle, that the encoder is given."""

    size: tuple[int, int]
    top: int
    left: int
    rows: int
    columns: int

    def pad(self, images: np.ndarray, fill: Sequence[float]) -> np.ndarray:
        """(..., 3, rows, columns) -> (..., 3, *size), the colour `fill` around them."""
        return crop_or_pad(images, self.size, -self.top, -self.left, fill)

    def move(self, hints: np.ndarray) -> np.ndarray:
        """Hints (..., 3) in pixels of the slice -> of the padded one."""
        return hints + np.array([self.left, self.top, 0], np.float32)

    def crop(self, logits: Tensor) -> Tensor:
        """(..., *size) -> (..., rows, columns)."""
        return logits[..., self.top : self.top + self.rows, self.left : self.left + self.columns]


def frame_of(shape: tuple[int, int], plan: Plan) -> Frame:
    """The frame of prepared slices (rows, columns): at least the plan's square, as `SliceDataset` pads to it."""
    side, (rows, columns) = plan.image_size, shape
    top, left = (offset(length, side, plan.padding) for length in shape)
    return Frame((max(rows, side), max(columns, side)), top, left, rows, columns)


def batches_of_slices(slices: np.ndarray, plan: Plan, batch: int) -> Iterator[Tensor]:
    """(slices, C, h, w) -> batches (b, 3, h, w) float32 in order."""
    for start in range(0, len(slices), batch):
        rows = range(start, min(start + batch, len(slices)))
        yield _float32(np.stack([as_channels(slices, k, plan.neighbours) for k in rows]))


def _float32(array: np.ndarray) -> Tensor:
    """float16 or float32 -> float32, several times as fast as NumPy."""
    return torch.from_numpy(np.ascontiguousarray(array)).float()
