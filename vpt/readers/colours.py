"""Masks whose labels are colours: what a palette's numbers mean in one file they need not mean in the next."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpt.errors import VptError
from vpt.readers.base import Source
from vpt.readers.grid import Grid, picture_grid
from vpt.readers.picture import RGB_CODE, PictureReader, lossy_format, picture_size, require_opaque
from vpt.readers.pillow_file import GREY_MODES, opened, palette, upright

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True)
class ColourMask(os.PathLike[str]):
    """A mask's file, and the label id that every colour of its data set has."""

    path: Path
    ids: tuple[tuple[Colour, int], ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)


class ColourMaskReader(PictureReader):
    """A mask read by its colours, whatever its palette's order."""

    endings = ()  # a path alone does not say what its colours mean

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return len(sources) == 1 and isinstance(sources[0], ColourMask)

    def ids(self) -> np.ndarray:
        mask: ColourMask = self.sources[0]
        coded = _coded(mask.path)
        colours, places = np.unique(coded, return_inverse=True)
        known = {_code(colour): id for colour, id in mask.ids}
        if unknown := [code for code in colours.tolist() if code not in known]:
            named = ", ".join(shown(colour) for colour, _ in mask.ids)
            raise VptError(f"{mask}: the colour #{unknown[0]:06x} is not in {named}; correct the mask")
        table = np.array([known[code] for code in colours.tolist()])
        return table.astype(np.min_scalar_type(int(table.max())))[places.reshape(coded.shape)]

    def grid(self) -> Grid:
        return picture_grid(*picture_size(self.sources[0].path))

    def orientation(self) -> int:
        return PictureReader((self.sources[0].path,)).orientation()

    @property
    def is_lossy(self) -> bool:
        return False  # none such is read by its colours


@dataclass(frozen=True)
class Palette:
    """What an image's numbers stand for: the colours of those that its pixels use, and all that it lists.

    entries: red, green, blue of every number, a byte each.
    """

    used: dict[int, Colour]
    entries: bytes

    def colour(self, number: int) -> Colour | None:
        """None of a number that it does not list."""
        listed = tuple(self.entries[3 * number : 3 * number + 3])
        return (listed[0], listed[1], listed[2]) if listed else None

    @property
    def known(self) -> frozenset[Colour]:
        return frozenset(zip(*(self.entries[k::3] for k in range(3)), strict=True))

    @property
    def is_grey(self) -> bool:
        return all(red == green == blue for red, green, blue in self.known)


def palette_of(path: Path) -> Palette | None:
    """None where an image has no palette. Raises VptError for what cannot be read."""
    with opened(path, pixels=True) as image:
        if image.mode != "P":
            return None
        found = Palette({}, palette(image).tobytes())
        for k in np.unique(np.array(image)).tolist():
            if colour := found.colour(k):
                found.used[k] = colour
        return found


def colours_of(path: Path) -> dict[Colour, bool] | None:
    """The colours of an image that is stored with colours, and whether any area of 3 x 3 pixels has just this one.

    None where it is stored as grey, has a palette or keeps no exact values. Raises VptError for what cannot be read.
    """
    with opened(path) as image:
        if image.mode in (*GREY_MODES, "P") or lossy_format(image, path):
            return None
    coded = _coded(path)
    even = np.ones(coded.shape, bool)
    even[1:] &= coded[1:] == coded[:-1]
    even[:, 1:] &= coded[:, 1:] == coded[:, :-1]
    inside = even[2:, 2:] & even[1:-1, 2:] & even[2:, 1:-1] & even[1:-1, 1:-1]
    thick = set(np.unique(coded[2:, 2:][inside]).tolist())
    return {(code >> 16, code >> 8 & 255, code & 255): code in thick for code in np.unique(coded).tolist()}


def shown(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _coded(path: Path) -> np.ndarray:
    """An image's colours (rows, columns) as 0xRRGGBB."""
    with opened(path, pixels=True) as image:
        require_opaque(image, path)
        coded: np.ndarray = np.array(upright(image).convert("RGB")).astype(np.int64) @ RGB_CODE
    return coded


def _code(colour: Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue
