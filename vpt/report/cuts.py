"""Planes through a case: where its largest error lies, and what is seen there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vpt.scores.cases import count_labels

LARGE = 40_000_000  # voxels; in larger boxes every second one of an axis is looked at
MARGIN, LEAST = 0.15, 0.45  # around what is labelled, and of the plane's side that is shown at least
Letters = tuple[str, str, str, str]
Place = tuple[int, int, int]
Take = Callable[[int, int], np.ndarray]
"""Axis and index of a plane -> its image (rows, columns) or (rows, columns, 3) in [0, 1]."""

NAMES = ("axial", "coronal", "sagittal")
LETTERS: tuple[Letters, ...] = (("A", "L", "P", "R"), ("S", "L", "I", "R"), ("S", "P", "I", "A"))


@dataclass(frozen=True, eq=False)
class Cut:
    """A plane of a case as it is shown.

    image: (rows, columns) or (rows, columns, 3) in [0, 1]; truth, found: label ids (rows, columns) where there are any;
    pixel: height and width of a pixel in `unit`; letters: at the top, the right, the bottom, the left; place: which
    slice of how many, in words.
    """

    name: str
    place: str
    image: np.ndarray
    truth: np.ndarray | None
    found: np.ndarray | None
    pixel: tuple[float, float]
    unit: str
    letters: Letters | None

    @property
    def errors(self) -> int:
        """Pixels where truth and prediction differ."""
        return 0 if self.truth is None or self.found is None else int(np.count_nonzero(self.truth != self.found))


@dataclass(frozen=True)
class Error:
    """Connected voxels where truth and prediction differ: one in their middle, how many there are, and in which label
    they were looked for; None: in all.
    """

    place: Place
    voxels: int
    label: int | None = None


def worst_error(truth: np.ndarray, found: np.ndarray, labels: Iterable[int]) -> Error | None:
    """Of the label whose two masks overlap least (Dice), the largest part in which they differ; None if all are equal.

    So a lesion that was missed is seen, whose case is among the worst for it, and not the border of a large organ.

    truth, found: label ids (slices, rows, columns); labels: those that are looked at, above 0.
    """
    apart = {
        label: (2 * both / (true + mine), true + mine - 2 * both)
        for label, (both, mine, true) in count_labels(found, truth, labels).items()
        if true + mine > 2 * both
    }
    if not apart:
        return None
    label = min(apart, key=lambda each: (apart[each][0], -apart[each][1]))
    error = largest_error(truth == label, found == label)
    return replace(error, label=label) if error else None


def largest_error(truth: np.ndarray, found: np.ndarray) -> Error | None:
    """The largest part, connected over faces, in which two label maps (slices, rows, columns) differ; None if equal."""
    from scipy import ndimage

    wrong = truth != found
    if not wrong.any():
        return None
    box = ndimage.find_objects(wrong.view(np.uint8))[0]
    step = tuple(2 if wrong[box].size > LARGE and side.stop - side.start > 64 else 1 for side in box)
    coarse = wrong[box][tuple(slice(None, None, k) for k in step)]
    parts, _ = ndimage.label(coarse)
    sizes = np.bincount(parts.ravel())
    if len(sizes) < 2:  # what every second voxel missed is small
        return Error(middle_of(wrong), int(np.count_nonzero(wrong)))
    largest = int(np.argmax(sizes[1:])) + 1
    inner = middle_of(parts == largest)
    z, y, x = (int(side.start + k * each) for side, k, each in zip(box, step, inner, strict=True))
    return Error((z, y, x), int(sizes[largest]) * int(np.prod(step)))


def middle_of(mask: np.ndarray) -> Place:
    """A voxel of the mask (slices, rows, columns): in its fullest slice the one nearest to the centre of that part."""
    z = int(np.argmax(np.count_nonzero(mask, axis=(1, 2))))
    places = np.argwhere(mask[z])
    y, x = places[np.argmin(((places - places.mean(0)) ** 2).sum(1))].tolist()
    return z, y, x


def cuts_at(
    place: Place,
    take: Take,
    truth: np.ndarray | None,
    found: np.ndarray | None,
    shape: Sequence[int],
    spacing: Sequence[float],
    unit: str,
) -> list[Cut]:
    """The three planes of a scan in the axes S, P, L through a voxel, as radiologists view them; of an image itself.

    truth, found: label ids (slices, rows, columns); shape, spacing: of the scan so turned.
    """
    if shape[0] == 1:
        letters = None if unit == "px" else LETTERS[0]
        true, predicted = (None if ids is None else ids[0] for ids in (truth, found))
        return [Cut("image", "", take(0, 0), true, predicted, (spacing[1], spacing[2]), unit, letters)]
    cuts = []
    for axis, name in enumerate(NAMES):
        rows, columns = (side for side in range(3) if side != axis)
        if min(shape[rows], shape[columns]) < 2:
            continue
        flip = slice(None, None, -1 if axis else 1)  # the head is up
        true, predicted = (None if ids is None else np.take(ids, place[axis], axis)[flip] for ids in (truth, found))
        where = f"slice {place[axis] + 1} of {shape[axis]}"
        pixel = (spacing[rows], spacing[columns])
        cuts.append(Cut(name, where, take(axis, place[axis])[flip], true, predicted, pixel, unit, LETTERS[axis]))
    return cuts


def cropped(cut: Cut) -> Cut:
    """The part around what is labelled, not less than about half of each side; the whole plane without labels."""
    return cropped_alike([cut])[0]


def cropped_alike(cuts: Sequence[Cut]) -> list[Cut]:
    """The same part of the same plane with other labels over it: what is labelled in one of them."""
    size = cuts[0].image.shape[:2]
    labelled = np.zeros(size, bool)
    for cut in cuts:
        for ids in (cut.truth, cut.found):
            if ids is not None:
                labelled |= ids > 0
    if not labelled.any():
        return [*cuts]
    box = tuple(_span(np.flatnonzero(labelled.any(1 - axis)), size[axis]) for axis in (0, 1))
    return [_part(cut, box) for cut in cuts]


def _part(cut: Cut, box: tuple[slice, ...]) -> Cut:
    truth, found = (None if ids is None else ids[box] for ids in (cut.truth, cut.found))
    whole = cut.image[box].shape == cut.image.shape
    place = cut.place if whole else ", ".join(filter(None, [cut.place, "cropped"]))
    return replace(cut, image=cut.image[box], truth=truth, found=found, place=place)


def _span(filled: np.ndarray, size: int) -> slice:
    """What to show of an axis whose places `filled` are labelled."""
    first, last = int(filled[0]), int(filled[-1])
    length = min(size, max(round((last - first + 1) * (1 + 2 * MARGIN)), round(LEAST * size)))
    start = min(max(0, (first + last + 1 - length) // 2), size - length)
    return slice(start, start + length)
