"""What the values of a set's masks mean, told from all masks together; what is no label is found by its pattern.

Interpolation and lossy formats leave shades at the edges of labels, tools write the foreground as 1 or as 255, and a
palette's numbers stand for other colours in the next file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vpt.errors import VptError
from vpt.readers import LabelMap, reader_of
from vpt.readers.colours import BLACK, Colour, Palette, colours_of, palette_of, shown
from vpt.readers.picture import lowest_and_highest
from vpt.words import counted, listed

MOST_LABELS = 30  # more values than these are no label ids, but shades
APART = 8  # labels nearer to each other than this have no shades between them, but other labels
BRIGHT = 64  # ids of this and above are seldom next to others, so rare values near to a frequent one are shades of it
NEAR = 16  # levels that a lossy format moves a value by
EVEN = 0.8  # of a label's pixels, so many and more have neighbours of their own value only; of a border's, fewer
SLICES = 8  # looked at of a volume
FEW_EVEN = 0.3  # fewer than these are scattered, and make no area


@dataclass
class _Value:
    """Pixels that have a value: all, those amid their own value only, those between a lower and a higher one."""

    pixels: int = 0
    even: int = 0
    between: int = 0
    masks: list[str] = field(default_factory=list)


class MaskValues:
    """The values of masks that were `add`ed, and what is doubtful about them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.values: dict[int, _Value] = {}
        self.foregrounds: dict[str, frozenset[int]] = {}  # of every mask

    def add(self, name: str, labels: LabelMap) -> None:
        foreground = frozenset(labels.ids) - {0}
        self.foregrounds[name] = foreground
        for id in foreground if len(foreground) <= MOST_LABELS else ():
            self.values.setdefault(id, _Value()).masks.append(name)
        if len(foreground) <= MOST_LABELS:
            for k in _some_slices(labels.array):
                self._look_at(labels.array[..., k], foreground)

    def _look_at(self, array: np.ndarray, foreground: frozenset[int]) -> None:
        """(rows, columns) of a mask that holds `foreground` somewhere."""
        low = high = lower = higher = array
        if len(foreground) > 1:
            low, high = lowest_and_highest(array)
            lower, higher = lowest_and_highest(low)[0], lowest_and_highest(high)[1]  # of 5 x 5: shades can be 2 wide
        for id in foreground:
            of = self.values[id]
            mine = array == id
            of.pixels += int(mine.sum())
            of.even += int((mine & (low == high)).sum())
            of.between += int((mine & (lower < array) & (array < higher)).sum())

    @property
    def ids(self) -> frozenset[int]:
        return frozenset().union(*self.foregrounds.values())

    def problems(self) -> list[VptError]:
        """Shades, and a foreground that is 1 in some masks and 255 in others."""
        shades = self.shades()
        return [self._shaded(shades)] if shades else list(self._mixed())

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
        scattered = all(self.values[id].even < FEW_EVEN * count[id] for id in rare)
        return found | rare if found or scattered else found

    def _shaded(self, shades: Sequence[int]) -> VptError:
        masks = sorted({name for id in shades for name in self.values[id].masks})
        pixels = sum(self.values[id].pixels for id in shades)
        share = pixels / sum(of.pixels for of in self.values.values())
        return VptError(
            f"{self.folder}: {len(masks)} of {counted(len(self.foregrounds), 'mask')} ({listed(masks, 3)}) hold "
            f"{'the value' if len(shades) == 1 else 'values'} {listed(shades, 8)} ({share:.1%} of what is no "
            "background), which lie at the edges of other labels, as interpolation or a lossy format (JPEG, WebP) "
            "leaves them; export the masks again as PNG without interpolation (nearest neighbour), or threshold them "
            "(above 127 is 255, the rest 0); if these are labels, name them under `labels` in dataset.json"
        )

    def _mixed(self) -> Iterator[VptError]:
        """The same labels written in two ways: some masks have 1, others 255, or 1 and 2, others 127 and 254."""
        ways = self._ways()
        if len(ways) > 1:
            written = []
            for ids in ways:
                names = [name for name, found in self.foregrounds.items() if found and found <= ids]
                written.append(f"{counted(len(names), 'mask')} ({listed(names, 2)}) hold {listed(sorted(ids))}")
            yield VptError(
                f"{self.folder}: {', but '.join(written)}: likely the same labels, written in two ways; write all "
                "masks alike (for instance every 1 as 255); if these are labels of their own, name them under `labels` "
                "in dataset.json"
            )

    def _ways(self) -> list[frozenset[int]]:
        """Groups of values that may mean the same; one or none where there is no such doubt."""
        groups = {found for found in self.foregrounds.values() if found}
        small = frozenset[int]().union(*(found for found in groups if max(found) <= MOST_LABELS))
        large = frozenset[int]().union(*(found for found in groups if min(found) > MOST_LABELS))
        if any(min(found) <= MOST_LABELS < max(found) for found in groups):
            return []
        if large == {255, 65535} and not small and all(len(found) == 1 for found in groups):
            return [frozenset({255}), frozenset({65535})]
        if len(small) != len(large) or small != {*range(1, len(small) + 1)}:
            return []
        steps = [bright / id for id, bright in zip(sorted(small), sorted(large), strict=True)]
        spread = max(large, default=0) >= 2 * BRIGHT and max(steps) - min(steps) <= 1
        return [small, large] if spread else []


