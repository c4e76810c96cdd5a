"""What the colours of a set's masks mean, told from all masks together: palettes differ from file to file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from vpt.data.doubts.mask_values import AT_ONCE, MANY, MOST_LABELS
from vpt.errors import VptError
from vpt.machine.available import cores
from vpt.parallel import in_processes
from vpt.readers import reader_of
from vpt.readers.colours import BLACK, Colour, Palette, colours_of, palette_of, shown
from vpt.words import listed


def ids_by_colour(folder: Path, masks: Sequence[Path]) -> tuple[tuple[Colour, int], ...] | None:
    """What id every colour of the masks has, where their numbers alone do not say it; None where they do.

    They do not where palettes list colours in another order from file to file, or black elsewhere than as 0, or where
    masks are stored in colours.
    Files that cannot be read are passed over. Raises VptError where the colours do not say it either.
    """
    palettes: dict[Path, Palette] = {}
    pictures: dict[Path, dict[Colour, bool]] = {}
    grey = []
    for path, found in zip(masks, in_processes(_colours_in, masks, cores(AT_ONCE), MANY), strict=True):
        if isinstance(found, Palette):
            palettes[path] = found
        elif isinstance(found, dict):
            pictures[path] = found
        elif found is None:
            grey.append(path)
    differ = _differ(palettes)
    moved = not differ and (any(map(_puts_black_elsewhere, palettes.values())) or bool(_other_black(palettes)))
    every = {colour for found in pictures.values() for colour in found}
    if not differ and not moved and (not pictures or len(every) > MOST_LABELS or any(map(_has_labels, grey))):
        return None  # reading a mask in colours says what it should be
    if differ:
        _require_named_colours(folder, palettes, differ)
    if differ or moved:
        _refuse_grey(folder, grey, next(iter(palettes)))
    return _numbered(folder, palettes, pictures)


def _colours_in(mask: Path) -> Palette | dict[Colour, bool] | VptError | None:
    """Its palette, or the colours of what is no grey; None of grey."""
    try:
        if found := palette_of(mask):
            return found
        colours = colours_of(mask)
        return colours if colours and not all(len({*colour}) == 1 for colour in colours) else None
    except VptError as error:  # reading the case says why
        return error


def require_one_numbering(masks: Sequence[Path]) -> None:
    """Masks of images that are compared number by number: a number stands for one colour in all their palettes.

    Grey palettes are read by their values, and say nothing of colours. Raises VptError where two palettes differ, where
    black has another number than 0, and for what cannot be read.
    """
    palettes = {path: found for path in masks if (found := palette_of(path)) and not found.is_grey}
    for path, palette in palettes.items():
        if _puts_black_elsewhere(palette):
            raise VptError(
                f"{path}: 0 is {shown(palette.colour(0) or BLACK)} in its palette and black, the background, is "
                "another number; save all masks as grey, with 0 for the background and a value of its own for every "
                "label"
            )
    if other := _other_black(palettes):
        raise VptError(
            f"{other}: black, the background, is another number than 0 in it, and 0 in other masks; save all masks as "
            "grey, with 0 for the background and a value of its own for every label"
        )
    if differ := _differ(palettes):
        first, second, k, _, colour = differ
        raise VptError(
            f"{second}: {k} is {shown(colour)} in its palette, but not in that of {first}, so the same number "
            "is not the same label in both; save all masks with one palette, or as grey with a value of its own "
            "for every label"
        )


def _differ(palettes: dict[Path, Palette]) -> tuple[Path, Path, int, Colour, Colour] | None:
    """Two files in which a number stands for two colours, or a colour has two numbers; the number, and its colours.

    A palette may list a colour twice, as black for what it does not name: then its numbers count, if others agree.
    """
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
            if number != k and other != path and palettes[other].colour(k) != colour:
                return other, path, k, colour, colour
    return None


def _puts_black_elsewhere(palette: Palette) -> bool:
    """Whether black, the background, has another number than 0, which is another colour's."""
    return BLACK in palette.used.values() and palette.colour(0) != BLACK and not palette.is_grey


def _other_black(palettes: Mapping[Path, Palette]) -> Path | None:
    """A file without 0 whose background is another number, as black as 0 is, where that is 0 in the others.

    A number that the palette does not name may be black as well: then a file has it beside 0.
    """
    blacks = {path: {k for k, colour in its.used.items() if colour == BLACK} for path, its in palettes.items()}
    if not any(0 in found for found in blacks.values()) or any(len(found) > 1 for found in blacks.values()):
        return None
    coloured = (path for path, its in palettes.items() if not its.is_grey)
    return next((path for path in coloured if blacks[path] and 0 not in blacks[path]), None)


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
