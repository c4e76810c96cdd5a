"""What the values of a set's masks mean, told from all masks together; what is no label is found by its pattern.

Interpolation and lossy formats leave shades at the edges of labels, tools write the foreground as 1 or as 255, and a
palette's numbers stand for other colours in the next file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from vpt.data.doubts.class_names import plain_name
from vpt.errors import VptError
from vpt.readers import LabelMap
from vpt.readers.picture import lowest_and_highest
from vpt.words import counted, listed

SHADES = "which lie at the edges of other labels"
TWO_WAYS = "written in two ways"
MOST_LABELS = 30  # more values than these are no label ids, but shades
APART = 8  # labels nearer to each other than this have no shades between them, but other labels
BRIGHT = 64  # ids of this and above are seldom next to others, so rare values near to a frequent one are shades of it
NEAR = 16  # levels that a lossy format moves a value by
EVEN = 0.8  # of a label's pixels, so many and more have neighbours of their own value only; of a border's, fewer
SLICES = 8  # looked at of a volume
FEW_EVEN = 0.3  # fewer than these are scattered, and make no area
NO_AREA = 0.05  # the same of a value that may be a small label
WHITE = {*range(255 - NEAR, 256), 4095, 32767, 65280, 65535}  # of 8, 12, 15 and 16 bits, and nearly
AT_ONCE, MANY = 4, 200  # masks that are read at a time; so many are worth processes


@dataclass
class _Value:
    """Pixels that have a value: all, those amid their own value only, those between a lower and a higher one."""

    pixels: int = 0
    even: int = 0
    between: int = 0
    masks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SeenMask:
    """The values above 0 of a mask, and of each, where they are not too many to be labels, its pixels: see `_Value`.

    names: what its file calls its values, of those that it names.
    """

    foreground: frozenset[int]
    values: dict[int, tuple[int, int, int]]
    names: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, labels: LabelMap, most: int = MOST_LABELS) -> Self:
        """most: values that are looked at one by one."""
        foreground = frozenset(labels.ids) - {0}
        counts = dict.fromkeys(foreground if len(foreground) <= most else (), (0, 0, 0))
        for k in some_slices(labels.array) if counts else ():
            for id, more in _counted(labels.array[..., k], foreground).items():
                pixels, even, between = (count + one for count, one in zip(counts[id], more, strict=True))
                counts[id] = pixels, even, between
        return cls(foreground, counts, labels.names)


def _counted(array: np.ndarray, foreground: frozenset[int]) -> dict[int, tuple[int, int, int]]:
    """(rows, columns) of a mask that holds `foreground` somewhere."""
    low = high = lower = higher = array
    if len(foreground) > 1:
        low, high = lowest_and_highest(array)
        lower, higher = lowest_and_highest(low)[0], lowest_and_highest(high)[1]  # of 5 x 5: shades can be 2 wide
    found = {}
    for id in foreground:
        mine = array == id
        even, between = mine & (low == high), mine & (lower < array) & (array < higher)
        found[id] = int(mine.sum()), int(even.sum()), int(between.sum())
    return found


class MaskValues:
    """The values of masks that were `add`ed, and what is doubtful about them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.values: dict[int, _Value] = {}
        self.foregrounds: list[tuple[str, frozenset[int]]] = []  # of every mask; several may be called alike
        self.called: dict[int, tuple[str, str]] = {}  # what the first mask that names an id calls it, and that mask
        self.called_otherwise: tuple[int, str, str] | None = None  # an id, and what another mask calls it, and that

    def add(self, name: str, mask: SeenMask) -> None:
        self.foregrounds.append((name, mask.foreground))
        for id, own in mask.names:
            if id in mask.foreground and plain_name(self.called.setdefault(id, (own, name))[0]) != plain_name(own):
                self.called_otherwise = self.called_otherwise or (id, own, name)
        for id, (pixels, even, between) in mask.values.items():
            of = self.values.setdefault(id, _Value())
            of.masks.append(name)
            of.pixels, of.even, of.between = of.pixels + pixels, of.even + even, of.between + between

    @property
    def ids(self) -> frozenset[int]:
        return frozenset().union(*(found for _, found in self.foregrounds))

    def problems(self) -> list[VptError]:
        """Ids that files call differently, shades, and a foreground that is 1 in some masks and 255 in others."""
        shades = self.shades()
        return [*self._misnamed(), *([self._shaded(shades)] if shades else self._mixed())]

    def _misnamed(self) -> Iterator[VptError]:
        if self.called_otherwise:
            id, other, its = self.called_otherwise
            own, first = self.called[id]
            yield VptError(
                f"{self.folder}: segment {id} is called {own} in {first} and {other} in {its}, so the same number is "
                "not the same label; number the segments alike in all files, or, if both mean one label, name "
                "it under `labels` in dataset.json"
            )

    def shades(self) -> list[int]:
        """The values that look like no labels, sorted."""
        edges = {id for id, of in self.values.items() if self._is_edge(id, of)}
        return sorted(edges | self._near(self.values.keys() - edges))

    def _is_edge(self, id: int, of: _Value) -> bool:
        """Whether a value only lies between a lower and a higher label that are far from each other."""
        if not of.pixels or of.between < 0.9 * of.pixels or of.even > 0.02 * of.pixels:
            return False
        areas = [0, *(other for other, its in self.values.items() if its.even > 0.1 * its.pixels)]
        lower, higher = [k for k in areas if k < id], [k for k in areas if k > id]
        return bool(lower and higher) and min(higher) - max(lower) >= APART

    def _near(self, ids: set[int]) -> set[int]:
        """Values that are rare and uneven beside a bright frequent one, and then such values beside the background."""
        count = {id: self.values[id].pixels for id in ids}
        uneven = {id for id in ids if self.values[id].even < EVEN * count[id]}
        found: set[int] = set()
        peaks = []
        for peak in (id for id in ids if id >= BRIGHT):
            beside = {id for id in ids if 0 < abs(id - peak) <= NEAR}
            if count[peak] >= 4 * sum(count[id] for id in beside):
                peaks.append(peak)
                found |= beside & uneven
        rare = {id for id in uneven if id <= NEAR and any(count[peak] >= 4 * count[id] for peak in peaks)}
        lossy = len(rare) > 1 and max(peaks) < 256  # 8 bits and several values: small labels are seldom so
        most = FEW_EVEN if lossy else NO_AREA
        scattered = all(self.values[id].even < most * count[id] for id in rare)
        return found | rare if found or scattered else found

    def _shaded(self, shades: Sequence[int]) -> VptError:
        masks = sorted({name for id in shades for name in self.values[id].masks})
        pixels = sum(self.values[id].pixels for id in shades)
        share = pixels / sum(of.pixels for of in self.values.values())
        return VptError(
            f"{self.folder}: {len(masks)} of {counted(len(self.foregrounds), 'mask')} ({listed(masks, 3)}) hold "
            f"{'the value' if len(shades) == 1 else 'values'} {listed(shades, 8)} ({share:.1%} of what is no "
            f"background), {SHADES}, as interpolation or a lossy format (JPEG, WebP) "
            "leaves them; export the masks again without interpolation (nearest neighbour; pictures as PNG), or "
            "threshold them (above 127 is 255, the rest 0); if these are labels, name them under `labels` in "
            "dataset.json"
        )

    def _mixed(self) -> Iterator[VptError]:
        """The same labels written in two ways: some masks have 1, others 255, or 1 and 2, others 127 and 254."""
        ways = self._ways()
        if len(ways) > 1:
            written = []
            for ids in ways:
                names = [name for name, found in self.foregrounds if found and found <= ids]
                held = f"{'holds' if len(names) == 1 else 'hold'} {listed(sorted(ids))}"
                written.append(f"{counted(len(names), 'mask')} ({listed(names, 2)}) {held}")
            example = (
                f" (for instance every {min(ways[0])} as {min(ways[1])})" if all(len(way) == 1 for way in ways) else ""
            )
            yield VptError(
                f"{self.folder}: {', but '.join(written)}: likely the same labels, {TWO_WAYS}; write all "
                f"masks alike{example}; if these are labels of their own, name them under `labels` in dataset.json"
            )

    def _ways(self) -> list[frozenset[int]]:
        """Groups of values that may mean the same; one or none where there is no such doubt."""
        groups = {found for _, found in self.foregrounds if found}
        small = frozenset[int]().union(*(found for found in groups if max(found) <= MOST_LABELS))
        large = frozenset[int]().union(*(found for found in groups if min(found) > MOST_LABELS))
        if any(min(found) <= MOST_LABELS < max(found) for found in groups):
            return []
        if len(large) > 1 and not small and all(len(found) == 1 for found in groups) and large <= WHITE:
            return [frozenset({id}) for id in sorted(large)]
        if len(small) > 1 and small == {*range(1, len(small) + 1)} and len(large) == 1 and large <= WHITE:
            return [small, large]  # of some all labels are one
        if len(small) != len(large) or small != {*range(1, len(small) + 1)}:
            return []
        steps = [bright / id for id, bright in zip(sorted(small), sorted(large), strict=True)]
        spread = max(large, default=0) >= 2 * BRIGHT and max(steps) - min(steps) <= 1
        return [small, large] if spread else []


def too_many_values(path: Path) -> VptError:
    """Of the mask with which a set holds more values than `MOST_LABELS`."""
    return VptError(
        f"{path}: with it the masks hold more than {MOST_LABELS} values, expected label ids; shades at the edges of "
        "labels are left by interpolation and lossy formats: threshold soft masks (0 and 255) and save them as PNG; of "
        "numbered objects (instances) write every one as 1; or name the ids under `labels` in dataset.json"
    )


def shades_of(labels: LabelMap) -> list[int]:
    """The values of one mask of an image that look like no labels, sorted."""
    values = MaskValues(Path(labels.name))
    values.add(labels.name, SeenMask.of(labels))
    return values.shades()


def some_slices(array: np.ndarray) -> list[int]:
    """Places along the last axis, evenly spread over those where a mask (X, Y, Z) is not 0."""
    held = np.flatnonzero(array.any((0, 1))).tolist() if array.shape[2] > 1 else [0]
    return held[:: max(1, -(-len(held) // SLICES))]
