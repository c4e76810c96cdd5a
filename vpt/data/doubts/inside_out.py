"""Masks whose background is not 0: told by what lies along their edges, in `vpt check` and before a training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpt.data.cases import SegmentationSet
from vpt.readers import Kind
from vpt.readers.voxels import counted as pixels_of
from vpt.words import counted, listed

NEARLY_ALL_EDGE = 0.9  # of the masks' edges: a label that lies there is likely the background
EDGE = 0.97  # the same of a single mask
NEARLY_ALL = 0.99  # of an image or volume: a mask of more is likely inverted


@dataclass(frozen=True)
class Outline:
    """Of one case's mask: id -> voxels at the outer edge of its slices; how many voxels are 0, and how many all are."""

    case: str
    edge: Mapping[int, int]
    zeros: int
    size: int

    @property
    def is_inside_out(self) -> bool:
        """Whether one label lies along the edges, and what is 0 lies within it."""
        every, outside = sum(self.edge.values()), self.edge.get(0, 0)
        inside = self.zeros - outside
        return outside <= (1 - EDGE) * every and max(self.edge.values()) >= EDGE * every and inside > 0.01 * self.size

    @property
    def is_nearly_all(self) -> bool:
        return self.size - self.zeros > NEARLY_ALL * self.size


def outline_of(case: str, labels: np.ndarray, ids: Sequence[int] | None = None) -> Outline:
    """A label map (X, Y, Z) of ids, or of places in `ids`, whose slices lie along its last axis -> its outline."""
    edge = np.concatenate([labels[k].ravel() for k in (0, -1)] + [labels[:, k].ravel() for k in (0, -1)])
    at_edge = {
        id if ids is None else ids[id]: count for id, count in pixels_of(edge).items() if id >= 0
    }  # below 0 is what is ignored
    return Outline(case, at_edge, labels.size - int(np.count_nonzero(labels)), labels.size)


def masks_of(dataset: SegmentationSet) -> str:
    """Where its masks are, for whom all of them are meant."""
    return str(dataset.root / "masks") if dataset.kind == "images" else str(dataset.root)


def inverted(masks: Sequence[Outline], labels: Mapping[int, str], kind: Kind) -> list[str]:
    """What is doubtful in the background of the masks of cases, or of images, a sentence each; labels: id -> name."""
    labelled = [mask for mask in masks if mask.zeros < mask.size]
    found = [_background(labelled, labels, "pixel" if kind == "images" else "voxel")]
    if kind == "images" or not all(mask.is_nearly_all for mask in masks):  # of tissue all may be labelled
        found.append(_nearly_all(masks, "image" if kind == "images" else "volume"))
    return [text for text in found if text]


def _background(masks: Sequence[Outline], labels: Mapping[int, str], element: str) -> str:
    """No 0 anywhere, another label along nearly all edges, or a few inverted masks; "" where nothing is odd."""
    edges: Counter[int] = Counter()
    for mask in masks:
        edges.update(mask.edge)
    if not edges:
        return ""
    (id, most), every = max(edges.items(), key=lambda item: item[1]), sum(edges.values())
    without = not any(mask.zeros for mask in masks)
    if without or (id and most > NEARLY_ALL_EDGE * every):
        where = f"label {id} ({labels.get(id, id)}) lies along {most / every:.0%} of the edges"
        text = (
            f"no {element} is 0, which stands for the background, and {where}; is that the background?"
            if without
            else f"{where}, where the background is expected, and 0 inside; are the labels inverted?"
        )
        return f"{text} Then write the background as 0"
    if odd := [mask.case for mask in masks if mask.is_inside_out]:
        some = f"{len(odd)} of {counted(len(masks), 'mask')} ({listed(odd, 3)})"
        said = f"{some} have a label along their edges and 0 inside, the others 0 along theirs"
        return f"{said}; are these inverted? Then write their background as 0"
    return ""


def _nearly_all(masks: Sequence[Outline], what: str) -> str:
    if not (odd := [mask.case for mask in masks if mask.is_nearly_all]):
        return ""
    some = f"{len(odd)} of {counted(len(masks), 'mask')} {'is' if len(odd) == 1 else 'are'}"
    return f"{some} on more than {NEARLY_ALL:.0%} of the {what} ({listed(odd, 3)}); are they inverted?"