def shades_of(labels: LabelMap) -> list[int]:
    """The values of one mask of an image that look like no labels, sorted."""
    values = MaskValues(Path(labels.name))
    values.add(labels.name, labels)
    return values.shades()


# --- colours ----------------------------------------------------------------------------------------------------------


def ids_by_colour(folder: Path, masks: Sequence[Path]) -> tuple[tuple[Colour, int], ...] | None:
    """What id every colour of the masks has, where their numbers alone do not say it; None where they do.

    They do not where palettes list colours in another order from file to file, or where masks are stored in colours.
    Files that cannot be read are passed over. Raises VptError where the colours do not say it either.
    """
    palettes: dict[Path, Palette] = {}
    pictures: dict[Path, dict[Colour, bool]] = {}
    grey = []
    for path in masks:
        try:
            if found := palette_of(path):
                palettes[path] = found
            elif (colours := colours_of(path)) and not all(len({*colour}) == 1 for colour in colours):
                pictures[path] = colours
            else:
                grey.append(path)
        except VptError:  # reading the case says why
            continue
    differ = _differ(palettes)
    every = {colour for found in pictures.values() for colour in found}
    if not differ and (not pictures or len(every) > MOST_LABELS or any(map(_has_labels, grey))):
        return None  # reading a mask in colours says what it should be
    if differ:
        _require_named_colours(folder, palettes, differ)
        _refuse_grey(folder, grey, next(iter(palettes)))
    return _numbered(folder, palettes, pictures)


def require_one_numbering(masks: Sequence[Path]) -> None:
    """Masks of images that are compared number by number: a number stands for one colour in all their palettes.

    Grey palettes are read by their values, and say nothing of colours. Raises VptError where two palettes differ, and
    for what cannot be read.
    """
    palettes = {path: found for path in masks if (found := palette_of(path)) and not found.is_grey}
    if differ := _differ(palettes):
        first, second, k, _, colour = differ
        raise VptError(
            f"{second}: {k} is {shown(colour)} in its palette, but not in that of {first}, so the same number "
            "is not the same label in both; save all masks with one palette, or as grey with a value of its own "
            "for every label"
        )


def _differ(palettes: dict[Path, Palette]) -> tuple[Path, Path, int, Colour, Colour] | None:
    """Two files in which a number stands for two colours, or a colour has two numbers; the number, and its colours."""
    if all(palette.is_grey for palette in palettes.values()):
        return None  # these are read by their values anyway
    colour_of: dict[int, tuple[Path, Colour]] = {}
    number_of: dict[Colour, tuple[Path, int]] = {}
    for path, palette in palettes.items():
        for k, colour in palette.used.items():
            other, its = colour_of.setdefault(k, (path, colour))
            if its != colour:
                return other, path, k, its, colour
            other, number = number_of.setdefault(colour, (path, k))
            if number != k and other != path:
                return other, path, k, colour, colour
    return None


