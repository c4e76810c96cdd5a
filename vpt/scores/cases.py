"""Scores of one case: a predicted and a reference label volume on one grid -> Dice and its companions per label.

What is done when a label is absent (the tables of other tools disagree; this is nnU-Net's way, with the gaps counted):

======================  ==============  ====  ==========  =========  ======
                        Dice, IoU       NSD   HD95, ASSD  precision  recall
======================  ==============  ====  ==========  =========  ======
absent in both          `empty` (NaN)   same  NaN         NaN        NaN
in the prediction only  0               0     NaN         0          NaN
in the reference only   0               0     NaN         NaN        0
======================  ==============  ====  ==========  =========  ======

NaN is left out of means, so the report counts every such case (`SegmentationScores`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from vpt.errors import VptError
from vpt.parallel import in_order
from vpt.scores.surfaces import SLAB, Spacing, SurfaceScores, score_places, surfaces_of

Empty = Literal["nan", "one", "zero"]
EMPTY_SCORE: dict[str, float] = {"nan": math.nan, "one": 1.0, "zero": 0.0}

LARGE = 2**12  # SciPy makes a table as long as the largest id: those of atlases reach 2^32 - 1


@dataclass(frozen=True)
class LabelScores:
    """One label of one case: overlaps in [0, 1], distances in mm, volumes in ml, counts in voxels; NaN is undefined.

    Of an image (2-D) distances have the unit of its spacing, counts are pixels, and volumes are undefined.
    """

    dice: float
    iou: float
    hd95: float
    assd: float
    nsd: float
    volume_pred_ml: float
    volume_ref_ml: float
    tp: float
    fp: float
    fn: float
    tn: float

    @classmethod
    def unknown(cls) -> LabelScores:
        """The scores of a label that nobody has looked for: all undefined, counts as well."""
        return cls(*[math.nan] * len(fields(cls)))

    @property
    def is_known(self) -> bool:
        return not math.isnan(self.tn)

    @property
    def n_pred(self) -> float:
        return self.tp + self.fp

    @property
    def n_ref(self) -> float:
        return self.tp + self.fn

    @property
    def precision(self) -> float:
        return self.tp / self.n_pred if self.n_pred else math.nan

    @property
    def recall(self) -> float:
        return self.tp / self.n_ref if self.n_ref else math.nan

    @property
    def volume_error_ml(self) -> float:
        """Predicted minus reference."""
        return self.volume_pred_ml - self.volume_ref_ml


CaseScores = dict[int, LabelScores]


def score_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Spacing,
    labels: Iterable[int],
    *,
    distances: bool = True,
    empty: Empty = "nan",
    tolerance: float = 1.0,
    tolerances: Mapping[int, float] | None = None,
    ignored: int | None = None,
    workers: int = 1,
) -> CaseScores:
    """Integer label volumes (X, Y, Z) or images (H, W) on one grid, spacing in mm per axis -> scores of each label.

    Distances in a volume of one slice are those between outlines, as in an image.

    Args:
        spacing: a length per axis, or of a sheared grid the steps along its axes, the columns of (3, 3).
        labels: the labels to score, each above 0. Other values count as background.
        distances: False leaves `hd95`, `assd` and `nsd` NaN and costs two passes over the volume (validation while
            training).
        empty: Dice, IoU and NSD of a label that is absent in both.
        tolerance: of NSD, mm; tolerances: those of labels that have one of their own.
        ignored: where the reference has this id nothing counts, whatever was predicted.
        workers: labels at a time; each takes 150 bytes a voxel of its surfaces.

    Raises:
        VptError: shapes differ, values are not integers, or an option is outside its range.
    """
    labels = [int(label) for label in labels]
    check_options(empty, tolerance, tolerances)
    _check_arrays(prediction, reference, spacing, labels)
    prediction, voxels = without_ignored(prediction, reference, ignored)
    absent, own, unit = EMPTY_SCORE[empty], tolerances or {}, voxel_ml(spacing)
    counts = count_labels(prediction, reference, labels)
    surfaces: list[dict[int, np.ndarray]] = []
    if distances:
        plane, steps = _lying(reference.shape), _steps_in_plane(reference.shape, spacing)
        both = tuple(volume.reshape(plane) for volume in (prediction, reference))
        surfaces = [*_several(lambda volume: surfaces_of(volume, labels), both, workers)]

    def score(label: int) -> LabelScores:
        found = SurfaceScores()
        if distances:
            mine, theirs = (each[label] for each in surfaces)
            found = score_places(mine, theirs, steps, own.get(label, tolerance), absent)
        return _label_scores(*counts[label], voxels, unit, found, absent)

    return dict(zip(labels, _several(score, labels, workers), strict=True))


def _lying(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a volume of one slice as an image's, any other as it is."""
    flat = tuple(size for size in shape if size > 1)
    return flat if len(shape) == 3 and len(flat) == 2 else shape


