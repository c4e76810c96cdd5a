"""Cases as slices: prepared once, and cached on disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from vpt.data.annotated import classes_annotated, require_annotated
from vpt.data.cases import Case, SegmentationSet
from vpt.data.cropping import Part
from vpt.data.doubts.mask_looks import MaskLook, look_at
from vpt.data.framing import prepared_size, require_bounded
from vpt.data.label_maps import positions, read_label
from vpt.data.label_values import IGNORED
from vpt.data.plan import Plan
from vpt.data.slices.cached_arrays import damaged, mapped, require_unchanged, save_array
from vpt.data.slices.prepared import PreparedSlices
from vpt.data.slices.sampling import held_by_slices
from vpt.progress import Tick
from vpt.readers import LabelMap, Voxels, reader_of
from vpt.readers.voxels import counted


def prepare_image(
    voxels: Voxels, plan: Plan, dtype: torch.dtype = torch.float32, only: Collection[int] | None = None
) -> np.ndarray:
    """Oriented voxels (C, slices, rows, columns) -> (slices, C, h, w) float in [0, 1] at the plan's pixel.

    only: these slices; the others are zero.
    """
    prepared = PreparedSlices.of(voxels, plan)
    out = torch.zeros(prepared.shape, dtype=dtype)
    chosen = range(len(prepared)) if only is None else sorted(only)
    prepared.fill(out, chosen, chosen)
    return out.numpy()


def prepare_label(label: LabelMap, ids: Sequence[int], plan: Plan) -> np.ndarray:
    """Oriented label map (slices, rows, columns) of ids -> (slices, h, w) of `positions` in `ids`."""
    size = prepared_size(label.array.shape[1:], label.grid.spacing[1:], plan)
    require_bounded(label.name, label.array.shape, size, label.grid.spacing[1:])
    slices = (positions(np.ascontiguousarray(found), ids, label.ignored) for found in label.array)
    return np.stack([cv2.resize(found, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for found in slices])


@dataclass(frozen=True)
class PreparedCase:
    """A case in the cache: memory-mapped images (slices, C, h, w) float16 and labels (slices, h, w) of `positions`.

    native: the labels on the scan's own pixels, (slices, rows, columns), for validation; None if not asked for.
    """

    name: str
    images: Path
    labels: Path
    native: Path | None
    foreground: tuple[int, ...]  # slices with any label
    depth: int
    size: tuple[int, int]  # rows and columns of a slice
    holding: tuple[tuple[int, ...], ...] = ()  # the slices with each label, where they are drawn by label
    part: Part | None = None  # of `native`, which was prepared; None: all
    annotated: tuple[int, ...] | None = None  # the classes that somebody has looked for; None: all
    look: MaskLook | None = None  # of its mask, for doubts about it

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        return mapped(self.images, "f", 4), mapped(self.labels, "iu", 3)

    def truth(self) -> np.ndarray:
        """The array of `native`."""
        assert self.native is not None  # validation cases are prepared with it
        return mapped(self.native, "iu", 3)


def prepare_cases(
    dataset: SegmentationSet,
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


def _prepare_case(dataset: SegmentationSet, case: Case, plan: Plan, cache: Path, native: bool) -> PreparedCase:
    box, images, labels, own = (cache / f"{case.name}.{kind}.npy" for kind in ("part", "image", "label", "native"))
    crops = plan.crop != "none"
    if not all(path.exists() for path in (images, labels, *([own] if native else []), *([box] if crops else []))):
        ids = tuple(dataset.labels)
        image = reader_of(case.images).voxels(len(dataset.channels))
        found = read_label(case.label, dataset.labels, image.grid, image.name)
        require_annotated(found, case, dataset.labels)
        label = found.oriented(plan.orientation)
        image = image.oriented(plan.orientation)
        part = Part.by(plan.crop, image, plan.channels)
        if crops:
            save_array(box, part.array())
        save_array(labels, prepare_label(part.of_labels(label), ids, plan))
        if native:
            save_array(own, positions(np.ascontiguousarray(label.array), ids, label.ignored))
        save_array(images, prepare_image(part.of(image), plan, torch.float16))
    else:
        require_unchanged(images, "f", 4)
        for path in (labels, *([own] if native else []), *([box] if crops else [])):
            require_unchanged(path, "iu")
    mask = _require_like(images, labels, len(dataset.labels))
    foreground = tuple(int(k) for k in np.flatnonzero((mask > 0).any(axis=(1, 2))))
    holding = _holding(mask, len(dataset.labels) - 1) if plan.sampling == "by_label" else ()
    own_labels, inside = own if native else None, Part.from_array(mapped(box, "iu", 2)) if crops else None
    annotated = classes_annotated(case, dataset.labels)
    return PreparedCase(
        case.name,
        images,
        labels,
        own_labels,
        foreground,
        len(mask),
        mask.shape[1:],
        holding,
        inside,
        annotated,
        look_at(case.name, np.moveaxis(np.asarray(mask), 0, -1), counted(mask), tuple(dataset.labels)),
    )


def _require_like(images: Path, labels: Path, classes: int) -> np.ndarray:
    """The labels, if they are such and fit the images."""
    pictures, mask = mapped(images, "f", 4), mapped(labels, "iu", 3)
    if pictures.shape[::2] != mask.shape[:2] or pictures.shape[3] != mask.shape[2]:
        raise damaged(images, f"{pictures.shape}, beside labels of {mask.shape}")
    if mask.size and ((mask >= classes) | (mask < IGNORED)).any():
        raise damaged(labels, f"values beyond the {classes} classes")
    return mask


def _holding(classes: np.ndarray, labels: int) -> tuple[tuple[int, ...], ...]:
    held = held_by_slices(classes, labels)
    return tuple(tuple(np.flatnonzero(one).tolist()) for one in held.T)