def _require_named_colours(
    folder: Path, palettes: dict[Path, Palette], differ: tuple[Path, Path, int, Colour, Colour]
) -> None:
    """Colours that share a number must be in one palette somewhere, else they may be one label in two tints."""
    of: dict[int, set[Colour]] = {}
    for palette in palettes.values():
        for k, colour in palette.used.items():
            of.setdefault(k, set()).add(colour)
    together = [palette.known for palette in palettes.values()]
    for colours in of.values():
        for one in colours:
            for other in colours - {one}:
                if not any({one, other} <= known for known in together):
                    raise _palettes_differ(folder, differ)


def _palettes_differ(folder: Path, differ: tuple[Path, Path, int, Colour, Colour]) -> VptError:
    first, second, k, one, other = differ
    return VptError(
        f"{folder}: the palettes differ between files, so neither numbers nor colours say which label is which: {k} is "
        f"{shown(one)} in {first.name} and {shown(other)} in {second.name}; "
        "save all masks with one palette, or as grey with a value of its own for every label"
    )


def _refuse_grey(folder: Path, grey: Sequence[Path], coloured: Path) -> None:
    """Masks without colours beside some that are read by colour; what they hold of the background does not matter."""
    if path := next(filter(_has_labels, grey), None):
        raise VptError(
            f"{folder}: the palettes differ between files, and {path.name} is grey while {coloured.name} has colours, "
            "so which value is which colour is not known; save all masks with one palette, or all as grey"
        )


def _has_labels(path: Path) -> bool:
    """Whether a mask holds anything above 0, as far as it can be read; reading the case says why it cannot."""
    try:
        return max(reader_of(path).labels().ids) > 0
    except VptError:
        return False


def _numbered(
    folder: Path, palettes: dict[Path, Palette], pictures: dict[Path, dict[Colour, bool]]
) -> tuple[tuple[Colour, int], ...]:
    """Black is 0, every other colour the number that most palettes give it, else its place among them."""
    votes: dict[Colour, Counter[int]] = {}
    for palette in palettes.values():
        for k, colour in palette.used.items():
            votes.setdefault(colour, Counter())[k] += 1
    for picture in pictures.values():
        for colour in picture:
            votes.setdefault(colour, Counter())
    if BLACK not in votes:
        raise VptError(
            f"{folder}: the masks' colours are {listed(map(shown, sorted(votes)))}, without black for the background; "
            "save all masks as grey, with 0 for the background and a value of its own for every label"
        )
    if thin := [colour for colour in votes if colour != BLACK and _is_thin(colour, palettes, pictures)]:
        raise VptError(
            f"{folder}: the masks' colours {listed(map(shown, sorted(thin)))} lie at the edges of other labels only, "
            "as interpolation leaves them; export the masks again as PNG without interpolation (nearest neighbour)"
        )
    others = sorted(votes.keys() - {BLACK})
    numbers = [min(votes[colour], key=lambda k: (k == 0, -votes[colour][k], k), default=0) for colour in others]
    if 0 in numbers or len({*numbers}) < len(numbers):
        numbers = list(range(1, len(others) + 1))
    return ((BLACK, 0), *zip(others, numbers, strict=True))


def _is_thin(colour: Colour, palettes: dict[Path, Palette], pictures: dict[Path, dict[Colour, bool]]) -> bool:
    """Whether a colour is in no palette, and has an even area in no picture."""
    in_palette = any(colour in palette.used.values() for palette in palettes.values())
    return not in_palette and not any(picture.get(colour) for picture in pictures.values())


def _some_slices(array: np.ndarray) -> list[int]:
    """Places along the last axis, evenly spread over those where a mask (X, Y, Z) is not 0."""
    held = np.flatnonzero(array.any((0, 1))).tolist() if array.shape[2] > 1 else [0]
    return held[:: max(1, -(-len(held) // SLICES))]
