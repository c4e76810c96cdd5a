"""What a mask looks like, and what is doubtful in the masks of many cases; for `vpt check`, training and scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpt.data.doubts.contours import Hollow, hollow_of, outlines
from vpt.data.doubts.inside_out import Outline, inverted, outline_of
from vpt.data.doubts.labels import without_name
from vpt.data.doubts.likeness import digest_of
from vpt.data.doubts.mask_values import shades_of, some_slices
from vpt.data.doubts.scattered import Scatter, dithered, scatter_of
from vpt.data.doubts.seams import Seams, interpolated, seams_of, thin_throughout
from vpt.readers import Kind, LabelMap, reader_of
from vpt.words import counted, listed

SAME, SAME_SHARE = 8, 0.1  # masks of a set that are one and the same; their share of all
BETWEEN = "they lie at the edges of other labels, as interpolation or a lossy format (JPEG, WebP) leaves them"


@dataclass(frozen=True)
class MaskLook:
    """Of one case's mask: what lies at its outside, between its labels, at their edges, and what it encloses.

    digest: a name for the content of some of its slices, "" where it is empty.
    """

    outline: Outline
    seams: Seams
    scatter: Scatter
    hollow: Hollow
    digest: str


def look_at(case: str, labels: np.ndarray, held: Collection[int], ids: Sequence[int] | None = None) -> MaskLook:
    """A label map (X, Y, Z), what is ignored below 0, and the values it holds; ids: see `outline_of`."""
    digest = digest_of(labels[None, ..., some_slices(labels)]) if {*held} - {0} else ""
    return MaskLook(
        outline_of(case, labels, ids),
        seams_of(case, labels, held),
        scatter_of(case, labels),
        hollow_of(case, labels),
        digest,
    )


def look_at_map(name: str, found: LabelMap, held: Collection[int]) -> MaskLook:
    """`look_at` of a mask as it was read, in which what is ignored is background."""
    return look_at(name, found.counted, held)


def lie_between(found: LabelMap, ids: Collection[int]) -> bool:
    """Whether these of its values lie at the edges of others: shades in a picture, seams in any mask."""
    if found.array.shape[2] == 1 and {*ids} <= {*shades_of(found)}:
        return True
    areas, edges = (seams := seams_of(found.name, found.counted, found.ids)).areas, seams.edges.values()
    between = frozenset[int]().union(*(edge.between for edge in edges if edge.is_interpolated(areas)))
    return bool(ids) and {*ids} <= between


def mask_doubts(
    looks: Sequence[MaskLook],
    labels: Mapping[int, str],
    kind: Kind,
    *,
    of_places: bool = False,
    shades_told: bool = False,
) -> list[str]:
    """Sentences about the masks of cases.

    labels: id -> name; of_places: the masks held places of these in their order; shades_told: that labels lie between
    others was said already.
    """
    found = inverted([look.outline for look in looks], labels, kind)
    if not shades_told:
        seams, ids = [look.seams for look in looks], tuple(labels) if of_places else None
        found += interpolated(seams, ids) or thin_throughout(seams, without_name(labels), ids)
    if kind == "images":  # labels of volumes are often a threshold of noisy values, which leaves such pixels too
        found += dithered([look.scatter for look in looks])
    found += outlines([look.hollow for look in looks])
    return [*found, *_the_same(looks)]


def lossy(masks: Mapping[str, Any]) -> list[str]:
    """That masks are of a format that keeps no exact values; masks: case -> what its labels are read from."""
    names = [name for name, mask in masks.items() if reader_of(mask).is_lossy]
    if not names:
        return []
    are = "is" if len(names) == 1 else "are"
    return [
        f"{len(names)} of {counted(len(masks), 'mask')} {are} JPEG ({listed(names, 3)}); "
        "their values are not exact, so above 127 counts as 255, the rest as 0: save masks as PNG"
    ]


def _the_same(looks: Sequence[MaskLook]) -> list[str]:
    """One mask for many cases, as a script that writes the same again and again leaves it."""
    cases: dict[str, list[str]] = {}
    for look in looks:
        cases.setdefault(look.digest, []).append(look.outline.case)
    same = max((names for digest, names in cases.items() if digest), key=len, default=[])
    if len(same) < max(SAME, SAME_SHARE * len(looks)):
        return []
    some = f"{len(same)} of {counted(len(looks), 'mask')} ({listed(same, 3)})"
    return [f"{some} are the same, pixel for pixel; is that so?"]