def _steps_in_plane(shape: tuple[int, ...], spacing: Spacing) -> np.ndarray:
    """What of the spacing, or of the steps, belongs to the axes that `_lying` leaves."""
    steps = np.asarray(spacing, float)
    return steps if len(_lying(shape)) == len(shape) else steps[..., [size > 1 for size in shape]]


def voxel_ml(spacing: Spacing) -> float:
    """Volume of a voxel in ml; of a pixel NaN."""
    steps = np.asarray(spacing, float)
    if steps.ndim == 2:
        return float(abs(np.linalg.det(steps))) / 1000
    return math.prod(steps.tolist()) / 1000 if len(steps) == 3 else math.nan


def _several(work: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterable[Any]:
    """A map over several threads; validation while training has none."""
    return map(work, items) if workers == 1 else in_order(work, items, workers)


def count_labels(
    prediction: np.ndarray, reference: np.ndarray, labels: Iterable[int]
) -> dict[int, tuple[int, int, int]]:
    """Voxels of each label, above 0: in both, predicted, true; in one pass, a slab at a time."""
    known = np.unique(np.array(list(labels), np.int64))
    order = np.argsort([-abs(step) for step in reference.strides], kind="stable")  # as it lies in memory
    mine, theirs = prediction.transpose(order), reference.transpose(order)
    step = max(1, SLAB // max(1, math.prod(theirs.shape[1:])))
    total = np.zeros((3, len(known) + 1), np.int64)
    for start in range(0, len(theirs), step):
        slabs = [volume[start : start + step] for volume in (mine, theirs)]
        somewhere = (slabs[0] != 0) | (slabs[1] != 0)
        if not somewhere.any():
            continue
        a, b = (_ranks(slab[somewhere], known) for slab in slabs)
        for row, ranks in zip(total, (a[a == b], a, b), strict=True):
            row += np.bincount(ranks, minlength=len(row))
    return {int(label): tuple(total[:, k].tolist()) for k, label in enumerate(known, start=1)}


def _ranks(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Ids (n,) -> 1 + their places in the sorted `known`, 0 of those that are not among them."""
    if ids.dtype.itemsize == 1 and ids.dtype.kind in "bu":
        small = known[known < 256]
        table = np.zeros(256, np.intp)
        table[small] = np.arange(1, len(small) + 1)
        return table[ids.view(np.uint8)]
    if not len(known):
        return np.zeros(len(ids), np.intp)
    ids = ids.astype(np.int64, copy=False)
    places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[places] == ids, places + 1, 0)


def without_ignored(prediction: np.ndarray, reference: np.ndarray, ignored: int | None) -> tuple[np.ndarray, int]:
    """The prediction without what it says where the reference has the id `ignored`, and how many voxels count."""
    if ignored is None or not (left_out := int(np.count_nonzero(out := reference == ignored))):
        return prediction, reference.size
    return np.where(out, prediction.dtype.type(0), prediction), reference.size - left_out


def _label_scores(
    tp: int, predicted: int, true: int, voxels: int, unit: float, surface: SurfaceScores, absent: float
) -> LabelScores:
    """Voxels in both masks, in each, and of the volume; ml of each; their distances; of an absent label -> scores."""
    fp, fn = predicted - tp, true - tp
    union = tp + fp + fn
    return LabelScores(
        dice=2 * tp / (union + tp) if union else absent,
        iou=tp / union if union else absent,
        hd95=surface.hd95,
        assd=surface.assd,
        nsd=surface.nsd,
        volume_pred_ml=(tp + fp) * unit,
        volume_ref_ml=(tp + fn) * unit,
        tp=tp,
        fp=fp,
        fn=fn,
        tn=voxels - union,
    )


def check_options(empty: str, tolerance: float, tolerances: Mapping[Any, float] | None = None) -> None:
    if empty not in get_args(Empty):
        raise VptError(f"empty: {empty!r} is not one of {', '.join(get_args(Empty))}")
    for distance in (tolerance, *(tolerances or {}).values()):
        if not (isinstance(distance, int | float | np.number) and math.isfinite(distance) and distance >= 0):
            raise VptError(
                f"tolerance: {distance!r} is not a distance in mm (of images: pixels); "
                "give a number of 0 or more, such as 1.0"
            )


def _check_arrays(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing, labels: Sequence[int]) -> None:
    if prediction.shape != reference.shape:
        raise VptError(
            f"prediction has shape {prediction.shape} and reference {reference.shape}; bring both to one grid first"
        )
    steps = np.asarray(spacing, float)
    lengths = np.linalg.norm(steps, axis=0) if steps.ndim == 2 else steps
    if len(lengths) != reference.ndim or not (lengths > 0).all():
        found = ", ".join(f"{length:g}" for length in lengths)
        raise VptError(f"spacing ({found}) does not fit {reference.ndim} axes; give one length above 0 mm per axis")
    for name, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype.kind not in "iub":
            raise VptError(f"{name} holds {array.dtype}, expected integer labels; argmax or round it first")
    if any(label < 1 for label in labels):
        raise VptError(f"labels {sorted(labels)} must be above 0, which is the background; leave the others out")


def boxes_of(prediction: np.ndarray, reference: np.ndarray, labels: Sequence[int]) -> list[Any]:
    """An index for each label: the box around it in both volumes, found in one pass; selects nothing if it is absent.

    Cropping to the box changes no score: all outside it is background to both, as is what lies beyond a crop's border.
    """
    from scipy.ndimage import find_objects

    largest = max(labels, default=1)
    known, places = np.unique(np.array(labels, np.int64), return_inverse=True)
    by_place = largest > LARGE

    def find(volume: np.ndarray) -> list[Any]:
        volume = volume.view(np.uint8) if volume.dtype == bool else volume
        if by_place:
            return find_objects(_positions(volume, known), max_label=len(known))
        return find_objects(volume, max_label=largest)

    in_prediction, in_reference = find(prediction), find(reference)
    rows = places.ravel().tolist() if by_place else [label - 1 for label in labels]
    return [_union(in_prediction[row], in_reference[row]) for row in rows]


def _positions(volume: np.ndarray, known: np.ndarray) -> np.ndarray:
    """1 + the place of each id in `known` (sorted int64), 0 where it is not among them; made a slab at a time."""
    out = np.empty(volume.shape, np.int32)
    for into, slab in zip(out, volume, strict=True):
        ids = slab.astype(np.int64)
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        into[...] = np.where(known[place] == ids, place + 1, 0)
    return out


def _union(first: tuple[slice, ...] | None, second: tuple[slice, ...] | None) -> Any:
    if first is None or second is None:
        return first or second or (slice(0, 0), ...)
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
