"""What the columns of a list of labelled images hold, by their names, and where these leave it open by their cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vpt.data.layouts.marked_columns import marked_columns
from vpt.data.layouts.naming import says_masks
from vpt.data.layouts.rows import IMAGE_COLUMNS, PATIENT_COLUMNS, SPLIT_COLUMNS, column_key
from vpt.errors import VptError
from vpt.words import listed

COLUMNS = {  # what a column holds -> the names it may have
    "path": IMAGE_COLUMNS,
    "label": ("label", "class", "diagnosis", "dx", "finding labels"),
    "split": SPLIT_COLUMNS[:1],
    "patient": PATIENT_COLUMNS,
    "annotated": ("annotated",),
}
MOST_NAMED = 8  # of the names that a column may have
OF_FILES = {*map(column_key, ("filepath", "image_path"))}  # columns of paths, and no names or numbers
NAMES_OF_FILES = {"path", "file", "filename", *OF_FILES}
OF_ANYTHING = "id"  # a column that may be of images, patients or lines
LOOKED_AT = 20  # lines, for a column that is called otherwise


def plain(name: str) -> str:
    return name.strip().casefold()


def columns_of(
    header: Sequence[str], body: Sequence[tuple[int, list[str]]], source: Path, image_of: Callable[[str], Path | None]
) -> tuple[dict[str, int], dict[str, int]]:
    """What a column holds -> where it is; and where none holds the label, class -> the column that marks it.

    image_of: the image that a cell names. Where `filepath` names another than `image_id`, a mere number, it counts.
    Raises VptError where none holds paths, or labels, or two are called alike.
    """
    keys = [column_key(name) for name in header]

    def images(place: int, lines: int | None = None) -> list[Path | None]:
        return [image_of(cells[place].strip()) if place < len(cells) else None for _, cells in body[:lines]]

    def says_more(key: str, first: str) -> bool:
        """Whether cells of paths name images that those of names or numbers do not."""
        pairs = zip(images(keys.index(first)), images(keys.index(key)), strict=True)
        return any(other is not None and other != its for its, other in pairs)

    places = {}
    for what, known in COLUMNS.items():
        there = [key for key in dict.fromkeys(map(column_key, known)) if key in keys]
        if what == "patient":  # what is blank throughout says nothing
            there = [key for key in there if _says_some(body, keys.index(key))] or there
        if what == "path" and len(there) > 1 and there[0] not in NAMES_OF_FILES:
            there = [key for key in there if key in OF_FILES and says_more(key, there[0])] or there
        key = next(iter(there), None)
        if key is not None and keys.count(key) > 1:
            alike = [plain(name) for name in header if column_key(name) == key]
            called = " and ".join(dict.fromkeys(map(repr, alike)))
            raise VptError(f"{source}: {len(alike)} columns are called {called}; keep one, or rename the others")
        if key is not None:
            places[what] = keys.index(key)
    if keys[places.get("path", 0)] == OF_ANYTHING and not any(images(places["path"], LOOKED_AT)):
        _require_no_other_path(header, places, lambda at: any(images(at, LOOKED_AT)), source)
    others = ["" if at in places.values() else name for at, name in enumerate(header)]
    marked = marked_columns(others, body, source) if "path" in places and "label" not in places else {}
    for what in ("path", "label"):
        if what not in places and not (what == "label" and marked):
            first, *more = COLUMNS[what]
            expected = f"expected one called {first} (or {listed(more, MOST_NAMED)}); rename the one that is meant"
            if what == "label" and any(map(says_masks, header)):
                expected += "; to segment, call the columns image and mask"
            raise VptError(f"{source}: no column for the {what} among {listed(header, 10)}; {expected}")
    return places, marked


def _require_no_other_path(
    header: Sequence[str], places: Mapping[str, int], names_images: Callable[[int], bool], source: Path
) -> None:
    """Raise VptError where a column that is called as none for the path names images, beside an id that names none."""
    named = (at for at, name in enumerate(header) if at not in places.values() and name.strip() and names_images(at))
    if (at := next(named, None)) is not None:
        raise VptError(
            f"{source}: the column {header[places['path']].strip()} names no image that is there, but "
            f"{header[at].strip()} does; rename {header[at].strip()} to path"
        )


def _says_some(body: Sequence[tuple[int, list[str]]], place: int) -> bool:
    return any(cells[place].strip() for _, cells in body if place < len(cells))
