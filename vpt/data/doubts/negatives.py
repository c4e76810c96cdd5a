"""Cases of which a part is negated, though no header says so: light where the others are dark.

A single one is told by what most are like (`vpt.data.doubts.unlike`). Of half a set none is odd: then the cases
fall into two groups, of which one looks as the complement of the other, and nearly none lies between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vpt.data.doubts.likeness import CELLS, steps_of
from vpt.data.doubts.values import LIGHT, SHAPED, complement
from vpt.data.values import CaseValues, values_of
from vpt.errors import VptError
from vpt.readers import Kind, reader_of
from vpt.words import listed

FEWEST, FEWEST_UNLIKE = 20, 40  # images; where they show the same place, and where only their values tell
SHARE = 0.1  # of the images, the smaller group
BETWEEN, NEARLY_NONE = 0.35, 0.05  # so near to neither group, of the usual distance; of the images, at most
ALIKE = 0.8  # cosine of the usual image with what all have in common: they show the same place
MIRRORED = -0.9  # cosine of the two groups' means, which are each other's complement
OFF = 0.08  # how far the shape of one group's values lies from the complement of the other's, on average
AGREE = 0.75  # of the images, so many fall into the same group by what they show and by their values


@dataclass(frozen=True)
class Seen:
    """Of one case: its file, its values, and `steps_of` it."""

    file: str
    values: CaseValues
    steps: np.ndarray


def seen_among(cases: Iterable[Any], channels: int, kind: Kind) -> list[tuple[Any, Seen]]:
    """These cases, each with what it looks like; without those that cannot be read."""
    found = []
    for case in cases:
        try:
            voxels = reader_of(case.images).voxels(channels)
        except VptError:  # reading the case says why
            continue
        source = case.images[0]
        file = str(source) if isinstance(source, Path) else case.name
        found.append((case, Seen(file, values_of(voxels), steps_of(voxels.values(), kind))))
    return found


def negatives(cases: Sequence[Seen], kind: Kind, told: Iterable[str] = ()) -> list[tuple[str, str]]:
    """(file, sentence) where a part of the cases looks negated; the smaller part counts as that.

    told: sentences that were said of them already, one of which may be that.
    """
    if len(cases) < FEWEST or any(LIGHT in text for text in told):
        return []
    shapes = np.stack([np.mean([channel.shape for channel in case.values.channels], axis=0) for case in cases])
    light = np.stack([shape - complement(shape) for shape in shapes])[:, list(SHAPED)]
    middle = np.stack([_middle(case.steps, kind) for case in cases])
    group = _two_groups(light, middle)
    if group is None or not _is_complement(shapes[group], shapes[~group]):
        return []
    group = group if group[0] else ~group  # of halves the one with the first case
    fewer = group if 2 * group.sum() <= len(cases) else ~group
    files = [case.file for case, odd in zip(cases, fewer, strict=True) if odd]
    what = "images" if kind == "images" else "scans"
    text = (
        f"{len(files)} of {len(cases)} {what} ({listed((Path(file).name for file in files), 3)}) are light where the "
        "others are dark, and dark where those are light; if some are negatives, invert these, so that all are alike"
    )
    return [(files[0], text)]


def _two_groups(light: np.ndarray, middle: np.ndarray) -> np.ndarray | None:
    """(N,) which of the two groups a case is in; None where there is one, or no clear border.

    light: (N, K) how light its values are; middle: (N, M) how much lighter it is in its middle, of length 1.
    """
    by_values, by_place = _along(light), _along(middle)
    same_place = np.median(np.abs(by_place)) >= ALIKE and _is_parted(by_place)
    if same_place:
        group = by_place > 0
        cosine = _cosine(middle[group].mean(0), middle[~group].mean(0)) if 0 < group.sum() < len(group) else 1.0
        if cosine > MIRRORED:
            return None
    elif len(light) >= FEWEST_UNLIKE and _is_parted(by_values):
        group = by_values > 0
    else:
        return None
    alike = np.mean((by_values > 0) == group)
    return group if SHARE <= group.mean() <= 1 - SHARE and max(alike, 1 - alike) >= AGREE else None


def _along(features: np.ndarray) -> np.ndarray:
    """(N, K) that change their sign in a negative -> (N,) along the direction in which they differ most from 0."""
    _, directions = np.linalg.eigh(features.T @ features)
    return features @ directions[:, -1]


def _is_parted(places: np.ndarray) -> bool:
    """Whether nearly none lies near to 0."""
    return bool(np.mean(np.abs(places) < BETWEEN * np.median(np.abs(places))) <= NEARLY_NONE)


def _is_complement(one: np.ndarray, other: np.ndarray) -> bool:
    off = np.abs(np.median(one, axis=0) - complement(np.median(other, axis=0)))
    return bool(off[list(SHAPED)].mean() <= OFF)


def _middle(steps: np.ndarray, kind: Kind) -> np.ndarray:
    """How much lighter the cells of a row are than their mean, the same for an image and its mirror images."""
    first, *others = CELLS[kind]
    cells = np.zeros((first, *others))
    cells[1:] = np.cumsum(steps.reshape(first - 1, *others), axis=0)
    cells -= cells.mean(axis=0)
    for axis in range(cells.ndim):
        cells = cells + np.flip(cells, axis)
    length = float(np.linalg.norm(cells))
    return (cells / length if length else cells).ravel()


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other) or 1.0))
