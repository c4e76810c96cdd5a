"""Labelled images in a CSV of paths and labels. Only names are read here."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

from vpt.data.cases import case_name, kind_of, without_ending
from vpt.data.layouts.label_columns import COLUMNS, OF_ANYTHING, columns_of, plain
from vpt.data.layouts.marked_columns import mark_of
from vpt.data.layouts.rows import IMAGE_COLUMNS, Row, column_key, split_column, stem_of
from vpt.data.layouts.sides import side_of_folder
from vpt.data.walking import Walk
from vpt.errors import VptError
from vpt.files import is_hidden, require_file, spellings
from vpt.readers import SUPPORTED
from vpt.vocabulary import SIDE_WORDS, TABLES, WITH_VAL
from vpt.words import did_you_mean, listed

ALL = "all"
CSV_NAME = "labels.csv"
LONGEST = 2**28  # bytes of a list


def csv_rows(source: Path, problems: list[VptError]) -> Iterator[Row]:
    """A row for every line whose image is there; labels are the label cell's, split at `|`, as are annotated ones.
    Without such a column they are those of columns that hold a 1 each where an image is of their class.

    Raises VptError where the file as a whole cannot be read or lacks a column.
    """
    lines = list(csv_lines(source))
    if not lines:
        raise VptError(f"{source}: an empty file, expected a header with `path` and `label`; export it again")
    (_, header), *body = lines
    images, seen = _Images(source.parent), dict[str, tuple[int, str]]()
    places, marked = columns_of(header, body, source, images.image_of)
    if sides := split_column([plain(name) for name in header], partial(_cells_of, lines)):
        places["split"] = [plain(name) for name in header].index(sides)
    for number, cells in body:
        where = f"{source}: line {number}"
        if len(cells) > len(header):
            text = f"{len(cells)} cells, but the header has {len(header)}; quote what holds the separator"
            problems.append(VptError(f"{where}: {text}"))
            continue
        cell = {what: cells[place].strip() if place < len(cells) else "" for what, place in places.items()}
        image = images.found(cell["path"])
        if isinstance(image, VptError):
            problems.append(VptError(f"{where}: {image}"))
            continue
        label = mark_of(cells, marked) if marked else cell["label"]
        first, its = seen.setdefault(os.path.abspath(image), (number, label))
        if first != number:
            one = "" if its == label else f", as {its or 'no class'} there, and {label or 'no class'} here"
            mend = "write one line with all that is right, with | between" if one else "keep one of the two"
            problems.append(VptError(f"{where}: {cell['path']} is already on line {first}{one}; {mend}"))
            continue
        word = cell.get("split", "")
        side = SIDE_WORDS.get(word.lower(), "")
        if word and not side:
            meant = did_you_mean(word.lower(), SIDE_WORDS.keys() - {*WITH_VAL})
            problems.append(VptError(f"{where}: split {word!r}, expected train, val or test{meant}"))
        labels, looked_for = (label,) if marked else _names(label), _names(cell.get("annotated", ""))
        name = _csv_name(cell["path"], source.parent)
        others = {
            plain(column): cells[at].strip()
            for at, column in enumerate(header[: len(cells)])
            if column.strip()
            and at not in (places["path"], places.get("label"), places.get("split"), places.get("annotated"))
            and at not in marked.values()
        }
        annotated = None if looked_for in ((), (ALL,)) else looked_for
        stem = stem_of(name, label)
        yield Row(where, name, image, labels, side, cell.get("patient", ""), stem, others, annotated)


def lists_in(folder: Path) -> list[Path]:
    """The tables at the top of a folder that have a column of images, by their headers; first those with a label's."""
    found: dict[Path, bool] = {}
    for path in tables_in(folder):
        with suppress(VptError):  # no list that can be read
            _, header = next(csv_lines(path), (0, []))
            keys = {*map(column_key, header)}
            if keys & {*map(column_key, IMAGE_COLUMNS)} - {OF_ANYTHING}:
                found[path] = not keys.isdisjoint(map(column_key, COLUMNS["label"]))
    return sorted(found, key=lambda path: not found[path])


def to_give(lists: Sequence[Path]) -> str:
    """What to do with such tables, of which there is one: give it, or where each is of a side, one of all of them."""
    sides = {path.name: side_of_folder(path.stem) for path in lists}
    if len({*sides.values()} - {""}) > 1:
        joined = listed(name for name, side in sides.items() if side)
        return f"join the lists of its sides ({joined}) into one, {CSV_NAME}, with a column split (train, val, test)"
    return f"give the list in the place of the folder ({lists[0]})"


def tables_in(folder: Path) -> list[Path]:
    """The files at the top of a folder that may be lists, by their endings."""
    files = sorted(folder.iterdir()) if folder.is_dir() else ()
    return [path for path in files if path.suffix.lower() in TABLES and path.is_file() and not is_hidden(path)]


def _cells_of(lines: Sequence[tuple[int, Sequence[str]]], column: str) -> list[str]:
    """What a column, by its plain name, says on every line behind the header; of lines that end before it nothing."""
    (_, header), *body = lines
    place = [plain(name) for name in header].index(column)
    return [cells[place] if place < len(cells) else "" for _, cells in body]


def _names(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in map(str.strip, cell.split("|")) if part))


def csv_lines(source: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of what is not blank, the header first; the separator is the header's."""
    try:
        require_file(source, LONGEST, "a list")
        with open(source, encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=_separator(head), strict=True, skipinitialspace=True)
            start = 1
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield start, cells
                start = reader.line_num + 1
    except csv.Error as error:
        text = f"line {start}: no valid CSV ({error}); is a quotation mark missing there, or one too many?"
        raise VptError(f"{source}: {text}") from error
    except UnicodeDecodeError as error:
        raise VptError(f"{source}: no UTF-8 text ({error}); save it as CSV in UTF-8") from error
    except OSError as error:
        raise VptError(f"{source}: {error.strerror or error}; give a CSV file that can be read") from error


def _separator(head: str) -> str:
    """Comma, semicolon or tab: the one that gives the most of the columns that are looked for, then the most cells."""

    def yields(separator: str) -> tuple[int, int]:
        keys = [column_key(name.strip().strip('"')) for name in head.split(separator)]
        return sum(any(column_key(name) in keys for name in known) for known in COLUMNS.values()), len(keys)

    return max(",;\t", key=yields)


def _is_series(path: Path) -> bool:
    """Whether a folder is one scan, of DICOM."""
    return path.is_dir() and kind_of(path) is not None


class _Images:
    """The images that the lines of a list mean."""

    def __init__(self, folder: Path):
        self.folder = folder

    def image_of(self, path: str) -> Path | None:
        found = self.found(path)
        return found if isinstance(found, Path) else None

    def found(self, path: str) -> Path | VptError:
        """That of a path, beside the list or in images/, however it is spelled; or the only one of a bare name, with or
        without its ending, in any folder below.
        """
        if not path:
            return VptError("no path; name the image, or remove the line")
        written = spellings(path)
        places = [self.folder / base / each for each in written for base in ("", "images")]
        places += [self.folder.parent / each for each in written if Path(each).parts[:1] == (self._own_name,)]
        try:
            image = next((place for place in places if place.is_file() or _is_series(place)), None)
        except (OSError, ValueError):  # a name that is too long, or holds a null byte
            image = None
        if image is None:
            alike = next((self._below[each] for each in written if each in self._below), [])
            if len(alike) > 1:
                found = listed((each.relative_to(self.folder) for each in alike), 3)
                return VptError(f"{path}: may be {found}; give the path of the one that is meant")
            if not alike and not self._below:
                above = "move the list into the folder that holds the images, or that of their folders"
                return VptError(f"no such file: {path}, nor any image beside the list or in a folder below; {above}")
            if not alike:
                return VptError(f"no such file: {path}, nor images/{path}; add it, or remove the line")
            image = alike[0]
        if kind_of(image) is None:
            return VptError(f"{path}: not a supported ending; {SUPPORTED}")
        return image

    @cached_property
    def _own_name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        """The images in the list's folder and below, by their names with and without the ending."""
        found: dict[str, list[Path]] = defaultdict(list)
        for image in Walk(self.folder).files():
            if kind_of(image) is not None:
                for name in {image.name, case_name(image)}:
                    found[name].append(image)
        return found


def _csv_name(path: str, folder: Path) -> str:
    """A name for the image: its path without the ending, and without what leads out of the CSV's folder."""
    written = Path(path.replace("\\", "/"))
    if written.is_absolute() and written.is_relative_to(folder.resolve()):
        written = written.relative_to(folder.resolve())
    return without_ending(Path(*(part for part in written.parts if part not in (written.anchor, ".."))))
